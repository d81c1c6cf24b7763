"""Reads the expressions of a program: each becomes a plain value, or steps of the trace.

Knows Python's expression syntax. Refuses to know statements, and how a step is executed.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import fx

from app.program.function import Step
from app.program.library import attributes as tensors
from app.program.library import builtins, factories, lookup
from app.program.library.calls import Calls
from app.program.reading.source import Refusal, Source
from app.program.semantics import static
from app.program.semantics.comparison import SYMBOLS, compared
from app.program.semantics.static import named
from app.program.semantics.trace import Several, Trace, Value, is_tensor, item_of

_CONDITION: Final = "Write `where(condition, a, b)` for tensors; `&`, `|`, `~` combine conditions."
_ITERATIONS: Final = 10_000


class Reader:
    """Evaluates expressions with the names of one program.

    Attributes:
        names: inputs, parameters and assigned names → values.
        inputs: names that came with the query, for the error texts.
        calls: what calls mean.
    """

    def __init__(
        self, source: Source, trace: Trace, names: dict[str, Value], dtype: torch.dtype, device: torch.device | None
    ) -> None:
        self.source, self.trace, self.names = source, trace, names
        self.inputs = frozenset(names)
        self.statement: ast.stmt | None = None
        self.iterations = 0
        self.calls = Calls(trace, names, dtype, device)
        self.builtins = self.calls.builtins
        self._handlers: dict[type[ast.expr], Callable[[Any], Value]] = {
            ast.Constant: self._constant, ast.Name: self._name, ast.Attribute: self._attribute, ast.Call: self._call,
            ast.BinOp: self._binary, ast.UnaryOp: self._unary, ast.Compare: self._compare, ast.BoolOp: self._boolean,
            ast.IfExp: self._conditional, ast.Subscript: self._subscript, ast.Slice: self._slice, ast.List: self._list,
            ast.Tuple: self._tuple, ast.Dict: self._dict, ast.ListComp: self._comprehension, ast.GeneratorExp: self._comprehension,
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

    def charge(self, node: ast.AST) -> None:
        try:
            self.trace.budget.spend()
        except Refusal as refusal:
            raise self.source.refused(refusal, node) from None

    def truth(self, node: ast.expr) -> bool:
        """A condition, which must be known before tensors run."""
        value = self.value(node)
        if is_tensor(value) or isinstance(value, Several):
            raise self.source.refused(Refusal("A condition on a tensor is not known before it is run.", _CONDITION), node)
        return bool(value)

    def items(self, node: ast.expr) -> list[Value]:
        """What a loop over the expression goes through."""
        value = self.value(node)
        found: list[Value] = self.located(node, lambda: self.builtins.items(self.emitter(node), value))
        return found

    def located(self, node: ast.AST, run: Callable[[], Value]) -> Any:
        try:
            return run()
        except Refusal as refusal:
            raise self.source.refused(refusal, node) from refusal.__cause__

    def iterate(self) -> None:
        self.iterations += 1
        if self.iterations > _ITERATIONS:
            raise Refusal(
                f"The loops of this program run more than {_ITERATIONS:,} times in all.",
                "Use operations on whole tensors in the place of loops.",
                code="too_costly",
            )

    def emitter(self, node: ast.AST) -> Callable[..., Value]:
        """Adds steps at the place of `node`."""
        return functools.partial(self._emit, node)

    def _emit(
        self,
        node: ast.AST,
        operation: str,
        target: Callable[..., Any],
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        **more: Any,
    ) -> Value:
        line, column = self.source.place(node)
        whole = self.statement if self.statement is not None else node
        step = Step(line, column, self.source.excerpt(whole), operation)  # type: ignore[arg-type]
        return self.trace.call(step, target, args, kwargs, **more)

    # Names and constants.

    def _constant(self, node: ast.Constant) -> Value:
        return static.bounded(node.value)

    def _name(self, node: ast.Name) -> Value:
        name = node.id
        if name in self.names:
            return self.names[name]
        if name in static.CONSTANTS:
            return static.CONSTANTS[name]
        dtype = tensors.python_dtype(name)
        if dtype is not None:
            return dtype
        if name in self.builtins.table or name in factories.FACTORIES or lookup.lookup(name):
            raise Refusal(f"`{name}` is an operation, and it is not called here.", f"Call it: `{name}(x)`.")
        raise builtins.refused(name) or self._unknown(name)

    def _unknown(self, name: str) -> Refusal:
        near = lookup.nearest(name, tuple(self.names))
        inputs = ", ".join(sorted(self.inputs)) or "none"
        fix = f"Nearest names: {', '.join(near)}." if near else "Send it as an input or a parameter, or assign it before."
        return Refusal(f"The name `{name}` is not defined; the inputs and parameters are: {inputs}.", fix)

    def _dotted(self, node: ast.expr) -> str | None:
        """`torch.nn.functional.relu`, unless its first name is one of the program's own."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id in self.names:
            return None
        return ".".join([node.id, *reversed(parts)])

    def _attribute(self, node: ast.Attribute) -> Value:
        dotted = self._dotted(node)
        if dotted is not None:
            return self._dotted_constant(node, dotted)
        owner = self.value(node.value)
        if is_tensor(owner):
            return tensors.attribute(self.emitter(node), owner, node.attr)
        if isinstance(owner, Several):
            return tensors.several_attribute(self.trace.pick, owner, node.attr)
        if static.is_number(owner) and node.attr in ("real", "imag"):
            return getattr(owner, node.attr)
        raise Refusal(f"{named(owner).capitalize()} has no `.{node.attr}` here.")

    def _dotted_constant(self, node: ast.Attribute, dotted: str) -> Value:
        root, _, rest = dotted.partition(".")
        if root in ("torch", "math", "np", "numpy") and rest in static.CONSTANTS:
            return static.CONSTANTS[rest]
        if root == "torch" and rest in factories.TORCH_DTYPES:
            return factories.TORCH_DTYPES[rest]
        if lookup.lookup(dotted):
            raise Refusal(f"`{dotted}` is an operation, and it is not called here.", f"Call it: `{dotted}(x)`.")
        if isinstance(node.value, ast.Name) and root not in (
            "torch",
            "math",
            "F",
            "nn",
            "np",
            "linalg",
            "fft",
            "special",
            "functional",
        ):
            self.value(node.value)  # an unknown name is reported as one
        raise lookup.unknown(dotted, tuple(self.names))

    # Calls.

    def _call(self, node: ast.Call) -> Value:
        function = node.func
        dotted = self._dotted(function) if isinstance(function, ast.Name | ast.Attribute) else None
        if dotted is not None:
            # What cannot be called is reported before what stands in it.
            called = self.calls.resolve(dotted, self.emitter(node))
            return called(*self._arguments(node))
        if isinstance(function, ast.Attribute):
            owner = self.value(function.value)
            args, kwargs = self._arguments(node)
            return self.calls.method(self.emitter(node), owner, function.attr, args, kwargs)
        if isinstance(function, ast.Name):
            kind = "input" if function.id in self.inputs else "variable"
            raise Refusal(
                f"`{function.id}` is your {kind} ({named(self.names[function.id])}) here, so it cannot be called.",
                f"Give the {kind} another name, or write `torch.{function.id}(…)`.",
            )
        self.value(function)  # what is wrong with it in itself comes first
        raise Refusal(
            "Only operations and methods can be called.",
            "Modules are not in the language: write `relu(x)`, `linear(x, weight, bias)`.",
        )

    def _arguments(self, node: ast.Call) -> tuple[tuple[Value, ...], dict[str, Value]]:
        args = self._members(node.args)
        kwargs: dict[str, Value] = {}
        for keyword in node.keywords:
            name = keyword.arg or ""
            if name in kwargs:
                raise Refusal(f"The argument `{name}` is given twice.")
            kwargs[name] = self.value(keyword.value)
        return tuple(args), kwargs

    def _members(self, nodes: list[ast.expr]) -> list[Value]:
        values: list[Value] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values += self.items(node.value)
            else:
                values.append(self.value(node))
            static.check_length(len(values))
        return values

    # Operators.

    def operate(self, node: ast.AST, symbol: str, left: Value, right: Value) -> Value:
        """`left symbol right`."""
        if is_tensor(left) or is_tensor(right):
            for other in (left, right):
                if isinstance(other, list | tuple | dict | str | range) or other is None:
                    raise Refusal(
                        f"`{symbol}` does not work on a tensor and {named(other)}.",
                        "Make a tensor of it: `tensor([1.0, 2.0])` or `stack(list)`.",
                    )
            return self._emit(node, symbol, static.OPERATORS[symbol], (left, right), {})
        if isinstance(left, Several) or isinstance(right, Several):
            # Refused there, with the names to take.
            return self._emit(node, symbol, static.OPERATORS[symbol], (left, right), {})
        return static.binary(symbol, left, right)

    def _binary(self, node: ast.BinOp) -> Value:
        return self.operate(node, SYMBOLS[type(node.op)], self.value(node.left), self.value(node.right))

    def _unary(self, node: ast.UnaryOp) -> Value:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            if is_tensor(value) or isinstance(value, Several):
                raise Refusal("`not` does not work on a tensor.", "Write `~condition` or `logical_not(x)`.")
            return not value
        symbol = SYMBOLS[type(node.op)]
        if is_tensor(value):
            return self._emit(node, f"{symbol}x", static.UNARY[symbol], (value,), {})
        if not static.is_number(value):
            raise Refusal(f"`{symbol}` does not work on {named(value)}.")
        return static.computed(static.UNARY[symbol], value, what=f"`{symbol}`")

    def _compare(self, node: ast.Compare) -> Value:
        left = self.value(node.left)
        result: Value = True
        for operation, other in zip(node.ops, node.comparators, strict=True):
            right = self.value(other)
            result = compared(functools.partial(self.operate, node), operation, left, right)
            if len(node.ops) > 1 and is_tensor(result):
                raise Refusal("A chained comparison does not work on tensors.", "Write `(a < x) & (x < b)`.")
            if not is_tensor(result) and not result:
                return result
            left = right
        return result

    def _boolean(self, node: ast.BoolOp) -> Value:
        stops = isinstance(node.op, ast.Or)
        value: Value = None
        for part in node.values:
            value = self.value(part)
            if is_tensor(value) or isinstance(value, Several):
                word, sign = ("or", "|") if stops else ("and", "&")
                raise Refusal(f"`{word}` does not work on tensors.", f"Write `(a) {sign} (b)`; `~a` for `not a`.")
            if bool(value) == stops:
                return value
        return value

    def _conditional(self, node: ast.IfExp) -> Value:
        return self.value(node.body if self.truth(node.test) else node.orelse)

    # Indexing and displays.

    def _subscript(self, node: ast.Subscript) -> Value:
        owner = self.value(node.value)
        index = self.value(node.slice)
        if is_tensor(owner):
            return tensors.indexed(self.emitter(node), owner, index)
        if isinstance(owner, Several):
            return self._of_several(node, owner, index)
        if isinstance(owner, dict):
            if not isinstance(index, str | int) or index not in owner:
                raise Refusal("The dict has no such key.", f"Its keys are {', '.join(map(str, list(owner)[:20]))}.")
            return owner[index]
        if isinstance(owner, list | tuple | range):
            return item_of(owner, index)
        raise Refusal(f"{named(owner).capitalize()} cannot be indexed.")

    def _of_several(self, node: ast.Subscript, owner: Several, index: Value) -> Value:
        if isinstance(index, int):
            if not -len(owner.values) <= index < len(owner.values):
                raise Refusal(f"`{owner.operation}` gives {len(owner.values)} tensors, so [{index}] is none of them.")
            return self.trace.pick(owner, index)
        return item_of(self.builtins.items(self.emitter(node), owner), index)

    def _slice(self, node: ast.Slice) -> slice:
        parts = [None if part is None else self.value(part) for part in (node.lower, node.upper, node.step)]
        for part in parts:
            if not (part is None or is_tensor(part) or (isinstance(part, int) and abs(part) < 1 << 63)):
                raise Refusal(f"A slice is made of integers, not of {named(part)}.", "Write `n // 2` in the place of `n / 2`.")
        return slice(*parts)

    def _list(self, node: ast.List) -> list[Value]:
        return self._members(node.elts)

    def _tuple(self, node: ast.Tuple) -> tuple[Value, ...]:
        return tuple(self._members(node.elts))

    def _dict(self, node: ast.Dict) -> dict[Any, Value]:
        result: dict[Any, Value] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            name = self.value(key) if key is not None else None
            if not isinstance(name, str | int):
                raise Refusal("The keys of a dict are strings.", 'Write `{"loss": loss}`.')
            if name in result:
                raise Refusal(f'The key "{name}" stands twice.')
            result[name] = self.value(value)
        return result

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> list[Value]:
        outside = self.names
        self.names = dict(outside)
        collected: list[Value] = []
        try:
            self._collect(node, 0, collected)
        finally:
            self.names = outside
        return collected

    def _collect(self, node: ast.ListComp | ast.GeneratorExp, level: int, collected: list[Value]) -> None:
        if level == len(node.generators):
            collected.append(self.value(node.elt))
            static.check_length(len(collected))
            return
        clause = node.generators[level]
        for item in self.items(clause.iter):
            self.iterate()
            self.assign(clause.target, item)
            if all(self.truth(condition) for condition in clause.ifs):
                self._collect(node, level + 1, collected)

    # Assignment, for statements, loops and comprehensions.

    def assign(self, target: ast.expr, value: Value) -> None:
        """Binds `target` (a name, or nested tuples of names) to `value`."""
        if isinstance(target, ast.Name):
            self.names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target, value)
        elif isinstance(target, ast.Subscript):
            self._assign_item(target, value)
        else:
            raise self.source.refused(Refusal("Only names can be assigned to.", "Assign to a name."), target)

    def _unpack(self, target: ast.Tuple | ast.List, value: Value) -> None:
        parts = self.located(target, lambda: self.builtins.items(self.emitter(target), value))
        if len(parts) != len(target.elts):
            refusal = Refusal(f"{len(target.elts)} names stand on the left, and there are {len(parts)} values on the right.")
            raise self.source.refused(refusal, target)
        for name, part in zip(target.elts, parts, strict=True):
            self.assign(name, part)

    def _assign_item(self, target: ast.Subscript, value: Value) -> None:
        owner = self.value(target.value)
        if isinstance(owner, list | dict):
            index = self.value(target.slice)
            if isinstance(owner, dict) and isinstance(index, str):
                owner[index] = value
                return
            if isinstance(owner, list) and isinstance(index, int) and -len(owner) <= index < len(owner):
                owner[index] = value
                return
            raise self.source.refused(Refusal("There is no such place to assign to."), target)
        if isinstance(owner, fx.Node):
            fix = "Write `index_put(x, (i,), value)` (i an integer tensor), `where(mask, value, x)`, or `cat([x[:i], value[None], x[i+1:]])`."
            raise self.source.refused(
                Refusal("`x[…] = …` changes a tensor in place, and values here never change.", fix), target
            )
        raise self.source.refused(Refusal(f"{named(owner).capitalize()} cannot be assigned into."), target)
