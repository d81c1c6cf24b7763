"""What `with` enters and leaves: modes of PyTorch, objects with `__enter__` and `__exit__`, generators under `@contextmanager`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from app.program.library import vocabulary
from app.program.library.factories import Device
from app.program.reading.source import RaisedError, Refusal
from app.program.semantics.graph_values import Value
from app.program.semantics.values import (
    ClassValue,
    ContextValue,
    ErrorValue,
    Foreign,
    FunctionValue,
    Inert,
    Iterator,
    Method,
    Named,
    special,
)

_NO_ERROR: Final = (None, None, None)  # what `__exit__` is given where the block ended without one
_NO_GRAD: Final = {"no_grad": False, "inference_mode": False, "enable_grad": True}


@dataclass(frozen=True, slots=True)
class Entered:
    """What was entered.

    Attributes:
        leave: given the error that ended the block, or None; whether it takes that error, so that it goes no further.
        takes: whether it may.
    """

    leave: Callable[[RaisedError | None], bool]
    takes: bool = False


class Stack:
    """`contextlib.ExitStack()`: what it was given to enter is left with it, the last first."""

    def __init__(self, reader: Any, node: ast.expr) -> None:
        self._reader, self._node = reader, node
        self._inside: list[Entered] = []

    def call(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """A method of it."""
        if name == "enter_context" and len(args) == 1:
            bound, left = _entered(self._reader, self._node, args[0])
            self._inside.append(left)
            return bound
        if name == "callback" and args:
            self._inside.append(Entered(lambda error: self._called(*args, **kwargs)))
            return args[0]
        if name == "close" and not args:
            self.leave(None)
            return None
        raise Refusal(f"An `ExitStack` has no `.{name}()` here.", "It has `enter_context`, `callback` and `close`.")

    def _called(self, function: Value, *args: Value, **kwargs: Value) -> bool:
        self._reader.invoke(self._node, function, args, kwargs)
        return False

    def leave(self, error: RaisedError | None) -> bool:
        """Leaves all of it; whether one took the error. Raises what was raised on the way."""
        now = error
        while self._inside:
            try:
                if self._inside.pop().leave(now):
                    now = None
            except RaisedError as other:
                now = other
        if now is not None and now is not error:
            raise now
        return error is not None and now is None


def entered(reader: Any, item: ast.withitem) -> Entered:
    """Enters one item of a `with`, and binds its name."""
    value = _context(reader, item.context_expr)
    bound, left = reader.located(item.context_expr, lambda: _entered(reader, item.context_expr, value))
    if item.optional_vars is not None:
        reader.assign(item.optional_vars, bound)
    return left  # type: ignore[no-any-return]


def _context(reader: Any, node: ast.expr) -> Value:
    """What a `with` enters. PyTorch's modes that mean nothing here are known by their names, whatever they are given."""
    if reader.is_silent(node):
        return ContextValue(reader.source.excerpt(node))
    path = reader.dotted(node.func if isinstance(node, ast.Call) else node)
    if path is None:
        return reader.value(node)
    if vocabulary.is_context(path):
        args, kwargs = reader.arguments(node) if isinstance(node, ast.Call) else ((), {})
        return ContextValue(path, (*args, *kwargs.values()))
    if isinstance(node, ast.Call) and (vocabulary.is_known(path) or path in reader.builtins.table):
        return reader.value(node)
    raise reader.source.refused(
        Refusal(
            f"`with {path or '…'}` is not in the language.",
            "Write the lines without `with`; `torch.no_grad()`, `torch.enable_grad()` and classes of the program with `__enter__` "
            "and `__exit__` are understood.",
        ),
        node,
    )


def _entered(reader: Any, node: ast.expr, value: Value) -> tuple[Value, Entered]:
    if isinstance(value, ContextValue):
        return _of_name(reader, node, value) if value.members is None else _of_generator(value.members)
    enter, leave = special(value, "__enter__"), special(value, "__exit__")
    if enter is None:
        if isinstance(value, list | range | Iterator | Inert | Foreign | Device):  # `with tqdm(batches) as bar`
            return value, Entered(lambda error: False)
        raise Refusal(
            "This is no context: it has no `__enter__`.", "Give its class `__enter__` and `__exit__`.", raises="TypeError"
        )

    def left(error: RaisedError | None) -> bool:
        if leave is None:
            return False
        arguments = _NO_ERROR if error is None else (Named(error.raises), value_of(error), None)
        answer = reader.invoke(node, leave, arguments, {})
        return error is not None and bool(reader.holds(node, answer))

    return reader.invoke(node, enter, (), {}), Entered(left, leave is not None and _gives_something(leave))


