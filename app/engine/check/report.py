"""Compares three derivatives: PyTorch's, that of finite differences, and the client's own (contract, section 4, `check`).

Knows tolerances and the verdict's JSON. Refuses to guess why they differ (`mistakes`).

Cost: at most 500 forwards for the differences and as many for a closer look, or 2 seconds of each; beyond that random directions and a
sample of the elements are checked, and `checked` says so.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from app.engine.check.autodiff_faults import disagreement
from app.engine.check.conventions import convention, symmetric_agrees
from app.engine.check.finite_differences import DIRECTIONS, SAMPLED, Budget, Differences, Numeric, Place, looks, places_of
from app.engine.check.hypotheses import Case, likely
from app.engine.check.objective import Objective, jacobian, weighted
from app.engine.explain.report import number
from app.engine.stepwise.point import REFUSALS, Point, widened
from app.engine.tensors import is_differentiable
from app.program.function import Function

_WORST: Final = 5
# What autodiff and central differences may differ by, relative to the largest element; and a derivation on paper or in float64.
_RELATIVE: Final = 1e-6
# A derivation computed in less than float64 (its dtype, or that of the inputs that it was made from).
_PRECISION: Final[Mapping[torch.dtype, float]] = {
    torch.float32: 1e-3, torch.complex64: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1, torch.complex32: 5e-2,
}  # fmt: skip
_ADRIFT: Final = 0.05  # a difference whose doubt is larger, relative to the derivative, says nothing
_KINKS: Final = 50
_FEWEST_DIGITS, _MOST_DIGITS = 3, 9  # numbers printed with so many decimals are taken as rounded


@dataclass(frozen=True, slots=True)
class Compared:
    """One input's derivatives, shape [rows, *input].

    Attributes:
        values: by finite differences; NaN where not computed.
        error: between the two; zero where not computed, and at kinks, where ours lies between the two sides.
        low, high: the one-sided derivatives at kinks where ours lies between them; NaN elsewhere.
        whole: every element was compared.
        note: a convention by which they agree.
    """

    ours: Tensor
    values: Tensor
    error: Tensor
    low: Tensor
    high: Tensor
    tolerance: float
    agrees: bool
    whole: bool
    note: str | None


def check(
    function: Function,
    leaves: Mapping[str, Tensor],
    wrt: Sequence[str],
    cotangents: Mapping[str, Tensor] | None,
    expected: Mapping[str, Tensor],
    of: str | None,
    kind: str,
    seed: int | None = None,
) -> dict[str, Any]:
    """Input → verdict, as JSON values.

    Arguments:
        leaves: the input tensors, those of `wrt` floating or complex; float32 is checked in float64.
        cotangents: output → tensor of its shape, or with one more leading axis; ones where left out. Unused by `jacobian`.
        expected: input → what the client believes the derivative to be, of any shape.
        of: the output that a gradient or Jacobian is of, where there are several.
        kind: `gradient`, `vjp` or `jacobian`.

    Raises:
        What PyTorch raises where the Function cannot be run or differentiated at these leaves.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ask = _Ask(tuple(wrt), cotangents, of, kind)
        objective = _objective(function, leaves, ask, seed)
        derivatives = objective.derivative()
        narrow = _narrow(function, leaves, ask, seed) if expected and objective.point.wide else {}
        numeric = Numeric(objective)
        budget, closer = Budget.of(objective), Budget.of(objective)
        told: dict[str, Any] = {}
        for name in wrt:
            belief = expected.get(name)
            compared = _numerically(objective, numeric, name, derivatives[name], belief, budget, closer)
            loose = _looseness(leaves, belief, derivatives[name], narrow.get(name))
            told[name] = _told(objective, name, compared, belief, loose)
        return told


@dataclass(frozen=True, slots=True)
class _Ask:
    wrt: tuple[str, ...]
    cotangents: Mapping[str, Tensor] | None
    of: str | None
    kind: str

    def objective(self, point: Point) -> Objective:
        if self.kind == "jacobian":
            return jacobian(point, self.wrt, self.of)
        return weighted(point, self.wrt, self.cotangents, self.of)


