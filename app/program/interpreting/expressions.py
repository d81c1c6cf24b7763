"""Reads the expressions of a program: each becomes a plain value, or steps of the trace."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from typing import Any, Final

from app.catalogue.better.mixed_powers import POWERS, rightly
from app.program.classes import special_methods
from app.program.errors import sentence
from app.program.function import Step
from app.program.interpreting.displays import Displays, yield_inside
from app.program.interpreting.prints import print_gradients
from app.program.library import attributes as tensors
from app.program.library import builtins, containers, factories, left_out_names, lookup, vocabulary
from app.program.packages import files, formatting, imports, numpy_arrays
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.comparison import SYMBOLS, compared
from app.program.semantics.graph_values import MultiOutput, Value, examples_of, is_tensor
from app.program.semantics.randomness import SEEDING, seed_own
from app.program.semantics.static import named
from app.program.semantics.values import CHECKED, VIEWS, Foreign, FunctionValue, Named, plain_member, special

_MISFITS: Final = (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError)

# What a call gives that only shows or measures.
SHOWN: Final = Foreign("a call that shows something", silent=True)


class Reader(Displays):
    """Evaluates expressions with the names of one program.

    Attributes:
        scope: the names that are seen where the program is being read.
        inputs: names that came with the query, for the error texts.
        calls: what calls mean.
        ignored: what was left out, by line.
    """

    @functools.cached_property
    def _handlers(self) -> dict[type[ast.expr], Callable[[Any], Value]]:
        return {
            ast.Constant: self._constant, ast.Name: self._name, ast.Attribute: self._attribute, ast.Call: self._call,
            ast.BinOp: self._binary, ast.UnaryOp: self._unary, ast.Compare: self._compare, ast.BoolOp: self._boolean,
            ast.IfExp: self._conditional, ast.Subscript: self._subscript, ast.Slice: self._slice, ast.List: self._list,
            ast.Tuple: self._tuple, ast.Dict: self._dict, ast.ListComp: self._comprehension, ast.GeneratorExp: self._generator,
            ast.Yield: self._yield, ast.YieldFrom: self._yield, ast.Set: self._set, ast.SetComp: self._set_comprehension,
            ast.DictComp: self._dict_comprehension, ast.Lambda: self._lambda, ast.NamedExpr: self._walrus, ast.JoinedStr: self._joined,
        }  # fmt: skip

    def value(self, node: ast.expr) -> Value:
        """The value of an expression; a refusal gets its line and column here."""
        self.charge(node)
        try:
            handler = self._handlers.get(type(node))
            if handler is None:
                raise Refusal(f"`{type(node).__name__}` cannot stand here.")
            return handler(node)
        except Refusal as refusal:
            raise self.source.refused(refusal, node) from refusal.__cause__
        except _MISFITS as error:  # arguments that a function of ours cannot take apart
            misfit = Refusal(
                f"The arguments of this call do not fit: {sentence(error)}.", "Compare them with PyTorch's page of it."
            )
            raise self.source.refused(misfit, node) from error

    def truth(self, node: ast.expr) -> bool:
        """A condition; one on a tensor is followed as it is at this point."""
        return self.holds(node, self.value(node))

    def holds(self, node: ast.AST, value: Value) -> bool:
        if is_tensor(value):
            truth: bool = self.located(node, lambda: bool(self.reads.truth(self.emitter(node), value)))
            return truth
        if isinstance(value, MultiOutput):
            raise self.source.refused(
                Refusal("A condition is one truth value, not several tensors.", f"Take {builtins.parts_of(value)} first."), node
            )
        if value is CHECKED:
            raise self.source.refused(
                Refusal(
                    "What `gradcheck` says is not known while the program is read.", 'Ask for "want": ["check"] beside it.'
                ),
                node,
            )
        if special_methods.is_object(value) and (special(value, "__bool__") or special(value, "__len__")):
            return self.holds(node, special_methods.truth(self._invoker(node), value))
        if containers.is_sequence(value):
            return bool(containers.held(value))
        return bool(value)

    # Names and constants.

    def _constant(self, node: ast.Constant) -> Value:
        return static.bounded(node.value)

    def _name(self, node: ast.Name) -> Value:
        name = node.id
        if name in self.scope:
            value = self.read(self.scope[name])
            constant = vocabulary.constant(value.path) if isinstance(value, Named) else None
            return value if constant is None else constant
        if self.scope.is_unbound(name):
            raise self._unknown(name)
        starred = self._starred(name)
        if starred is not None:
            return Named(starred)
        if name in static.CONSTANTS and name not in self.scope.program().unbound:  # `except … as e` ends with no `e`
            return static.CONSTANTS[name]
        if name == "__name__":
            return "__main__"
        if name == "print":
            return imports.SHOWING
        dtype = tensors.python_dtype(name)
        if dtype is not None:
            return dtype
        if name in self.builtins.table or name in factories.FACTORIES or lookup.lookup(name) or vocabulary.is_known(name):
            return Named(name)
        raise left_out_names.refused(name) or self._unknown(name)

    def _unknown(self, name: str) -> Refusal:
        takes = any("NameError" in line for line in self.source.lines)  # else it is an input that was not sent
        return lookup.undefined(name, self.scope, self.inputs, taken=takes and not self.stars)

    def _starred(self, name: str) -> str | None:
        """The whole name of what `from torch.distributions import *` brought."""
        for module in self.stars:
            whole = f"{module}.{name}"
            if (vocabulary.is_known(whole) and not name.islower()) or lookup.lookup(f"{module}.{name}"):
                return f"{module}.{name}"
        return None

    def dotted(self, node: ast.expr) -> str | None:
        """`torch.nn.functional.relu`, unless its first name is a value of the program."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        root = node.id
        if root == "string" and len(parts) > 1:  # `string.digits.index("7")`: a method of a text
            return None
        if root in self.scope:
            value = self.scope[root]
            if not isinstance(value, Named):
                return None
            root = value.path
        elif self.scope.is_unbound(root):
            return None
        elif self.stars:
            root = self._starred(root) or root
        return ".".join([root, *reversed(parts)])

    def _attribute(self, node: ast.Attribute) -> Value:
        dotted = self.dotted(node)
        if dotted is not None:
            return self._dotted_constant(node, dotted)
        return self.attribute_of(node, self.read(self.value(node.value)), node.attr)

    def _dotted_constant(self, node: ast.Attribute, dotted: str) -> Value:
        constant = vocabulary.constant(dotted)
        if constant is not None or vocabulary.spelled(dotted) in ("np.newaxis", "newaxis"):
            return constant
        if vocabulary.is_known(dotted) or lookup.lookup(dotted) or dotted.removeprefix("torch.") in factories.FACTORIES:
            return Named(dotted)
        root = dotted.partition(".")[0]
        if isinstance(node.value, ast.Name) and root not in vocabulary.ROOTS:
            self.value(node.value)  # an unknown name is reported as one
        raise lookup.unknown(dotted, tuple(self.scope))

    # Calls.

    def _call(self, node: ast.Call) -> Value:
        generator = next((k.value for k in node.keywords if k.arg == "generator"), None)
        if generator is None or (isinstance(generator, ast.Constant) and generator.value is None):
            return self._called_by_name(node)
        randomness = self.trace.randomness
        outer, randomness.stream = randomness.stream, self.source.excerpt(generator)
        try:
            return self._called_by_name(node)
        finally:
            randomness.stream = outer

    def _seeded(self, node: ast.Call, name: str) -> bool:
        def number() -> Value:
            args, kwargs = self.arguments(node)
            return next(iter((*args, *kwargs.values())), None)

        is_of_gpus = "cuda" in name or name.endswith("_all")
        return seed_own(self.trace, self.emitter(node), self.source.place(node)[0], number, is_of_gpus=is_of_gpus)

    def _called_by_name(self, node: ast.Call) -> Value:
        function = node.func
        dotted = self.dotted(function) if isinstance(function, ast.Name | ast.Attribute) else None
        if dotted is not None:
            quiet = vocabulary.ignored_call(dotted)
            if quiet is not None:
                if dotted == "print":
                    print_gradients(self, node)
                elif vocabulary.spelled(dotted) in vocabulary.GRAD_MODE and node.args:
                    self.trace.grad_enabled = self.truth(node.args[0])
                elif vocabulary.spelled(dotted) in SEEDING:
                    if self._seeded(node, dotted):
                        return quiet.value
                elif dotted in files.NAMES:
                    return self.leave_out(node, dotted, files.called(self, node, dotted))
                return self.leave_out(node, dotted, quiet.value)
            if dotted == "super" or (dotted.endswith(".Module.__init__") and node.args):  # `nn.Module.__init__(self)`
                return self.super_of() if dotted == "super" else None
            if dotted in ("getattr", "hasattr"):
                return self.read(self.asked(dotted, node, self.arguments(node)[0]))
            # What cannot be called is reported before what stands in it.
            called = self.calls.resolve(dotted, self.emitter(node))
            args, kwargs = self.arguments(node)
            if vocabulary.container_name(dotted) or dotted == "setattr":
                return called(args, kwargs)
            args, kwargs = self.tensors_of(args, kwargs)
            return called(tuple(map(_listed, args)), {name: _listed(value) for name, value in kwargs.items()})
        if self.is_silent(function):
            return self.leave_out(node, self.source.excerpt(function), SHOWN)
        if isinstance(function, ast.Attribute):
            owner = self.value(function.value)
            args, kwargs = self.arguments(node)
            if function.attr not in ("register_parameter", "append", "extend", "insert"):
                args, kwargs = self.tensors_of(args, kwargs)
            return self.method(node, self.read(owner), function.attr, args, kwargs)
        value = self.value(function)
        if isinstance(function, ast.Name) and (is_tensor(value) or static.is_number(value)):
            kind = "input" if function.id in self.inputs else "variable"
            raise Refusal(
                f"`{function.id}` is your {kind} ({named(value)}) here, so it cannot be called.",
                f"Give the {kind} another name, or write `torch.{function.id}(…)`.",
            )
        return self.invoke(node, value, *self.tensors_of(*self.arguments(node)))

    def tensors_of(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> tuple[tuple[Value, ...], dict[str, Value]]:
        """Arguments, weights that have no name of their own as tensors."""
        return tuple(map(self.read, args)), {name: self.read(value) for name, value in kwargs.items()}

    def arguments(self, node: ast.Call) -> tuple[tuple[Value, ...], dict[str, Value]]:
        args = self._members(node.args)
        kwargs: dict[str, Value] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            if keyword.arg is None and not isinstance(value, dict):
                raise Refusal(f"`**` takes a dict, not {named(value)}.")
            self.trace.budget.spend(len(value) // 4 if keyword.arg is None else 0)
            for name, member in value.items() if keyword.arg is None else ((keyword.arg, value),):
                if not isinstance(name, str) or name in kwargs:
                    raise Refusal(f"The argument `{name}` is given twice." if name in kwargs else "Arguments have names.")
                kwargs[name] = member
        return tuple(args), kwargs

    def _lambda(self, node: ast.Lambda) -> FunctionValue:
        return self.function(node, "lambda")

    # Operators.

    def operate(self, node: ast.AST, symbol: str, left: Value, right: Value) -> Value:
        """`left symbol right`."""
        left, right = plain_member(self.read(left)), plain_member(self.read(right))
        if special_methods.is_object(left) or special_methods.is_object(right):
            return special_methods.binary(self._invoker(node), symbol, left, right)
        if is_tensor(left) or is_tensor(right):
            for other in (left, right):
                if isinstance(other, list | tuple | dict | str | range) or other is None:
                    raise Refusal(
                        f"`{symbol}` does not work on a tensor and {named(other)}.",
                        "Make a tensor of it: `tensor([1.0, 2.0])` or `stack(list)`.",
                    )
            if symbol == "@":
                left, right = tensors.matched(self.emitter(node), left, right)
            return numpy_arrays.of_operands(self._emit(node, symbol, static.OPERATORS[symbol], (left, right), {}), left, right)
        if isinstance(left, MultiOutput) or isinstance(right, MultiOutput):
            # Refused there, with the names to take.
            return self._emit(node, symbol, static.OPERATORS[symbol], (left, right), {})
        return self.builtins.combined(symbol, left, right)

    def _invoker(self, node: ast.AST) -> Callable[[Value, tuple[Value, ...]], Value]:
        return lambda function, args: self.invoke(node, function, args, {})

    def _binary(self, node: ast.BinOp) -> Value:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Mod) and isinstance(left, str):
            return self.builtins.of_text(formatting.percent(left, right))
        if isinstance(node.op, ast.BitXor) and any(tensors.is_floating_value(value) for value in (left, right)):
            raise Refusal("`^` is not a power in Python: it combines bits.", "Write `**`: `x**2`.")
        return self.operate(node, SYMBOLS[type(node.op)], left, right)

    def _unary(self, node: ast.UnaryOp) -> Value:
        value = self.read(self.value(node.operand))
        if isinstance(node.op, ast.Not):
            return not self.holds(node, value)
        symbol = SYMBOLS[type(node.op)]
        if special_methods.is_object(value):
            return special_methods.unary(self._invoker(node), symbol, value)
        if is_tensor(value):
            return numpy_arrays.of_operands(self._emit(node, f"{symbol}x", static.UNARY[symbol], (value,), {}), value)
        if not static.is_number(value):
            raise Refusal(f"`{symbol}` does not work on {named(value)}.")
        return static.computed(static.UNARY[symbol], value, what=f"`{symbol}`")

    def _compare(self, node: ast.Compare) -> Value:
        left = self.value(node.left)
        result: Value = True
        last = len(node.ops) - 1
        for index, (operation, other) in enumerate(zip(node.ops, node.comparators, strict=True)):
            right = self.value(other)
            result = self._compared(node, operation, left, right)
            if index < last and not self._goes_on(node, result):
                return result
            left = right
        return result

    def _compared(self, node: ast.Compare, operation: ast.cmpop, left: Value, right: Value) -> Value:
        if isinstance(operation, ast.In | ast.NotIn) and is_tensor(right):  # PyTorch: whether any element is equal
            same = self.operate(node, "==", left, right)
            return self.holds(node, self.calls.operation(self.emitter(node), "any", (same,), {})) == isinstance(
                operation, ast.In
            )
        result = special_methods.compared(
            self._invoker(node),
            operation,
            left,
            right,
            lambda: self.builtins.stream(self.emitter(node), right),
            functools.partial(self.holds, node),
        )
        if result is not None:
            return result
        return compared(
            functools.partial(self.operate, node), operation, plain_member(left), plain_member(right), self.trace.budget.spend
        )

    def _goes_on(self, node: ast.Compare, result: Value) -> bool:
        """Whether a chain of comparisons goes on after `result`."""
        if is_tensor(result) and not tensors.is_single(result):
            raise Refusal("A chained comparison does not work on tensors.", "Write `(a < x) & (x < b)`.")
        return self.holds(node, result)

    def _boolean(self, node: ast.BoolOp) -> Value:
        stops = isinstance(node.op, ast.Or)
        value: Value = None
        for index, part in enumerate(node.values):
            value = self.value(part)
            if is_tensor(value) and not tensors.is_single(value):
                word, sign = ("or", "|") if stops else ("and", "&")
                raise Refusal(f"`{word}` does not work on tensors.", f"Write `(a) {sign} (b)`; `~a` for `not a`.")
            if index + 1 < len(node.values) and self.holds(part, value) == stops:
                return value
        return value

    def _yield(self, node: ast.Yield | ast.YieldFrom) -> Value:
        raise yield_inside()

    def _conditional(self, node: ast.IfExp) -> Value:
        return self.value(node.body if self.truth(node.test) else node.orelse)

    def _walrus(self, node: ast.NamedExpr) -> Value:
        value = self.value(node.value)
        self.scope.body().bind(node.target.id, value)
        return value

    def emitter(self, node: ast.AST) -> Callable[..., Value]:
        """Adds steps at the place of `node`."""
        self.trace.place = self._place(node)  # for what is read out of a tensor without a step
        return functools.partial(self._emit, node)

    def _place(self, node: ast.AST) -> tuple[int, int, str]:
        whole = self.statement if self.statement is not None else node
        if (node, whole) not in self._places:  # each turn of a loop asks again
            line, column = self.source.place(node)
            self._places[node, whole] = line, column, self.source.excerpt(whole)  # type: ignore[arg-type]
        return self._places[node, whole]

    def _emit(
        self,
        node: ast.AST,
        operation: str,
        target: Callable[..., Any],
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        **more: Any,
    ) -> Value:
        self.settle()
        self.trace.place = self._place(node)
        target = rightly(target, examples_of(args), examples_of([*kwargs.values()])) if target in POWERS else target
        call = functools.partial(self.trace.call, Step(*self.trace.place, operation), target, args, kwargs, **more)
        return self.reads.attempted(operation, (args, kwargs), call) if self.trying else call()


def _listed(value: Value) -> Value:
    """What a function of PyTorch's or Python's is given: of a view of a dict what it shows now."""
    return list(value) if isinstance(value, VIEWS) else value
