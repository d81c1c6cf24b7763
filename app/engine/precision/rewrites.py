"""Better formulas for what loses digits: shapes of a few steps, what to write instead, and how to compute it.

Sources: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., chapters 1 and 27; W. Kahan's expm1 and log1p;
PyTorch's own fused functions. None is recommended by its shape alone: the report tries each and keeps what proves better.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.precision.composed_rewrites import COMPOSED
from app.engine.precision.formula import Matcher, Rewrite
from app.engine.precision.identity_rewrites import IDENTITIES
from app.engine.precision.shapes import (
    axes_of,
    call,
    difference,
    exp_minus,
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


def rewrites(graph: fx.Graph) -> list[Rewrite]:
    """Every better formula that fits some step of `graph`, in the order of the steps."""
    return [rewrite for node in graph.nodes if node.op == "call_function" for match in MATCHERS for rewrite in match(node)]


def _axes_text(dims: Any, keepdim: bool) -> str:
    return "" if dims is None else f", dim={dims!r}" + (", keepdim=True" if keepdim else "")


def _of_softmax(node: fx.Node) -> Iterator[Rewrite]:
    inner = call(node, "log")
    if inner is not None and is_call(inner, "softmax"):
        dims, _ = axes_of(inner)
        if dims is not None:
            yield Rewrite(node, (inner.args[0],), lambda z: torch.log_softmax(z, dims), f"log_softmax({{0}}, dim={dims!r})")


def _of_exponentials(node: fx.Node) -> Iterator[Rewrite]:
    """log of a sum of exponentials, of 1 + x, of 1 − x."""
    inner = call(node, "log")
    if inner is None:
        return
    if is_call(inner, "sum") and (z := call(inner.args[0], "exp")) is not None:
        dims, keepdim = axes_of(inner)
        axes = tuple(range(rank(z))) if dims is None else dims
        text = f"logsumexp({{0}}, dim={axes!r}" + (", keepdim=True)" if keepdim else ")")
        yield Rewrite(node, (z,), lambda x: torch.logsumexp(x, axes, keepdim), text)
    for a, b in terms(inner):
        x, y = call(a, "exp"), call(b, "exp")
        if x is not None and y is not None:
            yield Rewrite(node, (x, y), torch.logaddexp, "logaddexp({0}, {1})")
        if number(a) == 1 and y is not None:
            yield Rewrite(node, (y,), lambda x: _F.softplus(x, threshold=40.0), "nn.functional.softplus({0}, threshold=40.0)")
        elif number(a) == 1:
            yield Rewrite(node, (b,), torch.log1p, "log1p({0})")
    pair = difference(inner)
    if pair is not None and number(pair[0]) == 1:
        z = call(pair[1], "sigmoid")
        if z is not None:
            yield Rewrite(node, (z,), lambda x: _F.logsigmoid(-x), "nn.functional.logsigmoid(-{0})")
        elif (e := call(pair[1], "exp")) is not None:
            yield Rewrite(node, (e,), lambda x: torch.log(-torch.expm1(x)), "log(-expm1({0}))")
        else:
            yield Rewrite(node, (pair[1],), lambda x: torch.log1p(-x), "log1p(-{0})")


def _of_logarithms(node: fx.Node) -> Iterator[Rewrite]:
    """log of a sigmoid, a normal distribution, a product, an exponential, cosh, a determinant, a ratio."""
    inner = call(node, "log")
    if inner is None:
        return
    if (z := call(inner, "sigmoid")) is not None:
        yield Rewrite(node, (z,), _F.logsigmoid, "nn.functional.logsigmoid({0})")
    if (z := call(inner, "ndtr")) is not None:
        yield Rewrite(node, (z,), torch.special.log_ndtr, "special.log_ndtr({0})")
    if is_call(inner, "prod"):
        dims, keepdim = axes_of(inner)
        yield Rewrite(
            node,
            (inner.args[0],),
            lambda x: _summed(torch.log(x), dims, keepdim),
            f"log({{0}}).sum({_axes_text(dims, keepdim)[2:]})",
        )
    if (z := call(inner, "exp")) is not None:
        yield Rewrite(node, (z,), lambda x: x * 1, "{0}")
    if (z := call(inner, "cosh")) is not None:
        yield Rewrite(
            node, (z,), lambda x: torch.logaddexp(x, -x) - 0.6931471805599453, "logaddexp({0}, -{0}) - 0.6931471805599453"
        )
    if (z := call(inner, "det")) is not None:
        yield Rewrite(node, (z,), torch.logdet, "logdet({0})")
    fraction = ratio(inner)
    if fraction is not None:
        yield Rewrite(node, fraction, lambda a, b: _log(a) - _log(b), "log({0}) - log({1})")


def _summed(x: Tensor, dims: Any, keepdim: bool) -> Tensor:
    return x.sum() if dims is None else x.sum(dims, keepdim=keepdim)


def _log(x: Any) -> Tensor:
    return torch.log(x if isinstance(x, Tensor) else torch.tensor(x))


def _of_differences(node: fx.Node) -> Iterator[Rewrite]:
    pair = difference(node)
    if pair is None:
        return
    a, b = pair
    if number(b) == 1 and (z := call(a, "exp")) is not None:
        yield Rewrite(node, (z,), torch.expm1, "expm1({0})")
    if number(a) == 1:
        yield from _from_one(node, b)
    yield from _of_squares(node, a, b)
    x, y = under_root(a), under_root(b)
    if x is not None and y is not None:
        yield from _of_roots(node, x, y)
    x, y = call(a, "lgamma"), call(b, "lgamma")
    if x is not None and y is not None and any(number(one) == 1 and same(other, y) for one, other in terms(x)):
        yield Rewrite(node, (y,), torch.log, "log({0})")
    x, y = call(a, "log"), call(b, "log")
    if x is not None and y is not None:
        step = next((d for d, base in terms(x) if same(base, y)), None)
        if step is not None:
            yield Rewrite(node, (step, y), lambda d, q: torch.log1p(d / q), "log1p({0} / {1})")
        else:
            yield Rewrite(node, (x, y), lambda p, q: torch.log1p((p - q) / q), "log1p(({0} - {1}) / {1})")
    x, y = call(a, "exp"), call(b, "exp")
    if x is not None and y is not None:
        yield Rewrite(node, (x, y), lambda p, q: torch.exp(q) * torch.expm1(p - q), "exp({1}) * expm1({0} - {1})")


def _from_one(node: fx.Node, b: Any) -> Iterator[Rewrite]:
    """1 − cos, 1 − erf, 1 − sigmoid, 1 − tanh², 1 − exp, 1 − sqrt."""
    if (z := call(b, "cos")) is not None:
        yield Rewrite(node, (z,), lambda x: 2 * torch.sin(x / 2) ** 2, "2 * sin({0} / 2) ** 2")
    if (z := call(b, "erf")) is not None:
        yield Rewrite(node, (z,), torch.erfc, "erfc({0})")
    if (z := call(b, "sigmoid")) is not None:
        yield Rewrite(node, (z,), lambda x: torch.sigmoid(-x), "sigmoid(-{0})")
    if (z := call(b, "exp")) is not None:
        yield Rewrite(node, (z,), lambda x: -torch.expm1(x), "-expm1({0})")
    if (z := call(b, "ndtr")) is not None:
        yield Rewrite(node, (z,), lambda x: torch.special.ndtr(-x), "special.ndtr(-{0})")
    base = square(b)
    if base is not None and (z := call(base, "tanh")) is not None:
        yield Rewrite(node, (z,), lambda x: torch.cosh(x) ** -2, "cosh({0}) ** -2")
    if base is not None and (z := call(base, "cos")) is not None:
        yield Rewrite(node, (z,), lambda x: torch.sin(x) ** 2, "sin({0}) ** 2")
    if base is not None and (z := call(base, "sin")) is not None:
        yield Rewrite(node, (z,), lambda x: torch.cos(x) ** 2, "cos({0}) ** 2")
    if (z := call(b, "tanh")) is not None:
        yield Rewrite(node, (z,), lambda x: 2 * torch.sigmoid(-2 * x), "2 * sigmoid(-2 * {0})")


def _of_squares(node: fx.Node, a: Any, b: Any) -> Iterator[Rewrite]:
    """E[x²] − E[x]² as the mean of squared deviations, a² − b² as a product."""
    x, y = square(a), square(b)
    if x is not None and y is not None:
        yield Rewrite(node, (x, y), lambda p, q: (p - q) * (p + q), "({0} - {1}) * ({0} + {1})")
    if number(a) == 1 and y is not None:
        yield Rewrite(node, (y,), lambda q: (1 - q) * (1 + q), "(1 - {0}) * (1 + {0})")
    if is_call(a, "mean") and y is not None and is_call(y, "mean"):
        inner = square(a.args[0])
        dims, keepdim = axes_of(a)
        if inner is not None and same(inner, y.args[0]) and axes_of(y)[0] == dims:
            yield _deviations(node, inner, dims, keepdim)
    root = ratio(b)
    if is_call(a, "sum") and root is not None and (total := square(root[0])) is not None and is_call(total, "sum"):
        inner = square(a.args[0])  # Σx² − (Σx)²/n
        if inner is not None and same(inner, total.args[0]) and axes_of(a)[0] is None:
            yield Rewrite(node, (inner,), lambda v: ((v - v.mean()) ** 2).sum(), "(({0} - {0}.mean()) ** 2).sum()")


def _deviations(node: fx.Node, x: Any, dims: Any, keepdim: bool) -> Rewrite:
    if dims is None:
        return Rewrite(node, (x,), lambda v: ((v - v.mean()) ** 2).mean(), "(({0} - {0}.mean()) ** 2).mean()")
    tail = ", keepdim=True" if keepdim else ""
    return Rewrite(
        node,
        (x,),
        lambda v: ((v - v.mean(dims, keepdim=True)) ** 2).mean(dims, keepdim=keepdim),
        f"(({{0}} - {{0}}.mean({dims!r}, keepdim=True)) ** 2).mean({dims!r}{tail})",
    )


def _of_roots(node: fx.Node, x: Any, y: Any) -> Iterator[Rewrite]:
    """√p − √q = (p − q) / (√p + √q), the difference written out where p is q plus something."""
    for step, base in terms(x):
        if same(base, y):
            yield Rewrite(
                node, (step, y), lambda d, q: d / (torch.sqrt(q + d) + torch.sqrt(q)), "{0} / (sqrt({1} + {0}) + sqrt({1}))"
            )
            return
    yield Rewrite(node, (x, y), lambda p, q: (p - q) / (torch.sqrt(p) + torch.sqrt(q)), "({0} - {1}) / (sqrt({0}) + sqrt({1}))")


def _of_ratios(node: fx.Node) -> Iterator[Rewrite]:
    """exp(z)/Σexp(z), 1/(1 + exp(−x)), tanh and sinh by exponentials, a/√(a² + b²), powers over powers."""
    fraction = ratio(node)
    if fraction is None:
        return
    top, bottom = fraction
    z = call(top, "exp")
    if z is not None and is_call(bottom, "sum") and (w := call(bottom.args[0], "exp")) is not None and same(z, w):
        dims, keepdim = axes_of(bottom)
        if isinstance(dims, int) and (keepdim or rank(z) == 1):
            yield Rewrite(node, (z,), lambda x: torch.softmax(x, dims), f"softmax({{0}}, dim={dims!r})")
        elif dims is None and rank(z) == 1:
            yield Rewrite(node, (z,), lambda x: torch.softmax(x, 0), "softmax({0}, dim=0)")
    if number(top) == 1:
        for one, other in terms(bottom):
            negated = call(call(other, "exp"), "neg")
            if number(one) == 1 and negated is not None:
                yield Rewrite(node, (negated,), torch.sigmoid, "sigmoid({0})")
    for one, other in terms(bottom):
        w = call(other, "exp")
        if number(one) == 1 and z is not None and w is not None and same(z, w):
            yield Rewrite(node, (z,), torch.sigmoid, "sigmoid({0})")
    up, down = exp_minus(top), _exp_plus(bottom)
    if up is not None and down is not None and same(up, down):
        yield Rewrite(node, (up,), torch.tanh, "tanh({0})")
    if up is not None and number(bottom) == 2:
        yield Rewrite(node, (up,), torch.sinh, "sinh({0})")


def _exp_plus(node: Any) -> Any:
    for a, b in terms(node):
        x, y = call(a, "exp"), call(call(b, "exp"), "neg")
        if x is not None and y is not None and same(x, y):
            return x
    return None


def _of_products(node: fx.Node) -> Iterator[Rewrite]:
    for a, b in factors(node):
        up = exp_minus(b)
        if number(a) == 0.5 and up is not None:
            yield Rewrite(node, (up,), torch.sinh, "sinh({0})")
        pair = difference(b)  # 0.5 * (1 − erf(x/√2)) and the like keep their factor: the difference is met by itself
        if pair is None and number(a) == 0.5:
            for one, other in terms(b):
                if number(one) == 1 and (z := call(other, "erf")) is not None:
                    yield Rewrite(node, (z,), lambda x: 0.5 * torch.erfc(-x), "0.5 * erfc(-{0})")


def _of_norms(node: fx.Node) -> Iterator[Rewrite]:
    inner = call(node, "sqrt")
    if inner is None:
        return
    for a, b in terms(inner):
        x, y = square(a), square(b)
        if x is not None and y is not None:
            yield Rewrite(node, (x, y), torch.hypot, "hypot({0}, {1})")
            return
    if is_call(inner, "sum") and (x := square(inner.args[0])) is not None and axes_of(inner)[0] is None:
        yield Rewrite(
            node,
            (x,),
            lambda v: v.abs().max().detach() * torch.sqrt(((v / v.abs().max().detach()) ** 2).sum()),
            "{0}.abs().max().detach() * sqrt((({0} / {0}.abs().max().detach()) ** 2).sum())",
        )


def _of_losses(node: fx.Node) -> Iterator[Rewrite]:
    if is_call(node, "binary_cross_entropy") and (z := call(node.args[0], "sigmoid")) is not None and not node.kwargs:
        yield Rewrite(
            node,
            (z, node.args[1]),
            _F.binary_cross_entropy_with_logits,
            "nn.functional.binary_cross_entropy_with_logits({0}, {1})",
        )
    if is_call(node, "log10", "log2"):
        for one, other in terms(node.args[0]):
            if number(one) == 1:
                factor = 2.302585092994046 if is_call(node, "log10") else 0.6931471805599453
                yield Rewrite(node, (other,), lambda x, f=factor: torch.log1p(x) / f, f"log1p({{0}}) / {factor}")


def _of_quadratics(node: fx.Node) -> Iterator[Rewrite]:
    """(−b ± √(b² − 4ac)) / 2a with the sign that cancels, as 2c / (−b ∓ √(b² − 4ac))."""
    fraction = ratio(node)
    if fraction is None:
        return
    halves = [a for two, a in factors(fraction[1]) if number(two) == 2]
    minus = difference(fraction[0])
    pairs = [(root, rest, -1) for root, rest in terms(fraction[0])] + ([] if minus is None else [(minus[1], minus[0], 1)])
    for root, rest, sign in pairs:
        inner, b = call(root, "sqrt"), call(rest, "neg")
        pair = None if inner is None else difference(inner)
        if b is None or pair is None or not same(square(pair[0]), b):
            continue
        for a in halves:
            c = _third(pair[1], a)
            if c is not None:
                yield Rewrite(
                    node,
                    (b, inner, c),
                    lambda p, d, q, s=sign: 2 * q / (-p + s * torch.sqrt(d)),
                    f"2 * {{2}} / (-{{0}} {'+' if sign > 0 else '-'} sqrt({{1}}))",
                )


def _third(product: Any, a: Any) -> Any:
    """c of 4·a·c, in any order of the factors."""
    for x, y in factors(product):
        for p, q in factors(x):
            members = [p, q, y]
            rest = [m for m in members if number(m) != 4 and not same(m, a)]
            if len(rest) == 1 and len(members) == 3:
                return rest[0]
    return None


MATCHERS: Final[tuple[Matcher, ...]] = (
    _of_softmax,
    _of_exponentials,
    _of_logarithms,
    _of_differences,
    _of_ratios,
    _of_products,
    _of_norms,
    _of_losses,
    _of_quadratics,
    *COMPOSED,
    *IDENTITIES,
)
