"""Reads the shape of an expression off the graph: sums, differences, squares, ratios, in whichever way they were written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, fx

from app.engine.stepwise.point import argument_of, name_of


def is_call(node: Any, *names: str) -> bool:
    """Whether it calls one of these with an argument by its place: one by its name (`sum(input=x)`) is not looked for."""
    return isinstance(node, fx.Node) and node.op == "call_function" and bool(node.args) and name_of(node) in names


def call(node: Any, name: str) -> Any:
    """The argument of `name(argument)`; None where `node` is something else."""
    return node.args[0] if is_call(node, name) else None


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def rank(node: Any) -> int:
    """How many axes its value has; 1 where that is not known."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dim() if isinstance(value, Tensor) else 1


def elements(node: Any) -> int | None:
    """How many elements its value has; None where that is not known."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.numel() if isinstance(value, Tensor) else None


def same(a: Any, b: Any) -> bool:
    """Whether two expressions are written alike."""
    if a is b:
        return True
    if isinstance(a, fx.Node) and isinstance(b, fx.Node):
        alike = a.op == b.op == "call_function" and name_of(a) == name_of(b) and len(a.args) == len(b.args)
        return (
            alike
            and a.kwargs.keys() == b.kwargs.keys()
            and all(same(x, y) for x, y in zip((*a.args, *a.kwargs.values()), (*b.args, *b.kwargs.values()), strict=True))
        )
    if isinstance(a, fx.Node) or isinstance(b, fx.Node) or a is None or b is None:
        return False
    return bool(type(a) is type(b) and a == b)


def terms(node: Any) -> Iterator[tuple[Any, Any]]:
    """a, b of a + b, in both orders."""
    if is_call(node, "add") and len(node.args) == 2 and not node.kwargs:
        a, b = node.args
        yield a, b
        yield b, a


def summands(node: Any) -> list[Any]:
    """a, b, c of a + b + c."""
    if is_call(node, "add") and len(node.args) == 2 and not node.kwargs:
        return [*summands(node.args[0]), *summands(node.args[1])]
    return [node]


def factors(node: Any) -> Iterator[tuple[Any, Any]]:
    """a, b of a · b, in both orders."""
    if is_call(node, "mul", "multiply") and len(node.args) == 2:
        a, b = node.args
        yield a, b
        yield b, a


def difference(node: Any) -> tuple[Any, Any] | None:
    """a, b of a − b, also where it is written as a + −b or −b + a."""
    if is_call(node, "sub", "subtract") and len(node.args) == 2 and not node.kwargs:
        return node.args[0], node.args[1]
    for a, b in terms(node):
        negated = call(b, "neg")
        if negated is not None:
            return a, negated
        value = number(b)
        if value is not None and value < 0:
            return a, -value
    return None


def signed_terms(node: Any, sign: int = 1) -> Iterator[tuple[int, Any]]:
    """(+1 or −1, term) of a sum and difference of several, the signs of numbers taken out."""
    if is_call(node, "add") and len(node.args) == 2 and not node.kwargs:
        yield from signed_terms(node.args[0], sign)
        yield from signed_terms(node.args[1], sign)
    elif is_call(node, "sub", "subtract") and len(node.args) == 2 and not node.kwargs:
        yield from signed_terms(node.args[0], sign)
        yield from signed_terms(node.args[1], -sign)
    elif is_call(node, "neg"):
        yield from signed_terms(node.args[0], -sign)
    else:
        value = number(node)
        yield (-sign, -value) if value is not None and value < 0 else (sign, node)


def under_root(node: Any) -> Any:
    """x of √x and x ** 0.5."""
    if is_call(node, "pow") and len(node.args) == 2 and number(node.args[1]) == 0.5:
        return node.args[0]
    return call(node, "sqrt")


def ratio(node: Any) -> tuple[Any, Any] | None:
    """a, b of a / b."""
    if is_call(node, "truediv", "div", "divide", "true_divide") and len(node.args) == 2 and not node.kwargs:
        return node.args[0], node.args[1]
    inner = call(node, "reciprocal")
    return None if inner is None else (1.0, inner)


def square(node: Any) -> Any:
    """x of x², x · x or square(x)."""
    if is_call(node, "pow") and len(node.args) == 2 and number(node.args[1]) == 2:
        return node.args[0]
    for a, b in factors(node):
        if same(a, b):
            return a
    return call(node, "square")


def axes_of(node: fx.Node) -> tuple[Any, bool]:
    """`dim` (None: all) and `keepdim` of a reduction."""
    dims = argument_of(node, "dim", node.args[1] if len(node.args) > 1 else node.kwargs.get("dim"))
    keepdim = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
    if isinstance(dims, list | tuple):
        dims = tuple(dims)
        dims = dims[0] if len(dims) == 1 else dims
    return dims, bool(keepdim)