def _objective(function: Function, leaves: Mapping[str, Tensor], ask: _Ask, seed: int | None) -> Objective:
    """In float64; in the dtypes that were sent, where a step insists on them."""
    try:
        objective = ask.objective(Point(function, leaves, seed))
        objective.values({})
    except REFUSALS:
        objective = ask.objective(Point(function, leaves, seed, wide=False))
    return objective


def _narrow(function: Function, leaves: Mapping[str, Tensor], ask: _Ask, seed: int | None) -> dict[str, Tensor]:
    """The derivative in the dtypes that were sent, for what rounding alone does to it; empty where these are float64."""
    if all(leaf.dtype not in _PRECISION for leaf in leaves.values()):
        return {}
    found = ask.objective(Point(function, leaves, seed, wide=False)).derivative()
    return {name: widened(value) for name, value in found.items()}


# Against finite differences.


def _numerically(
    objective: Objective, numeric: Numeric, name: str, ours: Tensor, belief: Tensor | None, budget: Budget, closer: Budget
) -> Compared:
    """`ours` [rows, *input] against differences, element by element or by sample."""
    leaf = objective.point.leaves[name]
    places = places_of(leaf)
    whole = budget.spend(2 * len(places))
    if not whole:
        places = places_of(leaf, _sample(ours, belief, leaf))
    found = numeric.elements(name, places)
    tolerance = (_RELATIVE if objective.point.wide else 5e-3) * _largest(ours) + _floor(numeric, leaf)
    parts = _Parts(ours, objective.conjugate)
    doubtful = [place for place in places if place not in found.value or parts.off(place, found) > tolerance]
    doubtful.sort(key=lambda place: -parts.off(place, found))
    seen, unseen = looks(doubtful, closer)
    for place in seen:
        numeric.closely(name, place, found)
    for place in unseen:  # the first difference alone is no verdict
        found.value.pop(place, None)
    values, doubt, low, high = parts.table(found, tolerance)
    adrift = doubt > torch.clamp(_ADRIFT * values.abs(), min=_ADRIFT * _largest(ours) + 2 * tolerance)
    values = torch.where(adrift, torch.nan, values)
    skipped = (torch.isnan(values.abs()) & torch.isfinite(ours.abs())) | ~torch.isnan(low)
    error = torch.nan_to_num(torch.where(skipped, 0.0, (ours - values).abs()), torch.inf)
    within = torch.isfinite(error) & (error <= tolerance + 3 * doubt)
    note = None if bool(within.all()) else symmetric_agrees(objective.point, leaf, ours, values, tolerance)
    if note is not None:
        error, within = torch.zeros_like(error), torch.ones_like(within)
    broken = bool(adrift.any()) and _breaks(objective.point, name)
    agrees = bool(within.all()) and not broken and (whole or _directions(numeric, name, parts, tolerance))
    return Compared(ours, values, error, low, high, tolerance, agrees, whole and not unseen, note)


def _breaks(point: Point, name: str) -> bool:
    """Whether differences do not settle because there is no derivative, not because of rounding."""
    found = disagreement(point, name)
    return found is not None and found["code"] == "singular"


def _floor(numeric: Numeric, leaf: Tensor) -> float:
    """What is nothing beside the outputs' own size: the tolerance where the derivative is zero."""
    return 1e-12 * _largest(numeric.size) / max(_largest(leaf), 1e-12)


def _largest(tensor: Tensor) -> float:
    size = tensor.abs()
    finite = size[torch.isfinite(size)]
    return float(finite.max()) if finite.numel() else 0.0


def _sample(ours: Tensor, belief: Tensor | None, leaf: Tensor) -> list[int]:
    """The elements where the client's derivative is farthest from ours, those where ours is largest, and random ones."""
    flat = ours.abs().reshape(len(ours), -1).sum(0)
    chosen = dict.fromkeys(flat.topk(min(_WORST, flat.numel())).indices.tolist())
    if belief is not None and belief.numel() == ours.numel():
        apart = (belief.reshape(ours.shape).to(ours.dtype) - ours).abs().reshape(len(ours), -1).sum(0)
        chosen |= dict.fromkeys(apart.topk(min(_WORST, apart.numel())).indices.tolist())
    generator = torch.Generator().manual_seed(leaf.numel())
    chosen |= dict.fromkeys(torch.randperm(leaf.numel(), generator=generator)[:SAMPLED].tolist())
    return [int(index) for index in chosen][:SAMPLED]


