"""Better formulas by identities: addition theorems, functions and their inverses, arguments near one, squares multiplied out.

Sources: M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 4.3.34 to 4.3.37, 4.4.34 and 4.6.20 to 4.6.22; W. Kahan,
"Branch cuts for complex elementary functions" (1987).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import fx

from app.engine.precision.formula import Matcher, Rewrite
from app.engine.precision.shapes import (
    axes_of,
    call,
    difference,
    factors,
    is_call,
    number,
    ratio,
    same,
    signed_terms,
    square,
    terms,
)

_F: Final = torch.nn.functional
# Of the normal distribution: 1 over the root of 2.
_HALF_ROOT: Final = math.sqrt(0.5)
# f(g(x)) = x
_INVERSES: Final[Mapping[str, str]] = {
    "logit": "sigmoid", "atanh": "tanh", "asinh": "sinh", "log1p": "expm1", "expm1": "log1p", "erfinv": "erf", "exp": "log",
}  # fmt: skip


def _step(a: Any, b: Any) -> Any:
    """d of a = b + d; None where a is not written so."""
    return next((d for d, base in terms(a) if same(base, b)), None)


def _of_addition_theorems(node: fx.Node) -> Iterator[Rewrite]:
    """sin p − sin q, cos p − cos q, atan p − atan q, σ(p) − σ(q), erf p − erf q, tan x − sin x."""
    pair = difference(node)
    if pair is None:
        return
    for name in ("sin", "cos"):
        p, q = call(pair[0], name), call(pair[1], name)
        if p is None or q is None:
            continue
        d, sine = _step(p, q), name == "sin"
        if isinstance(d, fx.Node):
            text = "2 * cos({1} + {0} / 2) * sin({0} / 2)" if sine else "-2 * sin({1} + {0} / 2) * sin({0} / 2)"
            yield Rewrite(node, (d, q), _sine_step if sine else _cosine_step, text)
        else:
            text = (
                "2 * cos(({0} + {1}) / 2) * sin(({0} - {1}) / 2)"
                if sine
                else "-2 * sin(({0} + {1}) / 2) * sin(({0} - {1}) / 2)"
            )
            yield Rewrite(node, (p, q), lambda x, y, f=_sine_step if sine else _cosine_step: f(x - y, y), text)
    p, q = call(pair[0], "atan"), call(pair[1], "atan")
    if p is not None and q is not None:
        d = _step(p, q)
        if d is None:
            yield Rewrite(node, (p, q), lambda x, y: torch.atan((x - y) / (1 + x * y)), "atan(({0} - {1}) / (1 + {0} * {1}))")
        else:
            yield Rewrite(node, (d, p, q), lambda s, x, y: torch.atan(s / (1 + x * y)), "atan({0} / (1 + {1} * {2}))")
    p, q = call(pair[0], "sigmoid"), call(pair[1], "sigmoid")
    if p is not None and q is not None:
        yield Rewrite(
            node, (p, q), lambda x, y: -torch.sigmoid(x) * torch.sigmoid(-y) * torch.expm1(y - x),
            "-sigmoid({0}) * sigmoid(-{1}) * expm1({1} - {0})",
        )  # fmt: skip
    p, q = call(pair[0], "erf"), call(pair[1], "erf")
    if p is not None and q is not None:
        yield Rewrite(node, (p, q), lambda x, y: torch.erfc(y) - torch.erfc(x), "erfc({1}) - erfc({0})")
        yield Rewrite(node, (p, q), lambda x, y: torch.erfc(-x) - torch.erfc(-y), "erfc(-{0}) - erfc(-{1})")
    p, q = call(pair[0], "tan"), call(pair[1], "sin")
    if p is not None and q is not None and same(p, q):
        yield Rewrite(node, (p,), lambda x: 2 * torch.tan(x) * torch.sin(x / 2) ** 2, "2 * tan({0}) * sin({0} / 2) ** 2")


def _of_products_of_waves(node: fx.Node) -> Iterator[Rewrite]:
    """cos²x − sin²x and sin x·cos y − cos x·sin y, by addition theorems."""
    pair = difference(node)
    if pair is None:
        return
    x, y = (call(square(side), name) for side, name in zip(pair, ("cos", "sin"), strict=True))
    if x is not None and y is not None and same(x, y):
        yield Rewrite(node, (x,), lambda v: torch.cos(2 * v), "cos(2 * {0})")
    for a, b in factors(pair[0]):
        for c, d in factors(pair[1]):
            x, y, z, w = call(a, "sin"), call(b, "cos"), call(c, "cos"), call(d, "sin")
            if None not in (x, y, z, w) and same(x, z) and same(y, w):
                yield Rewrite(node, (x, y), lambda p, q: torch.sin(p - q), "sin({0} - {1})")


def _of_shared_factors(node: fx.Node) -> Iterator[Rewrite]:
    """x·log p − x·log q = x·log1p((p − q)/q); (a + b)² − a² = b·(2a + b); Φ(p) − Φ(q) in the upper tail."""
    pair = difference(node)
    if pair is None:
        return
    for x, a in factors(pair[0]):
        for y, b in factors(pair[1]):
            p, q = call(a, "log"), call(b, "log")
            if p is not None and q is not None and same(x, y):
                text = "{0} * log1p(({1} - {2}) / {2})"
                yield Rewrite(node, (x, p, q), lambda s, u, v: s * torch.log1p((u - v) / v), text)
    whole, part = square(pair[0]), square(pair[1])
    step = None if whole is None or part is None else _step(whole, part)
    if step is not None:
        yield Rewrite(node, (step, part), lambda d, a: d * (2 * a + d), "{0} * (2 * {1} + {0})")
    p, q = call(pair[0], "ndtr"), call(pair[1], "ndtr")
    if p is not None and q is not None:
        half = f"0.5 * (erfc({{1}} * {_HALF_ROOT}) - erfc({{0}} * {_HALF_ROOT}))"
        yield Rewrite(node, (p, q), lambda u, v: 0.5 * (torch.erfc(v * _HALF_ROOT) - torch.erfc(u * _HALF_ROOT)), half)
        half = f"0.5 * (erfc(-{{0}} * {_HALF_ROOT}) - erfc(-{{1}} * {_HALF_ROOT}))"
        yield Rewrite(node, (p, q), lambda u, v: 0.5 * (torch.erfc(-u * _HALF_ROOT) - torch.erfc(-v * _HALF_ROOT)), half)


def _sine_step(d: Any, q: Any) -> Any:
    return 2 * torch.cos(q + d / 2) * torch.sin(d / 2)


def _cosine_step(d: Any, q: Any) -> Any:
    return -2 * torch.sin(q + d / 2) * torch.sin(d / 2)


def _of_inverses(node: fx.Node) -> Iterator[Rewrite]:
    """logit(σ(x)) and its like; log(q / (1 − q)) and log q − log(1 − q), of q = σ(x) and of any q."""
    for outer, inner in _INVERSES.items():
        x = call(call(node, outer), inner)
        if x is not None:
            yield Rewrite(node, (x,), lambda v: v * 1, "{0}")
    fraction = ratio(call(node, "log"))
    pair = difference(node)
    if fraction is None and pair is not None:
        fraction = call(pair[0], "log"), call(pair[1], "log")
    if fraction is None or fraction[0] is None or fraction[1] is None:
        return
    q, rest = fraction[0], difference(fraction[1])
    if rest is None or number(rest[0]) != 1 or not same(rest[1], q):
        return
    x = call(q, "sigmoid")
    if x is not None:
        yield Rewrite(node, (x,), lambda v: v * 1, "{0}")
    yield Rewrite(node, (q,), lambda v: torch.log(v) - torch.log1p(-v), "log({0}) - log1p(-{0})")
    yield Rewrite(node, (q,), lambda v: torch.log1p((2 * v - 1) / (1 - v)), "log1p((2 * {0} - 1) / (1 - {0}))")


def _of_arguments_near_one(node: fx.Node) -> Iterator[Rewrite]:
    """acosh(1 + x), atanh(1 − x), asin(1 − x), and x² − 1 as a product."""
    for one, x in terms(call(node, "acosh")):
        if number(one) == 1:
            yield Rewrite(node, (x,), lambda v: 2 * torch.asinh(torch.sqrt(v / 2)), "2 * asinh(sqrt({0} / 2))")
    pair = difference(call(node, "atanh"))
    if pair is not None and number(pair[0]) == 1:
        yield Rewrite(node, (pair[1],), lambda v: (torch.log(2 - v) - torch.log(v)) / 2, "(log(2 - {0}) - log({0})) / 2")
    pair = difference(call(node, "asin"))
    if pair is not None and number(pair[0]) == 1:
        half = math.pi / 2
        yield Rewrite(
            node, (pair[1],), lambda v: half - 2 * torch.asin(torch.sqrt(v / 2)), f"{half} - 2 * asin(sqrt({{0}} / 2))"
        )
    pair = difference(node)
    if pair is not None and number(pair[1]) == 1 and (x := square(pair[0])) is not None:
        yield Rewrite(node, (x,), lambda v: (v - 1) * (v + 1), "({0} - 1) * ({0} + 1)")
    if pair is not None and number(pair[1]) == 1 and (x := call(pair[0], "cos")) is not None:
        yield Rewrite(node, (x,), lambda v: -2 * torch.sin(v / 2) ** 2, "-2 * sin({0} / 2) ** 2")


def _of_inverse_functions_by_hand(node: fx.Node) -> Iterator[Rewrite]:
    """atanh, asinh and acosh as logarithms; log(cosh(x)) near zero; tanh by e²ˣ or by a sigmoid."""
    inner = call(node, "log")
    fraction = ratio(inner)
    if fraction is not None:
        pair = difference(fraction[1])
        for one, x in terms(fraction[0]):
            if pair is not None and number(one) == 1 == number(pair[0]) and same(pair[1], x):
                yield Rewrite(node, (x,), lambda v: 2 * torch.atanh(v), "2 * atanh({0})")
    for x, root in terms(inner):
        under = call(root, "sqrt")
        pair = difference(under)
        if pair is not None and number(pair[1]) == 1 and same(square(pair[0]), x):
            yield Rewrite(node, (x,), torch.acosh, "acosh({0})")
        if any(number(one) == 1 and same(square(other), x) for one, other in terms(under)):
            yield Rewrite(node, (x,), torch.asinh, "asinh({0})")
    if (z := call(inner, "cosh")) is not None:
        yield Rewrite(node, (z,), lambda v: torch.log1p(2 * torch.sinh(v / 2) ** 2), "log1p(2 * sinh({0} / 2) ** 2)")
    fraction, pair = ratio(node), difference(node)
    top = None if fraction is None else difference(fraction[0])
    if fraction is not None and top is not None:
        for one, other in terms(fraction[1]):
            z = call(other, "exp") if number(one) == 1 else None
            if z is not None and number(top[1]) == 1 and same(top[0], other):
                yield Rewrite(node, (z,), lambda v: torch.tanh(v / 2), "tanh({0} / 2)")
            elif z is not None and number(top[0]) == 1 and same(top[1], other):
                yield Rewrite(node, (z,), lambda v: -torch.tanh(v / 2), "-tanh({0} / 2)")
    if pair is not None and number(pair[1]) == 1:
        for two, other in factors(pair[0]):
            if number(two) == 2 and (z := call(other, "sigmoid")) is not None:
                yield Rewrite(node, (z,), lambda v: torch.tanh(v / 2), "tanh({0} / 2)")


def _of_tails(node: fx.Node) -> Iterator[Rewrite]:
    """c + c·erf(x), c − c·erf(x), c − c·cos(x); sigmoids and tanh by logsigmoid, whose derivative keeps its digits where they are flat."""
    for one, other in terms(node):
        if number(one) == 1 and (z := call(other, "erf")) is not None:
            yield Rewrite(node, (z,), lambda v: torch.erfc(-v), "erfc(-{0})")
        for share, inner in factors(other):
            c = number(one)
            if c is not None and number(share) == c and (z := call(inner, "erf")) is not None:
                yield Rewrite(node, (z,), lambda v, c=c: c * torch.erfc(-v), f"{c:g} * erfc(-{{0}})")
    pair = difference(node)
    for share, inner in () if pair is None else factors(pair[1]):
        c = None if pair is None else number(pair[0])
        if c is not None and number(share) == c and (z := call(inner, "erf")) is not None:
            yield Rewrite(node, (z,), lambda v, c=c: c * torch.erfc(v), f"{c:g} * erfc({{0}})")
        elif c is not None and number(share) == c and (z := call(inner, "cos")) is not None:
            yield Rewrite(node, (z,), lambda v, c=c: 2 * c * torch.sin(v / 2) ** 2, f"{2 * c:g} * sin({{0}} / 2) ** 2")
    # PyTorch has ndtr as (1 + erf(x / sqrt(2))) / 2, which has no digits left in the lower tail.
    if (z := call(node, "ndtr")) is not None:
        yield Rewrite(node, (z,), lambda v: 0.5 * torch.erfc(-v * _HALF_ROOT), f"0.5 * erfc(-{{0}} * {_HALF_ROOT})")
    if pair is not None and number(pair[0]) == 1 and (z := call(pair[1], "ndtr")) is not None:
        yield Rewrite(node, (z,), lambda v: 0.5 * torch.erfc(v * _HALF_ROOT), f"0.5 * erfc({{0}} * {_HALF_ROOT})")
    for z in _arguments_of_sigmoid(node):
        yield Rewrite(node, (z,), lambda v: torch.exp(_F.logsigmoid(v)), "exp(nn.functional.logsigmoid({0}))")
    if (z := call(node, "tanh")) is not None:
        yield Rewrite(
            node, (z,), lambda v: 1 - 2 * torch.exp(_F.logsigmoid(-2 * v)), "1 - 2 * exp(nn.functional.logsigmoid(-2 * {0}))"
        )
        yield Rewrite(
            node, (z,), lambda v: 2 * torch.exp(_F.logsigmoid(2 * v)) - 1, "2 * exp(nn.functional.logsigmoid(2 * {0})) - 1"
        )


def _of_spread(node: fx.Node) -> Iterator[Rewrite]:
    """var(x) and std(x) of all elements: numbers far from zero lose the digits that their mean has in common with them."""
    for name, spread in (("var", torch.var), ("std", torch.std)):
        if is_call(node, name) and len(node.args) == 1 and not node.kwargs and isinstance(node.args[0], fx.Node):
            text = "({0} - {0}.reshape(-1)[0].detach())." + name + "()"
            yield Rewrite(node, (node.args[0],), lambda v, f=spread: f(v - v.reshape(-1)[0].detach()), text)


def _arguments_of_sigmoid(node: fx.Node) -> Iterator[Any]:
    """x of σ(x), 1/(1 + exp(−x)) and exp(x)/(1 + exp(x))."""
    if (z := call(node, "sigmoid")) is not None:
        yield z
    fraction = ratio(node)
    for one, other in () if fraction is None else terms(fraction[1]):
        negated, w = call(call(other, "exp"), "neg"), call(other, "exp")
        if fraction is not None and number(one) == 1:
            if number(fraction[0]) == 1 and negated is not None:
                yield negated
            elif w is not None and same(call(fraction[0], "exp"), w):
                yield w


def _of_what_cancels(node: fx.Node) -> Iterator[Rewrite]:
    """(a + b) − a is b; 1/q − 1/p where p is q plus something."""
    pair = difference(node)
    if pair is None:
        return
    for other, base in terms(pair[0]):
        if isinstance(other, fx.Node) and (
            same(base, pair[1]) or (number(base) is not None and number(base) == number(pair[1]))
        ):
            yield Rewrite(node, (other,), lambda v: v * 1, "{0}")
    first, second = ratio(pair[0]), ratio(pair[1])
    if first is not None and second is not None and number(first[0]) == 1 == number(second[0]):
        d = _step(second[1], first[1])
        if d is not None:
            yield Rewrite(node, (d, first[1], second[1]), lambda s, q, p: s / (q * p), "{0} / ({1} * {2})")


def _of_squares_multiplied_out(node: fx.Node) -> Iterator[Rewrite]:
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


def _of_cosine_distances(node: fx.Node) -> Iterator[Rewrite]:
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


def _of_length(node: Any) -> Any:
    """x of √Σx², norm(x)."""
    total = call(node, "sqrt")
    if is_call(total, "sum") and axes_of(total)[0] is None:
        return square(total.args[0])
    return node.args[0] if is_call(node, "norm", "vector_norm") and len(node.args) == 1 and not node.kwargs else None


IDENTITIES: Final[tuple[Matcher, ...]] = (
    _of_addition_theorems, _of_products_of_waves, _of_shared_factors, _of_inverses, _of_arguments_near_one,
    _of_inverse_functions_by_hand, _of_what_cancels, _of_squares_multiplied_out, _of_cosine_distances, _of_tails, _of_spread,
)  # fmt: skip
