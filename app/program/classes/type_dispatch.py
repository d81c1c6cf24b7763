"""`functools.singledispatch`: one function for each type of the first argument."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Value
from app.program.semantics.values import ClassValue, FunctionValue, Instance, Named, Partial

Invoke = Callable[[Value, tuple[Value, ...]], Value]
NAMES: Final = ("functools.singledispatch", "singledispatch")
_REGISTER: Final = "functools.singledispatch.register"


@dataclass(frozen=True, slots=True, eq=False)
class Dispatched:
    """A function under `@singledispatch`.

    Attributes:
        function: for what no other one is for.
        kinds: types, with the functions for them.
        own: what is read of it: `register`.
    """

    function: Value
    kinds: list[tuple[Value, Value]] = field(default_factory=list)
    own: dict[str, Value] = field(default_factory=dict)

    def chosen(self, invoke: Invoke, args: tuple[Value, ...]) -> Value:
        """The function for these arguments: the one for the type of the first that stands nearest to it."""
        if not args:
            raise Refusal("A function under `@singledispatch` takes an argument.", raises="TypeError")
        fitting = [pair for pair in self.kinds if invoke(Named("isinstance"), (args[0], pair[0]))]
        if len(fitting) < 2:
            return fitting[0][1] if fitting else self.function
        if isinstance(args[0], Instance) and isinstance(args[0].kind, ClassValue):
            order = args[0].kind.order
            return min(fitting, key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))[1]
        own = invoke(Named("type"), (args[0],))
        return next((function for kind, function in reversed(fitting) if kind == own), fitting[-1][1])


def resolved(short: str) -> Callable[[tuple[Value, ...], dict[str, Value]], Value] | None:
    """What a call of `singledispatch`, or of what its function has, does."""
    if short in NAMES:
        return lambda args, kwargs: _begun(args[0])
    return (lambda args, kwargs: _registered(*args)) if short == _REGISTER else None


def _begun(function: Value) -> Dispatched:
    dispatched = Dispatched(function)
    dispatched.own["register"] = Partial(Named(_REGISTER), (dispatched,), {})
    return dispatched


def _registered(dispatched: Dispatched, kind: Value, function: Value = None) -> Value:
    """`@f.register(list)`, and `@f.register` of a function that says the type of its first argument."""
    if isinstance(kind, FunctionValue):
        dispatched.kinds.extend((each, kind) for each in _annotated(kind))
        return kind
    if function is None:
        return Partial(Named(_REGISTER), (dispatched, kind), {})
    dispatched.kinds.append((kind, function))
    return function


def _annotated(function: FunctionValue) -> Iterator[Value]:
    arguments = function.node.args
    first = next(iter([*arguments.posonlyargs, *arguments.args]), None)
    if first is None or first.annotation is None:
        raise Refusal("`register` needs a type.", "Write `@f.register(torch.Tensor)`.", raises="TypeError")
    stack: list[ast.expr] = [first.annotation]
    while stack:
        part = stack.pop()
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr):
            stack += [part.left, part.right]
        elif isinstance(part, ast.Name):
            yield function.scope[part.id] if part.id in function.scope else Named(part.id)
        else:
            yield Named(ast.unparse(part))
