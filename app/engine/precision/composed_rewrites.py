"""Better formulas for compositions: logarithms of exponentials, differences of roots and of hyperbolic functions, variances, norms.

Sources: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., chapter 1; W. Kahan, "Branch cuts for complex elementary
functions" (1987), for expm1, log1p and their kin; PyTorch's own fused functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.precision.formula import Matcher, Rewrite
from app.engine.precision.shapes import (
    axes_of,
    call,
    difference,
    factors,
    is_call,
    number,
    rank,
    ratio,
    same,
    square,
    terms,
    under_root,
)

_F: Final = torch.nn.functional


def _elements(node: Any) -> int | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.numel() if isinstance(value, Tensor) else None


def _of_softmax_by_hand(node: fx.Node) -> Iterator[Rewrite]:
    """log(exp(z) / Σexp(z)), and the logarithm of a softmax to another base."""
    inner = call(node, "log")
    fraction = None if inner is None else ratio(inner)
    if fraction is not None:
        z, total = call(fraction[0], "exp"), fraction[1]
        w = call(total.args[0], "exp") if is_call(total, "sum") else None
        if z is not None and w is not None and same(z, w):
            dims, keepdim = axes_of(total)
            axis = dims if isinstance(dims, int) and keepdim else 0 if dims is None and rank(z) == 1 else None
            if axis is not None:
                yield Rewrite(node, (z,), lambda x: torch.log_softmax(x, axis), f"log_softmax({{0}}, dim={axis!r})")
    for name, base in (("log2", 2), ("log10", 10)):
        soft = call(node, name)
        if is_call(soft, "softmax") and (dims := axes_of(soft)[0]) is not None:
            by = math.log(base)
            yield Rewrite(
                node,
                (soft.args[0],),
                lambda z, by=by: torch.log_softmax(z, dims) / by,
                f"log_softmax({{0}}, dim={dims!r}) / {by}",
            )


def _of_logarithms_of_sums(node: fx.Node) -> Iterator[Rewrite]:
    """log1p(exp(x)), log(1 / (1 + exp(−x))), log(Σexp) of three terms, log of the mean of exponentials, log(erfc(x))."""
    if (z := call(call(node, "log1p"), "exp")) is not None:
        yield Rewrite(node, (z,), lambda x: _F.softplus(x, threshold=40.0), "nn.functional.softplus({0}, threshold=40.0)")
    inner = call(node, "log")
    if inner is None:
        return
    fraction = ratio(inner)
    if fraction is not None and number(fraction[0]) == 1:
        for one, other in terms(fraction[1]):
            z = call(other, "exp") if number(one) == 1 else None
            if z is None:
                continue
            negated = call(z, "neg")
            if negated is not None:
                yield Rewrite(node, (negated,), _F.logsigmoid, "nn.functional.logsigmoid({0})")
            else:
                yield Rewrite(node, (z,), lambda x: _F.logsigmoid(-x), "nn.functional.logsigmoid(-{0})")
    if is_call(inner, "mean") and (z := call(inner.args[0], "exp")) is not None and axes_of(inner)[0] is None:
        count, axes = _elements(z), tuple(range(rank(z)))
        if count:
            yield Rewrite(
                node,
                (z,),
                lambda x: torch.logsumexp(x, axes) - math.log(count),
                f"logsumexp({{0}}, dim={axes!r}) - {math.log(count)}",
            )
    if (z := call(inner, "erfc")) is not None:
        root, half = math.sqrt(2), math.log(2)
        yield Rewrite(
            node, (z,), lambda x: torch.special.log_ndtr(-x * root) + half, f"special.log_ndtr(-{{0}} * {root}) + {half}"
        )
    powers = [call(term, "exp") for term in _summands(inner)]
    if len(powers) > 2 and all(power is not None for power in powers):
        text = "{0}"
        for position in range(1, len(powers)):
            text = f"logaddexp({text}, {{{position}}})"
        yield Rewrite(node, tuple(powers), _folded(torch.logaddexp), text)


def _summands(node: Any) -> list[Any]:
    """a, b, c of a + b + c."""
    if is_call(node, "add") and len(node.args) == 2 and not node.kwargs:
        return [*_summands(node.args[0]), *_summands(node.args[1])]
    return [node]


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """f(f(a, b), c) of a, b, c."""
    return lambda *members: reduce(function, members)


def _of_variances(node: fx.Node) -> Iterator[Rewrite]:
    """Σx²/n − (Σx/n)², and E[xy] − E[x]·E[y]."""
    pair = difference(node)
    if pair is None:
        return
    squares, mean = ratio(pair[0]), square(pair[1])
    average = None if mean is None else ratio(mean)
    if squares is not None and average is not None and is_call(squares[0], "sum") and is_call(average[0], "sum"):
        x = square(squares[0].args[0])
        is_whole = axes_of(squares[0])[0] is None and axes_of(average[0])[0] is None
        counts = {number(squares[1]), number(average[1])}
        if x is not None and same(x, average[0].args[0]) and is_whole and counts == {_elements(x)}:
            yield Rewrite(node, (x,), lambda v: ((v - v.mean()) ** 2).mean(), "(({0} - {0}.mean()) ** 2).mean()")
    if is_call(pair[0], "mean") and axes_of(pair[0])[0] is None:
        for x, y in factors(pair[0].args[0]):
            for p, q in factors(pair[1]):
                means = is_call(p, "mean") and is_call(q, "mean") and axes_of(p)[0] is None and axes_of(q)[0] is None
                if means and same(p.args[0], x) and same(q.args[0], y) and not same(x, y):
                    yield Rewrite(
                        node, (x, y), lambda v, w: ((v - v.mean()) * (w - w.mean())).mean(),
                        "(({0} - {0}.mean()) * ({1} - {1}.mean())).mean()",
                    )  # fmt: skip
                    return


def _of_hyperbolic_functions(node: fx.Node) -> Iterator[Rewrite]:
    """cosh − sinh, cosh − 1, sinh / cosh, exp / exp."""
    pair = difference(node)
    if pair is not None and (z := call(pair[0], "cosh")) is not None:
        if (w := call(pair[1], "sinh")) is not None and same(z, w):
            yield Rewrite(node, (z,), lambda x: torch.exp(-x), "exp(-{0})")
        elif number(pair[1]) == 1:
            yield Rewrite(node, (z,), lambda x: 2 * torch.sinh(x / 2) ** 2, "2 * sinh({0} / 2) ** 2")
    fraction = ratio(node)
    if fraction is None:
        return
    x, y = call(fraction[0], "sinh"), call(fraction[1], "cosh")
    if x is not None and y is not None and same(x, y):
        yield Rewrite(node, (x,), torch.tanh, "tanh({0})")
    x, y = call(fraction[0], "exp"), call(fraction[1], "exp")
    if x is not None and y is not None:
        yield Rewrite(node, (x, y), lambda p, q: torch.exp(p - q), "exp({0} - {1})")


def _of_a_root_and_its_base(node: fx.Node) -> Iterator[Rewrite]:
    """√(q² + d) − q = d / (√(q² + d) + q), and its opposite; q may be 1."""
    pair = difference(node)
    if pair is None:
        return
    for root, base, sign in ((pair[0], pair[1], 1), (pair[1], pair[0], -1)):
        inner = call(root, "sqrt")
        for step, rest, opposite in () if inner is None else _steps(inner):
            is_base = number(base) == 1 == number(rest) if number(base) is not None else same(square(rest), base)
            if is_base:
                text = f"{'-' if sign * opposite < 0 else ''}{{0}} / (sqrt({{1}}) + {{2}})"
                yield Rewrite(node, (step, inner, base), lambda d, p, q, s=sign * opposite: s * d / (torch.sqrt(p) + q), text)
                return


def _steps(inner: Any) -> Iterator[tuple[Any, Any, int]]:
    """d and q² of q² + d, and of q² − d with the sign."""
    for a, b in terms(inner):
        yield a, b, 1
    pair = difference(inner)
    if pair is not None:
        yield pair[1], pair[0], -1


def _of_reciprocals(node: fx.Node) -> Iterator[Rewrite]:
    """1/p − 1/q = (q − p) / (p·q), the difference written out where p is q plus something; 1/(1 + x) and its like."""
    pair = difference(node)
    first, second = (None, None) if pair is None else (ratio(pair[0]), ratio(pair[1]))
    if first is None or second is None or number(first[0]) != 1 or number(second[0]) != 1:
        return
    p, q = first[1], second[1]
    step = next((d for d, base in terms(p) if same(base, q)), None)
    if step is not None:
        yield Rewrite(node, (step, p, q), lambda d, a, b: -d / (a * b), "-{0} / ({1} * {2})")
    else:
        yield Rewrite(node, (p, q), lambda a, b: (b - a) / (a * b), "({1} - {0}) / ({0} * {1})")


def _of_powers(node: fx.Node) -> Iterator[Rewrite]:
    """A power of a product, and roots of sums of squares written as a power or of three terms."""
    if is_call(node, "pow") and len(node.args) == 2:
        base: Any = node.args[0]
        exponent = node.args[1]
        if is_call(base, "prod") and axes_of(base)[0] is None:
            yield Rewrite(
                node, (base.args[0], exponent), lambda x, p: torch.exp(p * torch.log(x).sum()), "exp({1} * log({0}).sum())"
            )
    inner = under_root(node)
    if inner is None:
        return
    sides = [square(term) for term in _summands(inner)]
    if len(sides) > 1 and all(side is not None for side in sides) and (len(sides) > 2 or is_call(node, "pow")):
        text = "{0}"
        for position in range(1, len(sides)):
            text = f"hypot({text}, {{{position}}})"
        yield Rewrite(node, tuple(sides), _folded(torch.hypot), text)
    if (
        is_call(node, "pow")
        and is_call(inner, "sum")
        and axes_of(inner)[0] is None
        and (x := square(inner.args[0])) is not None
    ):
        yield Rewrite(
            node, (x,), lambda v: v.abs().max().detach() * torch.sqrt(((v / v.abs().max().detach()) ** 2).sum()),
            "{0}.abs().max().detach() * sqrt((({0} / {0}.abs().max().detach()) ** 2).sum())",
        )  # fmt: skip


def _of_powers_near_one(node: fx.Node) -> Iterator[Rewrite]:
    """xʸ − 1 and 1 − xʸ by expm1, of plain numbers too (2ˣ − 1), and (1 + x)ⁿ by log1p: what is added to 1 loses its digits there."""
    pair = difference(node)
    for power, one, sign in () if pair is None else ((pair[0], pair[1], 1), (pair[1], pair[0], -1)):
        if number(one) != 1 or not is_call(power, "pow") or len(power.args) != 2:
            continue
        base, exponent = power.args
        minus, by = "-" if sign < 0 else "", number(base)
        if by is None:
            text = f"{minus}expm1({{1}} * log({{0}}))"
            yield Rewrite(node, (base, exponent), lambda x, y, s=sign: s * torch.expm1(y * torch.log(x)), text)
        elif by > 0:
            log = math.log(by)
            text = f"{minus}expm1({{0}} * {log})"
            yield Rewrite(node, (exponent,), lambda y, s=sign, b=log: s * torch.expm1(y * b), text)
    if is_call(node, "pow") and len(node.args) == 2:
        base, exponent = node.args
        for one, step in terms(base):
            if number(one) == 1 and number(step) is None:
                yield Rewrite(node, (step, exponent), lambda d, n: torch.exp(n * torch.log1p(d)), "exp({1} * log1p({0}))")
        less = difference(base)
        if less is not None and number(less[0]) == 1 and number(less[1]) is None:
            yield Rewrite(node, (less[1], exponent), lambda d, n: torch.exp(n * torch.log1p(-d)), "exp({1} * log1p(-{0}))")


def _of_fractions_near_one(node: fx.Node) -> Iterator[Rewrite]:
    """1/(1 + x) − 1 = −x/(1 + x), and its opposite."""
    pair = difference(node)
    for fraction, one, minus in () if pair is None else ((pair[0], pair[1], "-"), (pair[1], pair[0], "")):
        parts = ratio(fraction) if number(one) == 1 else None
        for unit, step in () if parts is None or number(parts[0]) != 1 else terms(parts[1]):
            if number(unit) == 1 and number(step) is None:
                sign = -1 if minus else 1
                yield Rewrite(node, (step,), lambda d, s=sign: s * d / (1 + d), f"{minus}{{0}} / (1 + {{0}})")


def _of_exponentials_of_logarithms(node: fx.Node) -> Iterator[Rewrite]:
    """exp(log a + log b) = a·b, exp(log a − log b) = a/b; log of exp(x)/(1 + exp(x)) as that of a sigmoid."""
    inner = call(node, "exp")
    for a, b in terms(inner):
        x, y = call(a, "log"), call(b, "log")
        if x is not None and y is not None:
            yield Rewrite(node, (x, y), lambda p, q: p * q, "{0} * {1}")
            break
    pair = difference(inner)
    if pair is not None and (x := call(pair[0], "log")) is not None and (y := call(pair[1], "log")) is not None:
        yield Rewrite(node, (x, y), lambda p, q: p / q, "{0} / {1}")
    fraction = ratio(call(node, "log"))
    z = None if fraction is None else call(fraction[0], "exp")
    for one, other in () if fraction is None or z is None else terms(fraction[1]):
        if number(one) == 1 and same(call(other, "exp"), z):
            yield Rewrite(node, (z,), _F.logsigmoid, "nn.functional.logsigmoid({0})")


def _of_arc_cosines(node: fx.Node) -> Iterator[Rewrite]:
    """acos(1 − x) = 2·asin(√(x/2))."""
    pair = difference(call(node, "acos"))
    if pair is not None and number(pair[0]) == 1:
        yield Rewrite(node, (pair[1],), lambda x: 2 * torch.asin(torch.sqrt(x / 2)), "2 * asin(sqrt({0} / 2))")


COMPOSED: Final[tuple[Matcher, ...]] = (
    _of_softmax_by_hand, _of_logarithms_of_sums, _of_variances, _of_hyperbolic_functions, _of_a_root_and_its_base,
    _of_reciprocals, _of_powers, _of_powers_near_one, _of_fractions_near_one, _of_exponentials_of_logarithms, _of_arc_cosines,
)  # fmt: skip
