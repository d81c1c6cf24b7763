"""The dot-product test of a reply that holds both modes: ⟨c, J·t⟩ and ⟨Jᵗ·c, t⟩ are one number, or a note says which is wrong.

J. F. Claerbout, "Earth Soundings Analysis: Processing versus Inversion", 1992, chapter 5. Of complex tensors the product is the real
one, Re Σ c̄·y, in which PyTorch's two modes are each other's adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor

from app.engine.autodiff.cotangents import Vectors
from app.engine.computation import Computation
from app.engine.precision.random_rounding import RandomRounding
from app.engine.stepwise.one_sided import scale_of
from app.engine.stepwise.point import REFUSALS, Point

CODE: Final = "modes_disagree"
# Roundings that two orders of the same sums may differ by, as for rows computed together (autodiff/freivalds.py); in half precision
# a thousand would be anything.
_ROUNDINGS: Final = 1e3
_HALF_ROUNDINGS: Final = 16.0  # where the errors of 256 steps, random in sign, end up: √256
_HALF_EPS: Final = 1e-4  # eps of bfloat16 is 8e-3, of float16 1e-3, of float32 1e-7
# Runs with random roundings, which show how far the modes part by rounding alone: of 4 normal numbers the range is less than an
# eighth of the standard deviation once in 3,000 times.
_RUNS: Final = 4
_FARTHER: Final = 8.0
# One-sided differences at steps that halve from a thousandth of the point's size, extrapolated to no step (Richardson).
_FIRST_STEP: Final = 2.0**-10
_STEPS: Final = 9  # down to 2^-18, where a rounding of 2^-53 is 3e-11 of a slope as large as the value
_ORDERS: Final = 5  # what is left is of the fifth order in the step: 1e-15 at 2^-10
_RESOLVED: Final = 1e-5  # of a derivative, that such differences tell
_FEW: Final = 64  # numbers that Python adds sooner than PyTorch is called twice

Pair = tuple[float, float]
# The numbers of a cotangent and a tangent, and their product by each mode.
Apart = tuple[int, int, Pair]


def contradictory(kinds: Collection[str]) -> str | None:
    """Which of them `jvp` may contradict; None where it is not among them, or none."""
    return next((kind for kind in ("vjp", "gradient") if kind in kinds), None) if "jvp" in kinds else None


def note_disagreement(computation: Computation, tree: Mapping[str, Any]) -> None:
    """A note where the tree's `jvp` contradicts its `vjp` or `gradient` by more than rounding.

    It names the mode that differences along the tangent confirm, if they tell.
    """
    reverse = contradictory(tree)
    if reverse is None:
        return
    cotangents, rows = _cotangents(computation, reverse)
    tangents, columns = computation.tangents
    eps = _eps(tree["jvp"], tree[reverse])
    doubt = eps * _roundings(eps)
    if rows is None and columns is None:
        apart = _apart(_sums(cotangents, tree["jvp"]), _sums(tree[reverse], tangents), doubt)
    else:
        apart = _apart_of_vectors((cotangents, tree["jvp"]), (tree[reverse], tangents), (rows or 1, columns or 1), doubt)
    if apart is None or any(note.code == "finite_differences" for note in computation.notes.all()):
        return
    i, j, pair = apart
    if _is_nothing(computation, cotangents, tangents, abs(pair[0] - pair[1]), doubt):
        return
    c = {name: value if rows is None else value[i] for name, value in cotangents.items()}
    t = {name: value if columns is None else value[j] for name, value in tangents.items()}
    line = _Line(computation, c, t)
    if line.confirms(eps):
        _say(computation, reverse, pair, line)


def _is_nothing(computation: Computation, cotangents: Vectors, tangents: Vectors, gap: float, doubt: float) -> bool:
    """Whether the gap is rounding of what the outputs themselves are: Σ|c·y| · |t|/|x|, a derivative's size if it does not cancel.

    Of softmax with a cotangent of ones all products are roundings of zero.
    """
    outputs = computation.evaluation.outputs
    size = sum(float((_real(c) * _real(outputs[name].expand_as(c))).abs().sum()) for name, c in cotangents.items())
    step = max((float(t.abs().max()) for t in tangents.values() if t.numel()), default=0.0)
    point = max((float(computation.leaves[name].abs().max()) for name, t in tangents.items() if t.numel()), default=0.0)
    return gap <= doubt * size * step / (point or 1.0)


def _cotangents(computation: Computation, reverse: str) -> tuple[Vectors, int | None]:
    if reverse == "vjp":
        return computation.cotangents
    of = str(computation.prepared.of)
    if computation.query.weighted:
        return {of: computation.cotangents[0][of]}, None
    return {of: torch.ones_like(computation.evaluation.outputs[of])}, None


def _sums(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Pair:
    """Σ of the products over the names that both have, and Σ of their magnitudes."""
    total = size = 0.0
    for name, value in left.items():
        if name not in right:
            continue
        products = _real(value.reshape(-1)) * _real(right[name].reshape(-1))
        if products.numel() <= _FEW:  # Python adds a few numbers sooner than PyTorch is called twice
            terms = products.tolist()
            total, size = total + sum(terms), size + sum(map(abs, terms))
        else:
            total, size = total + products.sum().item(), size + products.abs().sum().item()
    return total, size


def _apart(forward: Pair, backward: Pair, doubt: float) -> Apart | None:
    (f, forward_size), (b, backward_size) = forward, backward
    if abs(f - b) <= doubt * (forward_size + backward_size) or not (math.isfinite(f) or math.isfinite(b)):
        return None  # where neither is finite there is nothing to compare
    return 0, 0, (f, b)


def _apart_of_vectors(
    forward: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    backward: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    counts: tuple[int, int],
    doubt: float,
) -> Apart | None:
    """The first pair of a cotangent and a tangent whose products part; `counts`: of the one and of the other."""
    f, forward_size = _products(*forward, counts)
    b, backward_size = _products(*backward, counts)
    apart = ~((f - b).abs() <= doubt * (forward_size + backward_size)) & (f.isfinite() | b.isfinite())
    if not bool(apart.any()):
        return None
    i, j = (int(index) for index in apart.nonzero()[0])
    return i, j, (float(f[i, j]), float(b[i, j]))


def _products(left: Mapping[str, Tensor], right: Mapping[str, Tensor], counts: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """`_sums` of every pair, `[counts]` each."""
    total, size = (torch.zeros(counts, dtype=torch.float64, device="cpu") for _ in range(2))
    for name in left.keys() & right.keys():
        a, b = (_real(side[name].reshape(count, -1)).cpu() for side, count in zip((left, right), counts, strict=True))
        total, size = total + a @ b.mT, size + a.abs() @ b.abs().mT
    return total, size


def _real(value: Tensor) -> Tensor:
    """The numbers of which a real inner product is made, in float64: `[…, n]`, of complex tensors `[…, 2n]`."""
    value = value.detach()
    if value._is_zerotensor():  # forward mode's own zeros, which have no memory
        value = torch.zeros(value.shape, dtype=torch.float64, device=value.device)
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj()).flatten(-2)
    return value if value.dtype == torch.float64 else value.to(torch.float64)


def _eps(*trees: Mapping[str, Tensor]) -> float:
    return max((torch.finfo(value.dtype).eps for tree in trees for value in tree.values()), default=0.0)


def _roundings(eps: float) -> float:
    return _HALF_ROUNDINGS if eps > _HALF_EPS else _ROUNDINGS


class _Line:
    """The function along one tangent, weighted by one cotangent, in float64 where its steps take that: φ(s) = Re⟨c, f(x + s·t)⟩.

    `modes`: φ'(0) by forward and by reverse mode, once `confirms` has computed them.
    """

    modes: Pair | None = None

    def __init__(self, computation: Computation, c: Vectors, t: Vectors) -> None:
        self._point = Point(computation.prepared.function, computation.leaves, computation.query.seed)
        self._c, self._t = c, {name: value.to(self._point.leaves[name].dtype) for name, value in t.items()}

    def confirms(self, eps: float) -> bool:
        """Whether the two modes part here too, by more than rounding; True where this point cannot be computed."""
        try:
            apart = self.modes = self._modes()
            if not all(map(math.isfinite, apart)):
                return any(map(math.isfinite, apart))
            gap = apart[0] - apart[1]
            gaps = [gap]
            for seed in range(_RUNS):
                with RandomRounding(seed):
                    run = self._modes()
                gaps.append(run[0] - run[1])
        except REFUSALS:
            return _roundings(eps) == _ROUNDINGS
        noise = max(gaps[1:]) - min(gaps[1:])
        return abs(gap) > _ROUNDINGS * torch.finfo(torch.float64).eps * max(map(abs, apart)) and abs(gap) > _FARTHER * noise

    def _modes(self) -> Pair:
        """c·J·t, by forward and by reverse mode."""
        names = tuple(self._t)
        point = self._point.leaves
        forward = torch.func.jvp(
            lambda *at: self._weighted(dict(zip(names, at, strict=True))),
            tuple(point[n] for n in names),
            tuple(self._t.values()),
        )[1]
        leaves = {name: point[name].detach().clone().requires_grad_() for name in names}
        gradients = torch.autograd.grad(
            self._weighted(leaves), list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        backward = sum(_weigh(g, t) for g, t in zip(gradients, self._t.values(), strict=True))
        return float(forward), float(backward)

    def _weighted(self, leaves: Mapping[str, Tensor]) -> Tensor:
        outputs = dict(zip(self._point.function.outputs, self._point.run(leaves), strict=True))
        parts = [_weigh(c.to(outputs[name].dtype), outputs[name]) for name, c in self._c.items()]
        return torch.stack(parts).sum()

    def difference(self) -> float | None:
        """φ′(0), where both sides settle on the same; None where the function bends, jumps or ends here, or cannot be told."""
        sides = [self._side(1.0), self._side(-1.0)]
        if any(side is None for side in sides):
            return None
        (right, left) = [side for side in sides if side is not None]
        return (right + left) / 2 if _near(right, left, max(abs(right), abs(left))) else None

    def _side(self, sign: float) -> float | None:
        largest = max(
            float((t.abs() / scale_of(self._point.leaves[n]).clamp(min=1e-300)).max()) for n, t in self._t.items() if t.numel()
        )
        steps = [sign * _FIRST_STEP / (largest or 1.0) / 2**k for k in range(_STEPS)]
        try:
            with torch.no_grad():
                here = float(self._weighted({}))
                there = [float(self._weighted({n: self._point.leaves[n] + s * t for n, t in self._t.items()})) for s in steps]
        except REFUSALS:
            return None
        row = [(value - here) / s for value, s in zip(there, steps, strict=True)]
        if not all(map(math.isfinite, row)):
            return None
        doubt, best = math.inf, 0.0
        for order in range(1, _ORDERS + 1):
            doubt, best = min((doubt, best), *((abs(b - a), b) for a, b in pairwise(row)))
            row = [(2**order * b - a) / (2**order - 1) for a, b in pairwise(row)]
        return best if doubt <= _RESOLVED * max(abs(best), abs(here)) else None


def _weigh(a: Tensor, b: Tensor) -> Tensor:
    product = a.conj() * b
    return (product.real if product.is_complex() else product).sum()


def _near(a: float, b: float, scale: float) -> bool:
    return math.isfinite(a) and math.isfinite(b) and abs(a - b) <= 10 * _RESOLVED * scale


# Whether forward and reverse mode are near the difference → what is said, and of what; {0} is the difference, {1} the reverse kind.
_VERDICTS: Final = {
    (True, False): ("Differences along the tangent give {0:.6g}: `jvp` is right, and `{1}` is wrong.", "{1}"),
    (False, True): ("Differences along the tangent give {0:.6g}: `{1}` is right, and `jvp` is wrong.", "jvp"),
    (False, False): ("Differences along the tangent give {0:.6g}, which is neither.", "{1}"),
    (True, True): (
        "Differences along the tangent give {0:.6g} and do not tell which: only the digits that they share are right.",
        "{1}",
    ),
}


def _say(computation: Computation, reverse: str, pair: Pair, line: _Line) -> None:
    difference = line.difference()
    verdict, at = "Differences do not tell which is right: the function bends, jumps or ends here, or is too rough.", reverse
    if difference is not None:
        forward, backward = line.modes or pair
        scale = max(abs(difference), min(abs(forward), abs(backward)) if math.isfinite(forward + backward) else 0.0)
        near = _near(forward, difference, scale), _near(backward, difference, scale)
        verdict, at = (template.format(difference, reverse) for template in _VERDICTS[near])
    computation.notes.say(
        CODE,
        f"PyTorch's two modes contradict each other here: cotangent·jvp is {pair[0]:.12g}, {reverse}·tangent is {pair[1]:.12g}, and "
        f"they should be one number. {verdict}",
        at,
    )