def _gives_something(method: Method) -> bool:
    """Whether `__exit__` may say that it takes the error."""
    function = method.function
    if not isinstance(function, FunctionValue):
        return True
    returned = [part.value for part in ast.walk(function.node) if isinstance(part, ast.Return)]
    return any(value is not None and not (isinstance(value, ast.Constant) and not value.value) for value in returned)


def _of_name(reader: Any, node: ast.expr, value: ContextValue) -> tuple[Value, Entered]:
    """`torch.no_grad()`, `nullcontext(x)`, `suppress(ValueError)`, and what means nothing here."""
    trace, short = reader.trace, vocabulary.spelled(value.path)
    mode, before = grad_mode(value.path, value.args), trace.grad_enabled
    if mode is not None:
        trace.grad_enabled = mode
        return Inert("a context"), Entered(lambda error: _restored(trace, before))
    name = short.rpartition(".")[2]
    if name == "suppress":
        return None, Entered(lambda error: error is not None and any(is_of(kind, error) for kind in value.args), takes=True)
    if name == "ExitStack":
        stack = Stack(reader, node)
        return stack, Entered(stack.leave, takes=True)
    if name == "closing" and value.args:
        return value.args[0], Entered(lambda error: bool(reader.method(node, value.args[0], "close", (), {}) and False))
    if name == "nullcontext":
        return (value.args[0] if value.args else None), Entered(lambda error: False)
    reader.leave_out(node, f"with {value.path}", None)
    if name == "fork_rng":  # it goes on where it was before
        line = reader.source.place(node)[0]
        return Inert("a context"), Entered(lambda error: bool(trace.randomness.seeded(line)))
    return Inert("a context"), Entered(lambda error: False)


def _restored(trace: Any, enabled: bool) -> bool:
    trace.grad_enabled = enabled
    return False


def _of_generator(members: Iterator) -> tuple[Value, Entered]:
    """The lines of a function before its `yield`, and those behind it."""
    end = object()
    value = next(members, end)
    if value is end:
        raise Refusal("A context manager yields once, and this one did not.", "Write `yield` where the block runs.")

    def left(error: RaisedError | None) -> bool:
        rest: Value = end
        try:
            rest = next(members, end) if error is None else members.throw(error)
        except StopIteration:
            return True
        except RaisedError as other:
            if other is error:
                return False
            raise
        if rest is not end:
            raise Refusal("A context manager yields once.", "Write the lines after the block.")
        return False

    return value, Entered(left, takes=True)


def value_of(error: RaisedError) -> Value:
    """What `except … as name` and `__exit__` are given."""
    return ErrorValue("an error", error.raises, error.arguments, error) if error.instance is None else error.instance


def is_of(kind: Value, error: RaisedError) -> bool:
    """Whether `except kind` takes an error: it is of that class, or of one of those in a tuple, or below one of these."""
    stack, seen = [kind], set[int]()
    while stack:
        each = stack.pop()
        if id(each) in seen:  # a tuple may hold another one many times over
            continue
        seen.add(id(each))
        if isinstance(each, tuple):
            stack += each
        elif _is_of_class(each, error):
            return True
    return False


def _is_of_class(kind: Value, error: RaisedError) -> bool:
    if isinstance(kind, ClassValue):
        return error.instance is not None and kind in error.instance.kind.order
    if not isinstance(kind, Named):
        return False
    name = kind.path.rpartition(".")[2]
    if kind.path.startswith(("np.", "numpy.")):
        return False
    return vocabulary.is_below(error.raises, name)


def grad_mode(path: str, args: tuple[Value, ...]) -> bool | None:
    """What `torch.no_grad` and its like say of derivatives; None where the name says nothing of them."""
    short = path.rpartition(".")[2]
    if short in ("set_grad_enabled", "inference_mode") and args:
        return bool(args[0]) == (short == "set_grad_enabled")
    return _NO_GRAD.get(short)
