"""Better formulas that no pattern says: along axes, by numbers that are computed here, of sums with many terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.precision.formula import Rewrite
from app.engine.precision.shapes import (
    axes_of,
    call,
    difference,
    elements,
    factors,
    is_call,
    number,
    rank,
    ratio,
    same,
    signed_terms,
    square,
    summands,
    under_root,
)

# f(g(x)) = x
INVERSES: Final[Mapping[str, str]] = {
    "logit": "sigmoid", "atanh": "tanh", "asinh": "sinh", "log1p": "expm1", "expm1": "log1p", "erfinv": "erf", "exp": "log",
}  # fmt: skip
# 4ac, in any order of the factors.
FOUR_A_C: Final = ("4 * a * c", "4 * c * a", "a * c * 4")


def of_softmax(node: fx.Node) -> Iterator[Rewrite]:
    """The logarithm of a softmax, to other bases too, and log(exp(z) / Σexp(z))."""
    for name, base in (("log", math.e), ("log2", 2), ("log10", 10)):
        soft, by = call(node, name), math.log(base)
        if is_call(soft, "softmax") and (dims := axes_of(soft)[0]) is not None:
            text = f"log_softmax({{0}}, dim={dims!r})" + ("" if name == "log" else f" / {by}")
            yield Rewrite(node, (soft.args[0],), lambda z, by=by: torch.log_softmax(z, dims) / by, text)
    fraction = ratio(call(node, "log"))
    softmax = None if fraction is None else _softmax(*fraction)
    if softmax is not None:
        z, axis = softmax
        yield Rewrite(node, (z,), lambda x: torch.log_softmax(x, axis), f"log_softmax({{0}}, dim={axis!r})")


def of_softmax_ratios(node: fx.Node) -> Iterator[Rewrite]:
    """exp(z) / Σexp(z)."""
    fraction = ratio(node)
    softmax = None if fraction is None else _softmax(*fraction)
    if softmax is not None:
        z, axis = softmax
        yield Rewrite(node, (z,), lambda x: torch.softmax(x, axis), f"softmax({{0}}, dim={axis!r})")


def _softmax(top: Any, bottom: Any) -> tuple[Any, int] | None:
    """z and the axis of a softmax written out."""
    z, w = call(top, "exp"), call(bottom.args[0], "exp") if is_call(bottom, "sum") else None
    if z is None or w is None or not same(z, w):
        return None
    dims, keepdim = axes_of(bottom)
    if isinstance(dims, int) and (keepdim or rank(z) == 1):
        return z, dims
    return (z, 0) if dims is None and rank(z) == 1 else None


def of_log_sums(node: fx.Node) -> Iterator[Rewrite]:
    """log(Σexp(x)) along axes."""
    inner = call(node, "log")
    if is_call(inner, "sum") and (z := call(inner.args[0], "exp")) is not None:
        dims, keepdim = axes_of(inner)
        axes = tuple(range(rank(z))) if dims is None else dims
        text = f"logsumexp({{0}}, dim={axes!r}" + (", keepdim=True)" if keepdim else ")")
        yield Rewrite(node, (z,), lambda x: torch.logsumexp(x, axes, keepdim), text)


def of_log_means(node: fx.Node) -> Iterator[Rewrite]:
    """log of the mean of exponentials."""
    inner: Any = call(node, "log")
    z = call(inner.args[0], "exp") if is_call(inner, "mean") and axes_of(inner)[0] is None else None
    count, axes = elements(z), tuple(range(rank(z)))
    if count:
        less = math.log(count)
        yield Rewrite(node, (z,), lambda x: torch.logsumexp(x, axes) - less, f"logsumexp({{0}}, dim={axes!r}) - {less}")


def of_log_products(node: fx.Node) -> Iterator[Rewrite]:
    """log(Πx) along an axis."""
    inner = call(node, "log")
    if is_call(inner, "prod"):
        dims, keepdim = axes_of(inner)
        if dims is None:
            yield Rewrite(node, (inner.args[0],), lambda x: torch.log(x).sum(), "log({0}).sum()")
        else:
            text = f"log({{0}}).sum(dim={dims!r}" + (", keepdim=True)" if keepdim else ")")
            yield Rewrite(node, (inner.args[0],), lambda x: torch.log(x).sum(dims, keepdim=keepdim), text)


def of_long_sums(node: fx.Node) -> Iterator[Rewrite]:
    """log(Σexp) and √Σx² of three terms and more."""
    powers = [call(term, "exp") for term in summands(call(node, "log"))]
    sides = [square(term) for term in summands(under_root(node))]
    for parts, function in ((powers, torch.logaddexp), (sides, torch.hypot)):
        if len(parts) > 2 and None not in parts:
            text = "{0}"
            for position in range(1, len(parts)):
                text = f"{function.__name__}({text}, {{{position}}})"
            yield Rewrite(node, tuple(parts), _folded(function), text)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """f(f(a, b), c) of a, b, c."""
    return lambda *members: reduce(function, members)


def _sides(node: fx.Node) -> tuple[Any, Any]:
    """a and b of a − b; None and None of anything else."""
    return difference(node) or (None, None)


def of_mean_squares(node: fx.Node) -> Iterator[Rewrite]:
    """E[x²] − E[x]² along axes, as the mean of squared deviations."""
    a, b = _sides(node)
    mean = square(b)
    if not is_call(a, "mean") or not is_call(mean, "mean"):
        return
    inner, (dims, keepdim) = square(a.args[0]), axes_of(a)
    if inner is None or not same(inner, mean.args[0]) or axes_of(mean)[0] != dims:
        return
    if dims is None:
        yield _variance(node, inner)
    else:
        tail = ", keepdim=True" if keepdim else ""
        yield Rewrite(
            node,
            (inner,),
            lambda v: ((v - v.mean(dims, keepdim=True)) ** 2).mean(dims, keepdim=keepdim),
            f"(({{0}} - {{0}}.mean({dims!r}, keepdim=True)) ** 2).mean({dims!r}{tail})",
        )


def of_variances(node: fx.Node) -> Iterator[Rewrite]:
    """Σx²/n − (Σx/n)², n being the number of elements."""
    a, b = _sides(node)
    squares, average = ratio(a), ratio(square(b))
    if squares is None or average is None or not is_call(squares[0], "sum") or not is_call(average[0], "sum"):
        return
    x = square(squares[0].args[0])
    is_whole = axes_of(squares[0])[0] is None and axes_of(average[0])[0] is None
    if x is not None and same(x, average[0].args[0]) and is_whole and {number(squares[1]), number(average[1])} == {elements(x)}:
        yield _variance(node, x)


def _variance(node: fx.Node, x: Any) -> Rewrite:
    return Rewrite(node, (x,), lambda v: ((v - v.mean()) ** 2).mean(), "(({0} - {0}.mean()) ** 2).mean()")


def of_powers_of_numbers(node: fx.Node) -> Iterator[Rewrite]:
    """2ˣ − 1 and 1 − 2ˣ by expm1."""
    a, b = _sides(node)
    for power, one, sign in ((a, b, 1), (b, a, -1)):
        base = number(power.args[0]) if is_call(power, "pow") and len(power.args) == 2 and number(one) == 1 else None
        if base is not None and base > 0:
            log, minus = math.log(base), "-" if sign < 0 else ""
            text = f"{minus}expm1({{0}} * {log})"
            yield Rewrite(node, (power.args[1],), lambda y, s=sign, by=log: s * torch.expm1(y * by), text)


def of_half_angles(node: fx.Node) -> Iterator[Rewrite]:
    """c − c·cos(x)."""
    a, b = _sides(node)
    c = number(a)
    for share, inner in factors(b):
        if c is not None and number(share) == c and (z := call(inner, "cos")) is not None:
            yield Rewrite(node, (z,), lambda v: 2 * c * torch.sin(v / 2) ** 2, f"{2 * c:g} * sin({{0}} / 2) ** 2")


def of_squares_multiplied_out(node: fx.Node) -> Iterator[Rewrite]:
    """a² − 2ab + b², x³ − 3x² + 3x − 1, and Σa² + Σb² − 2Σab."""
    parts = list(signed_terms(node))
    if len(parts) == 3:
        plus, minus = [p for s, p in parts if s > 0], [p for s, p in parts if s < 0]
        if len(plus) == 2 and len(minus) == 1:
            for p, q in (plus, plus[::-1]):
                yield from _squared_difference(node, p, q, minus[0])
    if len(parts) == 4:
        cubes = [p.args[0] for s, p in parts if s > 0 and is_call(p, "pow") and len(p.args) == 2 and number(p.args[1]) == 3]
        for x in cubes:
            if (
                any(s < 0 and number(p) == 1 for s, p in parts)
                and sum(_is_product(p, 3, x) or _is_product_of_square(p, 3, x) for _, p in parts) == 2
            ):
                yield Rewrite(node, (x,), lambda v: (v - 1) ** 3, "({0} - 1) ** 3")


def _squared_difference(node: fx.Node, p: Any, q: Any, product: Any) -> Iterator[Rewrite]:
    a, b = square(p), square(q)
    if a is not None and (b is not None or number(q) == 1):
        other = 1 if b is None else b
        if _is_product(product, 2, a) if b is None else _is_twice(product, a, b):
            yield Rewrite(node, (a, other), lambda x, y: (x - y) ** 2, "({0} - {1}) ** 2")
    if is_call(p, "sum") and is_call(q, "sum") and axes_of(p)[0] is None and axes_of(q)[0] is None:
        a, b = square(p.args[0]), square(q.args[0])
        for two, total in factors(product):
            if number(two) == 2 and a is not None and b is not None and _is_inner_product(total, a, b):
                yield Rewrite(node, (a, b), lambda x, y: ((x - y) ** 2).sum(), "(({0} - {1}) ** 2).sum()")


def _is_inner_product(node: Any, a: Any, b: Any) -> bool:
    if is_call(node, "sum") and axes_of(node)[0] is None:
        return any(same(x, a) and same(y, b) for x, y in factors(node.args[0]))
    if is_call(node, "dot", "matmul", "inner") and len(node.args) == 2:
        x, y = node.args
        return (same(x, a) and same(y, b)) or (same(x, b) and same(y, a))
    return False


def _is_product(node: Any, factor: float, x: Any) -> bool:
    return any(number(p) == factor and same(q, x) for p, q in factors(node))


def _is_product_of_square(node: Any, factor: float, x: Any) -> bool:
    return any(number(p) == factor and same(square(q), x) for p, q in factors(node))


def _is_twice(node: Any, a: Any, b: Any) -> bool:
    """2ab, its factors in any order."""
    for p, q in factors(node):
        for x, y in factors(p):
            members = [x, y, q]
            rest = [m for m in members if number(m) != 2]
            if len(rest) == 2 and ((same(rest[0], a) and same(rest[1], b)) or (same(rest[0], b) and same(rest[1], a))):
                return True
        if number(p) == 2 and any(same(x, a) and same(y, b) for x, y in factors(q)):
            return True
    return False


def of_cosine_distances(node: fx.Node) -> Iterator[Rewrite]:
    """1 − ⟨a, b⟩ / (|a|·|b|) = |a/|a| − b/|b||² / 2."""
    pair = difference(node)
    fraction = None if pair is None or number(pair[0]) != 1 else ratio(pair[1])
    if fraction is None:
        return
    for p, q in factors(fraction[1]):
        a, b = _of_length(p), _of_length(q)
        if a is not None and b is not None and _is_inner_product(fraction[0], a, b):
            yield Rewrite(
                node,
                (a, p, b, q),
                lambda x, m, y, n: ((x / m - y / n) ** 2).sum() / 2,
                "(({0} / {1} - {2} / {3}) ** 2).sum() / 2",
            )
            return


def of_angles(node: fx.Node) -> Iterator[Rewrite]:
    """acos(⟨a, b⟩ / (|a|·|b|)), clamped to [-1, 1] or not: twice the angle whose tangent is |a/|a| − b/|b|| / |a/|a| + b/|b||."""
    cosine = call(node, "acos")
    if is_call(cosine, "clamp", "clip") and [number(bound) for bound in cosine.args[1:]] == [-1, 1]:
        cosine = cosine.args[0]
    pairs: list[tuple[Any, Any]] = []
    if is_call(cosine, "cosine_similarity") and len(cosine.args) > 1 and rank(cosine.args[0]) == rank(cosine.args[1]) == 1:
        pairs = [(cosine.args[0], cosine.args[1])]
    elif (fraction := ratio(cosine)) is not None:
        lengths = [(_of_length(p), _of_length(q)) for p, q in factors(fraction[1])]
        pairs = [(a, b) for a, b in lengths if a is not None and b is not None and _is_inner_product(fraction[0], a, b)]
    for a, b in pairs[:1]:
        unit = "({0} / {0}.norm() - {1} / {1}.norm()).norm()"
        yield Rewrite(node, (a, b), _angle, f"2 * atan2({unit}, {unit.replace(' - ', ' + ')})")


def _angle(a: Tensor, b: Tensor) -> Tensor:
    a, b = a / a.norm(), b / b.norm()
    return 2 * torch.atan2((a - b).norm(), (a + b).norm())


def _of_length(node: Any) -> Any:
    """x of √Σx², norm(x)."""
    total = call(node, "sqrt")
    if is_call(total, "sum") and axes_of(total)[0] is None:
        return square(total.args[0])
    return node.args[0] if is_call(node, "norm", "vector_norm") and len(node.args) == 1 and not node.kwargs else None