class _Parts:
    """Our derivative as finite differences see it: the real and the imaginary part of each element apart."""

    def __init__(self, ours: Tensor, conjugate: bool) -> None:
        self._ours = ours
        plain = ours.conj().resolve_conj() if conjugate and ours.is_complex() else ours
        self.flat = plain.reshape(len(ours), -1)
        self._conjugate = conjugate

    def at(self, place: Place) -> Tensor:
        column = self.flat[:, place[0]]
        if not column.is_complex():
            return column
        return column.imag if place[1] else column.real

    def off(self, place: Place, found: Differences) -> float:
        """How far the two are apart; infinite where there is no difference yet, or no derivative."""
        if place not in found.value:
            return math.inf
        apart = float((self.at(place) - found.value[place]).abs().max())
        return math.inf if math.isnan(apart) else apart

    def table(self, found: Differences, tolerance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Numeric values, NaN where there are none; their doubt; and the two sides of a kink, where ours lies between them."""
        values = torch.full(self.flat.shape, torch.nan, dtype=self.flat.dtype, device=self.flat.device)
        doubt = torch.zeros(self.flat.shape, dtype=self.flat.abs().dtype, device=self.flat.device)
        low = torch.full(self.flat.shape, torch.nan, dtype=doubt.dtype, device=self.flat.device)
        high = low.clone()
        for (index, part), value in found.value.items():
            other = found.value.get((index, True)) if self.flat.is_complex() else None
            if part or (self.flat.is_complex() and other is None):
                continue
            values[:, index] = value if other is None else torch.complex(value, other)
            doubt[:, index] = found.doubt[(index, False)] + (found.doubt[(index, True)] if other is not None else 0)
        for place, (left, right) in found.sides.items():
            if self.flat.is_complex():
                continue
            ours, (below, above) = self.at(place), (torch.minimum(left, right), torch.maximum(left, right))
            slack = tolerance + 1e-6 * (below.abs() + above.abs())
            between = (ours >= below - slack) & (ours <= above + slack) & (above - below > slack)
            low[:, place[0]] = torch.where(between, below - slack, torch.nan)
            high[:, place[0]] = torch.where(between, above + slack, torch.nan)
        if self._conjugate and values.is_complex():
            values = values.conj().resolve_conj()
        shape = self._ours.shape
        return values.reshape(shape), doubt.reshape(shape), low.reshape(shape), high.reshape(shape)


def _directions(numeric: Numeric, name: str, parts: _Parts, tolerance: float) -> bool:
    """Whether random directional derivatives agree: they see the elements that were not sampled."""
    for k in range(DIRECTIONS):
        seen = numeric.along(name, k)
        if seen is None:
            continue
        direction, value, doubt = seen
        product = parts.flat.conj() * direction.reshape(-1)
        ours = (product.real if product.is_complex() else product).sum(1)
        spread = float((parts.flat * direction.reshape(-1)).abs().square().sum().sqrt())
        if bool(((ours - value).abs() > 10 * _RELATIVE * spread + tolerance + 3 * doubt).any()):
            return False
    return True


# Against what the client believes.


def _looseness(leaves: Mapping[str, Tensor], belief: Tensor | None, ours: Tensor, narrow: Tensor | None) -> float:
    """What a right derivation may be off by, relative to its largest element: by its precision, that of the inputs, its printed digits."""
    loose = max([_RELATIVE, *(_PRECISION.get(leaf.dtype, 0.0) for leaf in leaves.values())])
    if narrow is not None and narrow.shape == ours.shape and _largest(ours):
        loose = max(loose, 4 * _largest(narrow - ours) / _largest(ours))
    if belief is None or not belief.numel():
        return loose
    loose = max(loose, _PRECISION.get(belief.dtype, 0.0))
    if belief.dtype != torch.float64 or not _largest(belief):
        return loose
    digits = next(
        (d for d in range(_MOST_DIGITS) if torch.allclose(belief, (belief * 10**d).round() / 10**d, rtol=1e-12, atol=0)), None
    )
    if digits is not None and digits < _FEWEST_DIGITS:
        return loose  # plain numbers, meant as they stand
    if torch.equal(belief, belief.float().double()):
        loose = max(loose, 1e-4)  # computed in float32, sent as plain numbers
    half = 0.0 if digits is None else 0.51 * 10.0**-digits / _largest(belief)
    return max(loose, half) if half < 1e-3 else loose


def _told(objective: Objective, name: str, compared: Compared, belief: Tensor | None, loose: float) -> dict[str, Any]:
    shape = (*objective.lead, *objective.point.leaves[name].shape)
    ours, values, low, high, error = (
        t.reshape(shape) for t in (compared.ours, compared.values, compared.low, compared.high, compared.error)
    )
    kinks = ~torch.isnan(low)
    agrees, tolerance, claim = compared.agrees, compared.tolerance, None
    theirs: Tensor | None = None
    worst_error: float | None = float(error.max()) if error.numel() else 0.0
    if not agrees:
        claim = convention(objective.point) or disagreement(objective.point, name)
    if belief is not None and not objective.combined:
        wide = widened(belief if is_differentiable(belief.dtype) else belief.double())
        tolerance = max(tolerance, loose * _largest(ours))
        if wide.shape == ours.shape:
            theirs = wide
            apart = (ours - theirs).abs()
            apart = torch.where(_between(theirs, low, high) | (ours == theirs), 0.0, apart)
            error = torch.maximum(error, torch.nan_to_num(apart, torch.inf))
            worst_error = float(error.max()) if error.numel() else 0.0
            right = bool((torch.nan_to_num(apart, torch.inf) <= tolerance).all())
        else:
            right, worst_error = False, None
        if not right:
            claim = likely(Case(name, ours, wide, max(loose, 4 * _RELATIVE), objective)) or claim
        agrees = agrees and right
    told: dict[str, Any] = {
        "agrees": agrees,
        "max_error": None if worst_error is None else number(worst_error),
        "tolerance": tolerance,
        "worst": _worst(ours, values, theirs, error),
        "checked": "all" if compared.whole else "directions",
    }
    if belief is not None and theirs is None:
        told["shape"] = {"autodiff": list(shape), "expected": list(belief.shape)}
    if bool(kinks.any()):
        told["kinks"] = kinks.nonzero().tolist()[:_KINKS]
        told["note"] = (
            "At a kink the one-sided derivatives differ and every value between them is right; PyTorch takes one of these."
        )
    if compared.note is not None:
        told["note"] = compared.note
    if claim is not None:
        told["likely"] = claim
    return told


def _between(theirs: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where it is a subgradient like ours."""
    return torch.zeros_like(low, dtype=torch.bool) if theirs.is_complex() else (theirs >= low) & (theirs <= high)


def _worst(ours: Tensor, values: Tensor, theirs: Tensor | None, error: Tensor) -> list[dict[str, Any]]:
    flat = error.reshape(-1)
    known = ~torch.isnan(values.abs()).reshape(-1)
    telling = known | ~torch.isfinite(ours.abs()).reshape(-1)
    order = flat if theirs is not None else torch.where(telling, flat, -1.0)
    told = []
    for index in order.topk(min(_WORST, order.numel())).indices.tolist():
        place = [int(i) for i in torch.unravel_index(torch.tensor(index), ours.shape)] if ours.ndim else []
        entry: dict[str, Any] = {"index": place, "autodiff": number(ours.reshape(-1)[index].item())}
        if bool(known[index]):
            entry["numeric"] = number(values.reshape(-1)[index].item())
        if theirs is not None:
            entry["expected"] = number(theirs.reshape(-1)[index].item())
        told.append(entry)
    return told
