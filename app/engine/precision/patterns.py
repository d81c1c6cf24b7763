"""Better formulas as text, `log(1 + x) → log1p(x)`: matched with a step in whichever way it was written, and computed.

On the left `+` and `*` stand for both orders, `x ** 2` for `x * x` and `square(x)` too, `x ** 0.5` for `sqrt(x)`, a difference for the sum
with what is negated, a reduction for one of all elements, `(m := …)` for what is called `m` on the right. A name of one letter stands for any
value, the same one wherever it stands; `d` for one that is no plain number, `k` for a plain number. The one comparison is `<`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.precision.formula import Rewrite
from app.engine.precision.shapes import (
    axes_of,
    call,
    difference,
    factors,
    is_call,
    number,
    ratio,
    same,
    square,
    terms,
    under_root,
)

Names = Mapping[str, Any]

_OPERATORS: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
}  # fmt: skip
# What a step may be called that a sign stands for.
_ROOTS: Final[Mapping[type[ast.operator], frozenset[str]]] = {
    ast.Add: frozenset({"add"}),
    ast.Sub: frozenset({"sub", "subtract", "add"}),
    ast.Mult: frozenset({"mul", "multiply"}),
    ast.Div: frozenset({"truediv", "div", "divide", "true_divide", "reciprocal"}),
    ast.Pow: frozenset({"pow", "square", "sqrt", "mul", "multiply"}),
}
_REDUCTIONS: Final = ("sum", "mean", "prod")
_PACKAGES: Final = ("nn.", "special.")
_ARROW: Final = " → "
_KINDS: Final[Mapping[str, bool]] = {"d": False, "k": True}  # names that stand for no plain number, or for one


@dataclass(frozen=True)
class Formula:
    """One better formula, `text`."""

    text: str

    @cached_property
    def _sides(self) -> tuple[ast.expr, ast.expr]:
        left, right = [ast.parse(side, mode="eval").body for side in self.text.split(_ARROW)]
        return left, right

    @cached_property
    def roots(self) -> frozenset[str]:
        """Names of the steps that it may replace."""
        match self._sides[0]:
            case ast.BinOp(op=sign):
                return _ROOTS[type(sign)]
            case ast.Call(func=ast.Name(id=name)):
                return frozenset({name})
        raise ValueError(self.text)

    @cached_property
    def _written(self) -> tuple[str, tuple[str, ...]]:
        """The right side with holes in the place of names, and these, in the order of their numbers."""
        holes = [node for node in ast.walk(self._sides[1]) if isinstance(node, ast.Name) and len(node.id) == 1]
        order = sorted({node.id for node in holes})
        text = self.text.split(_ARROW)[1]
        for node in sorted(holes, key=lambda node: node.col_offset, reverse=True):
            text = f"{text[: node.col_offset]}{{{order.index(node.id)}}}{text[node.end_col_offset :]}"
        return text, tuple(order)

    def of(self, node: fx.Node) -> Rewrite | None:
        """What it makes of a step; None where it does not fit."""
        left, right = self._sides
        names = next(_matches(left, node, {}), None)
        if names is None:
            return None
        text, order = self._written

        def compute(*values: Any) -> Any:
            value = _computed(right, dict(zip(order, values, strict=True)))
            return value * 1 if isinstance(right, ast.Name) else value

        return Rewrite(node, tuple(names[name] for name in order), compute, text)


def _computed(expression: ast.expr, names: Names) -> Any:
    """The value of a right side."""
    match expression:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names[name]
        case ast.UnaryOp(operand=operand):
            return -_computed(operand, names)
        case ast.BinOp(left=left, op=sign, right=right):
            return _OPERATORS[type(sign)](_computed(left, names), _computed(right, names))
        case ast.Compare(left=left, comparators=[right]):
            return _computed(left, names) < _computed(right, names)
        case ast.Subscript(value=value, slice=index):
            return _computed(value, names)[_computed(index, names)]
        case ast.Call(func=function, args=own, keywords=keywords):
            args = [_computed(each, names) for each in own]
            options = {each.arg or "": _computed(each.value, names) for each in keywords}
            path = ast.unparse(function)
            if isinstance(function, ast.Attribute) and not path.startswith(_PACKAGES):
                return getattr(_computed(function.value, names), function.attr)(*args, **options)
            if not any(isinstance(each, Tensor) for each in args):
                args = [torch.tensor(each) for each in args]
            return operator.attrgetter(path)(torch)(*args, **options)
    raise ValueError(ast.unparse(expression))


def _matches(pattern: ast.expr, value: Any, names: Names) -> Iterator[Names]:
    """What names stand for where `value` is written like the pattern."""
    match pattern:
        case ast.Name(id=name):
            yield from _called(name, value, names)
        case ast.Constant(value=constant):
            if number(value) == constant:
                yield names
        case ast.NamedExpr(target=target, value=whole):
            for more in _matches(whole, value, names):
                yield {**more, target.id: value}
        case ast.UnaryOp(operand=operand):
            yield from _matches(operand, call(value, "neg"), names)
        case ast.Call(func=ast.Name(id=name), args=patterns) if is_call(value, name):
            if name in _REDUCTIONS:
                if axes_of(value)[0] is None:
                    yield from _matches(patterns[0], value.args[0], names)
            elif len(value.args) == len(patterns) and not value.kwargs:
                yield from _all_match(patterns, value.args, names)
        case ast.BinOp(left=left, op=sign, right=right):
            for parts in _parts(sign, right, value):
                yield from _all_match((left, right), parts, names)


def _called(name: str, value: Any, names: Names) -> Iterator[Names]:
    """`value` under this name, where that may stand for it."""
    plain = number(value)
    if name in names:
        if same(names[name], value) or number(names[name]) == plain is not None:
            yield names
    elif value is not None and (name not in _KINDS or (plain is not None) == _KINDS[name]):
        yield {**names, name: value}


def _all_match(patterns: Sequence[ast.expr], values: Sequence[Any], names: Names) -> Iterator[Names]:
    if not values:
        yield names
        return
    for more in _matches(patterns[0], values[0], names):
        yield from _all_match(patterns[1:], values[1:], more)


def _parts(sign: ast.operator, right: ast.expr, value: Any) -> Iterator[tuple[Any, ...]]:
    """What stands on the two sides of a sign; of a square or a root what is squared, or under it."""
    match sign, right:
        case ast.Add(), _:
            yield from terms(value)
        case ast.Mult(), _:
            yield from factors(value)
        case ast.Pow(), ast.Constant(value=2 | 0.5 as power):
            base = square(value) if power == 2 else under_root(value)
            if base is not None:
                yield (base,)
        case ast.Pow(), _:
            if is_call(value, "pow") and len(value.args) == 2:
                yield value.args
        case _:
            pair = difference(value) if isinstance(sign, ast.Sub) else ratio(value)
            if pair is not None:
                yield pair
