"""Autodiff's derivative against finite differences, element by element or by a sample of them and random directions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from app.engine.check.autodiff_faults import disagreement
from app.engine.check.conventions import symmetric_agrees
from app.engine.check.finite_differences import DIRECTIONS, SAMPLED, Budget, Differences, Numeric, Place, looks, places_of
from app.engine.check.objective import Objective
from app.engine.stepwise.point import Point

# What autodiff and central differences may differ by, relative to the largest element. A settled central difference in float64 has an
# error of some eps^(2/3) = 4e-11 of the function's size (Nocedal & Wright, Numerical Optimization, 2nd ed., section 8.1); 1e-6 leaves
# room for functions some 10^4 times as large as their derivative, and a wrong formula is hardly ever right to six digits.
RELATIVE: Final = 1e-6
# The same where a step insists on float32: eps^(2/3) is 2.4e-5 there, with the same room.
_RELATIVE_NARROW: Final = 5e-3
# A difference whose doubt is larger, relative to the derivative, says nothing: it could hide a factor of 1.05.
_ADRIFT: Final = 0.05
# What is nothing beside the outputs' own size where the derivative is zero: some 5000 roundings of float64.
_ZERO: Final = 1e-12
# An element is off by three times its doubt at most: the doubt is the gap between neighbouring steps, no strict bound.
_DOUBTS: Final = 3
WORST: Final = 5  # elements that are named in the answer


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


def compare(
    objective: Objective, numeric: Numeric, name: str, ours: Tensor, expected: Tensor | None, budget: Budget, closer: Budget
) -> Compared:
    """`ours` [rows, *input] against differences, element by element or by sample."""
    leaf = objective.point.leaves[name]
    places = places_of(leaf)
    whole = budget.spend(2 * len(places))
    if not whole:
        places = places_of(leaf, _sample(ours, expected, leaf))
    differences = numeric.elements(name, places)
    tolerance = (RELATIVE if objective.point.wide else _RELATIVE_NARROW) * largest(ours) + _floor(numeric, leaf)
    parts = _Parts(ours, objective.conjugate)
    doubtful = [place for place in places if place not in differences.value or parts.off(place, differences) > tolerance]
    doubtful.sort(key=lambda place: -parts.off(place, differences))
    seen, unseen = looks(doubtful, closer)
    for place in seen:
        numeric.closely(name, place, differences)
    for place in unseen:  # the first difference alone is no verdict
        differences.value.pop(place, None)
    values, doubt, low, high = parts.table(differences, tolerance)
    adrift = doubt > torch.clamp(_ADRIFT * values.abs(), min=_ADRIFT * largest(ours) + 2 * tolerance)
    values = torch.where(adrift, torch.nan, values)
    skipped = (torch.isnan(values.abs()) & torch.isfinite(ours.abs())) | ~torch.isnan(low)
    error = torch.nan_to_num(torch.where(skipped, 0.0, (ours - values).abs()), torch.inf)
    within = torch.isfinite(error) & (error <= tolerance + _DOUBTS * doubt)
    note = None if bool(within.all()) else symmetric_agrees(objective.point, leaf, ours, values, tolerance)
    if note is not None:
        error, within = torch.zeros_like(error), torch.ones_like(within)
    broken = bool(adrift.any()) and _breaks(objective.point, name)
    agrees = bool(within.all()) and not broken and (whole or _directions(numeric, name, parts, tolerance))
    return Compared(ours, values, error, low, high, tolerance, agrees, whole and not unseen, note)


def _breaks(point: Point, name: str) -> bool:
    """Whether differences do not settle because there is no derivative, not because of rounding."""
    reason = disagreement(point, name)
    return reason is not None and reason["code"] == "singular"


def _floor(numeric: Numeric, leaf: Tensor) -> float:
    """What is nothing beside the outputs' own size: the tolerance where the derivative is zero."""
    return _ZERO * largest(numeric.size) / max(largest(leaf), _ZERO)


def largest(tensor: Tensor) -> float:
    size = tensor.abs()
    finite = size[torch.isfinite(size)]
    return float(finite.max()) if finite.numel() else 0.0


def _sample(ours: Tensor, expected: Tensor | None, leaf: Tensor) -> list[int]:
    """The elements where the client's derivative is farthest from ours, those where ours is largest, and random ones."""
    flat = ours.abs().reshape(len(ours), -1).sum(0)
    chosen = dict.fromkeys(flat.topk(min(WORST, flat.numel())).indices.tolist())
    if expected is not None and expected.numel() == ours.numel():
        apart = (expected.reshape(ours.shape).to(ours.dtype) - ours).abs().reshape(len(ours), -1).sum(0)
        chosen |= dict.fromkeys(apart.topk(min(WORST, apart.numel())).indices.tolist())
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

    def off(self, place: Place, differences: Differences) -> float:
        """How far the two are apart; infinite where there is no difference yet, or no derivative."""
        if place not in differences.value:
            return math.inf
        apart = float((self.at(place) - differences.value[place]).abs().max())
        return math.inf if math.isnan(apart) else apart

    def table(self, differences: Differences, tolerance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Numeric values, NaN where there are none; their doubt; and the two sides of a kink, where ours lies between them."""
        values = torch.full(self.flat.shape, torch.nan, dtype=self.flat.dtype, device=self.flat.device)
        doubt = torch.zeros(self.flat.shape, dtype=self.flat.abs().dtype, device=self.flat.device)
        low = torch.full(self.flat.shape, torch.nan, dtype=doubt.dtype, device=self.flat.device)
        high = low.clone()
        for (index, part), value in differences.value.items():
            other = differences.value.get((index, True)) if self.flat.is_complex() else None
            if part or (self.flat.is_complex() and other is None):
                continue
            values[:, index] = value if other is None else torch.complex(value, other)
            doubt[:, index] = differences.doubt[(index, False)] + (differences.doubt[(index, True)] if other is not None else 0)
        for place, (left, right) in differences.sides.items():
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
        if bool(((ours - value).abs() > 10 * RELATIVE * spread + tolerance + _DOUBTS * doubt).any()):
            return False
    return True
