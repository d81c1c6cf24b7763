"""Lists, tuples, dicts and comprehensions, and the members of what can be indexed."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from app.program.differentiation import optimizers
from app.program.interpreting.assigning import Assigning
from app.program.library import attributes as tensors
from app.program.library.containers import is_key
from app.program.packages import datasets, formatting, imports, numpy_arrays
from app.program.reading.source import Refusal
from app.program.semantics import static, values
from app.program.semantics.graph_values import MultiOutput, Value, example, is_tensor, item_of
from app.program.semantics.scopes import Scope
from app.program.semantics.sets import Distinct
from app.program.semantics.sizes import is_size
from app.program.semantics.static import named
from app.program.semantics.values import DefaultDict


def yield_inside() -> Refusal:
    """The refusal of a `yield` in the middle of an expression."""
    return Refusal("A `yield` stands on a line of its own here, or alone behind `=`.", "Write `value = yield member`.")


class Displays(Assigning):
    """Reads what holds several values."""

    truth: Callable[[ast.expr], bool]
    dotted: Callable[[ast.expr], str | None]

    def _members(self, nodes: list[ast.expr]) -> list[Value]:
        values: list[Value] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values += self.items(node.value)
            else:
                values.append(self.value(node))
            static.check_length(len(values))
        return values

    def _subscript(self, node: ast.Subscript) -> Value:
        if isinstance(node.value, ast.Attribute) and node.value.attr == "shape" and self.dotted(node.value) is None:
            return self._of_attribute(node, node.value)
        owner = self.read(self.value(node.value))
        return self.read(self.item(node, owner, self.value(node.slice)))

    def _of_attribute(self, node: ast.Subscript, attribute: ast.Attribute) -> Value:
        """`x.shape[0]`: of a tensor that extent alone, so that the others have no say in how the program is read."""
        holder, index = self.read(self.value(attribute.value)), self.value(node.slice)
        if is_tensor(holder) and isinstance(index, int) and -example(holder).ndim <= index < example(holder).ndim:
            return example(holder).size(index)
        return self.read(self.item(node, self.read(self.attribute_of(attribute, holder, attribute.attr)), index))

    def item(self, node: ast.AST, owner: Value, index: Value) -> Value:
        """`owner[index]`."""
        if isinstance(index, MultiOutput) and index.operation in ("where", "nonzero"):
            index = tuple(self.builtins.items(self.emitter(node), index))
        if is_tensor(owner):
            return numpy_arrays.of_operands(tensors.indexed(self.emitter(node), owner, index), owner)
        if isinstance(owner, MultiOutput):
            return self._of_outputs(node, owner, index)
        if isinstance(owner, dict):
            if isinstance(owner, DefaultDict) and is_key(index) and index not in owner:
                owner[index] = self._missing(node, owner)
            if isinstance(owner, Counter) and is_key(index) and index not in owner:
                return 0
            if not is_key(index) or index not in owner:
                keys = ", ".join(str(key) for key in list(owner)[:20] if isinstance(key, str | int | float | tuple))
                raise Refusal("The dict has no such key.", f"Its keys are {keys}.", raises="KeyError")
            return owner[index]
        if isinstance(owner, list | tuple | range):
            if is_tensor(index) and tensors.is_single(index):
                index = int(self.reads.number(self.emitter(node), index))
            if isinstance(index, slice):
                self.trace.budget.spend(1 + static.length(owner) // 8)
            return item_of(owner, index)
        if owner is imports.HINT:
            return owner
        if isinstance(owner, datasets.Dataset | datasets.Chosen):
            return self._of_dataset(node, owner, index)
        if isinstance(owner, str) and isinstance(index, int | slice):
            return self.builtins.of_text(static.computed(lambda: owner[index], what="An index"))
        if isinstance(owner, optimizers.OptimizerState) and index == "param_groups":
            return optimizers.groups_of(owner)
        return self.held_item(node, owner, index)

    def _of_dataset(self, node: ast.AST, owner: datasets.Dataset | datasets.Chosen, index: Value) -> Value:
        if isinstance(owner, datasets.Dataset):
            return tuple(self.item(node, tensor, index) for tensor in owner.tensors)
        number = static.integer(index, "The number of a member")
        return self.item(node, *static.computed(lambda: owner.places[number], what="An index"))

    def _missing(self, node: ast.AST, owner: DefaultDict) -> Value:
        """What a `defaultdict` begins a key with."""
        return None if owner.factory is None else self.invoke(node, owner.factory, (), {})

    def _of_outputs(self, node: ast.AST, owner: MultiOutput, index: Value) -> Value:
        if isinstance(index, int):
            if not -len(owner.values) <= index < len(owner.values):
                raise Refusal(f"`{owner.operation}` gives {len(owner.values)} tensors, so [{index}] is none of them.")
            return self.trace.pick(owner, index)
        return item_of(self.builtins.items(self.emitter(node), owner), index)

    def _slice(self, node: ast.Slice) -> slice:
        parts = [None if part is None else self.value(part) for part in (node.lower, node.upper, node.step)]
        for part in parts:
            if isinstance(part, int) and not is_size(part) and abs(part) >> 63:
                raise Refusal(
                    "A bound of a slice has at most 63 bits.", "Leave the bound out, as in `x[:n]`: an axis ends before it."
                )
            if not (part is None or is_tensor(part) or isinstance(part, int)):
                raise Refusal(f"A slice is made of integers, not of {named(part)}.", "Write `n // 2` in the place of `n / 2`.")
        return slice(*parts)

    def _list(self, node: ast.List) -> list[Value]:
        return self._members(node.elts)

    def _tuple(self, node: ast.Tuple) -> tuple[Value, ...]:
        return tuple(self._members(node.elts))

    def _dict(self, node: ast.Dict) -> dict[Any, Value]:
        result: dict[Any, Value] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                inside = self.value(value)
                if not isinstance(inside, dict):
                    raise Refusal(f"`**` takes a dict, not {named(inside)}.")
                self.trace.budget.spend(1 + len(inside) // 8)
                result |= inside
                static.check_length(len(result))
                continue
            result[self._key(key)] = self.value(value)
        return result

    def _joined(self, node: ast.JoinedStr) -> Value:
        """An f-string: a name of a module, a key, a text that is printed."""
        parts: list[Value] = []
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                spec = "" if part.format_spec is None else self.value(part.format_spec)
                value = self.value(part.value)
                parts.append(
                    formatting.formatted(value, spec if isinstance(spec, str) else "", "r" if part.conversion == 114 else "")
                )
            elif isinstance(part, ast.Constant):
                parts.append(str(part.value))
        return self.builtins.of_text(formatting.joined(parts))

    def _set(self, node: ast.Set) -> Distinct:
        return Distinct(self._members(node.elts), self.trace.budget.spend)

    def _set_comprehension(self, node: ast.SetComp) -> Distinct:
        return Distinct(self._comprehension(node), self.trace.budget.spend)

    def _generator(self, node: ast.GeneratorExp) -> values.Iterator:
        """Its first clause is read at once, all else when a member is taken, with the names as they are then."""
        return values.Iterator(self._later(node, self.stream(node.generators[0].iter), Scope(self.scope, inner=True)))

    def _later(self, node: ast.GeneratorExp, first: Iterator[Value], scope: Scope) -> Iterator[Value]:
        steps = self._generated(node.generators, 0, first)
        while True:
            with self.inside(scope):
                if next(steps, steps) is steps:
                    return
                member = self.value(node.elt)
            yield member

    def _comprehension(self, node: ast.ListComp | ast.SetComp) -> list[Value]:
        collected: list[Value] = []
        first = self.stream(node.generators[0].iter)
        with self.inside(Scope(self.scope, inner=True)):
            for _ in self._generated(node.generators, 0, first):
                collected.append(self.value(node.elt))
                static.check_length(len(collected))
        return collected

    def _key(self, node: ast.expr) -> Any:
        key = self.value(node)
        if is_key(key):
            return key
        raise Refusal(
            f"{named(key).capitalize()} is no key of a dict here.",
            'Write a text, a number or a tuple of these: `{"loss": loss}`.',
        )

    def _dict_comprehension(self, node: ast.DictComp) -> dict[Any, Value]:
        collected: dict[Any, Value] = {}
        first = self.stream(node.generators[0].iter)
        with self.inside(Scope(self.scope, inner=True)):
            for _ in self._generated(node.generators, 0, first):
                collected[self._key(node.key)] = self.value(node.value)
                static.check_length(len(collected))
        return collected

    def _generated(self, clauses: list[ast.comprehension], level: int, first: Iterator[Value] | None = None) -> Iterator[None]:
        if level == len(clauses):
            yield
            return
        clause = clauses[level]
        for item in self.stream(clause.iter) if first is None else first:
            self.iterate()
            self.assign(clause.target, item)
            if all(self.truth(condition) for condition in clause.ifs):
                yield from self._generated(clauses, level + 1)

    def iterate(self) -> None:
        self.iterations += 1
        if self.iterations > static.LENGTH_LIMIT:
            raise Refusal(
                f"The loops of this program run more than {static.LENGTH_LIMIT:,} times in all.",
                "Use operations on whole tensors in the place of loops.",
                code="too_costly",
            )

    @contextmanager
    def inside(self, scope: Scope) -> Iterator[None]:
        """Names as they are seen in `scope`."""
        outside, self.scope = self.scope, scope
        try:
            yield
        finally:
            self.scope = outside
