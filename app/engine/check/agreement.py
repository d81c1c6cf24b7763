"""Autodiff's derivative against finite differences, element by element or by a sample of them and random directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from app.engine.check.autodiff_faults import disagreement
from app.engine.check.conventions import may_read_a_triangle, mirrored, symmetric_agrees
from app.engine.check.domain_ends import look_at_ends
from app.engine.check.exact_differences import ExactDifferences, sides_differ
from app.engine.check.finite_differences import (
    DIRECTIONS,
    Budget,
    Coordinate,
    Differences,
    Numeric,
    coordinates_of,
    looks,
)
from app.engine.check.objective import Differentiated
from app.engine.stepwise.point import Point

# What autodiff and central differences may differ by, relative to the element itself. A settled central difference in float64 has an
# error of some eps^(2/3) = 4e-11 of the function's size (Nocedal & Wright, Numerical Optimization, 2nd ed., section 8.1); 1e-6 leaves
# room for functions some 10^4 times as large as their derivative, and a wrong formula is hardly ever right to six digits.
RELATIVE: Final = 1e-6
_RELATIVE_NARROW: Final = 5e-3  # the same where a step insists on float32: eps^(2/3) is 2.4e-5 there, with the same room
# A difference whose doubt is larger, relative to the element, says nothing: it could hide a factor of 1.05.
_ADRIFT: Final = 0.05
# Of an element that is zero beside its row's largest, a doubt of so much of the largest is enough.
_ZERO_BESIDE: Final = 1e-6
# What is nothing beside the outputs' own size where the derivative is zero: some 5000 roundings of float64.
_ZERO: Final = 1e-12
# An element is off by three times its doubt at most: the doubt is the gap between neighbouring steps, no strict bound.
_DOUBTS: Final = 3
_ASKED: Final = 48  # elements for which numbers of 60 digits are asked, the most doubtful first
# Of these in which they say what settled differences said: the others' are believed then; 4 to 32 give the same verdicts (measured).
_ENOUGH: Final = 8
_EXACT: Final = 1e-14  # a quotient of 60 digits, rounded to float64
_LEAST: Final = 5e-324  # the least float64 above zero: a derivative of 1e-310 has a tolerance of 1e-316
_SIDE: Final = 1e-3  # of the two sides' slopes, which are known to that: a kink's differ by more
# Of an element: a component that is smaller, and not zero, may lie nearer to a cut on the axis than the steps see.
_BESIDE: Final = 1e-8
WORST: Final = 5  # elements that are named in the answer


@dataclass(frozen=True, slots=True)
class Compared:
    """One input's derivatives, shape [rows, *input].

    Attributes:
        values: by differences; NaN where not computed, or where they do not settle.
        low, high: the one-sided derivatives at kinks where ours lies between them; NaN elsewhere.
        tolerance: what ours and `values` may differ by.
        contradicted: where they differ by more.
        agrees: None: nothing confirms ours, and nothing contradicts it.
        broken: there is no derivative, or directions see another one.
        whole: every element was compared.
        exact: some of `values` were computed in 60 digits.
        note: a convention by which they agree.
        steep: the range of the one-sided derivatives where ours is not finite, for one of them is infinite; NaN elsewhere.
        slope_jumps: what the slopes of the two sides differ by at kinks of a complex input, whose subgradients are no interval; zero elsewhere.
    """

    ours: Tensor
    values: Tensor
    low: Tensor
    high: Tensor
    tolerance: Tensor
    contradicted: Tensor
    agrees: bool | None
    broken: bool
    whole: bool
    exact: bool
    note: str | None
    slope_jumps: Tensor
    steep: tuple[Tensor, Tensor]

    @property
    def error(self) -> Tensor:
        """Between the two; zero where there is nothing to compare, and at kinks, where ours lies between the two sides."""
        apart = torch.where(torch.isnan(self.values.abs()) | ~torch.isnan(self.low), 0.0, (self.ours - self.values).abs())
        apart = torch.where(self.ours == self.values, 0.0, apart)  # both may be the same infinity, at the end of a domain
        return torch.where(torch.isfinite(self.ours.abs()) | (self.ours == self.values), apart, torch.inf)


def compare(
    objective: Differentiated,
    numeric: Numeric,
    name: str,
    ours: Tensor,
    believed: Tensor | None,
    budget: Budget,
    closer: Budget,
) -> Compared:
    """`ours` [rows, *input] against differences, element by element or by sample.

    Arguments:
        believed: the client's derivative, shape of `ours`: elements at which it is another are looked at first.
    """
    apart = None if believed is None else (believed - ours).abs().nan_to_num(torch.inf)
    leaf = objective.point.leaves[name]
    indices = coordinates_of(leaf)
    whole = budget.spend(2 * len(indices))
    columns = [] if apart is None else _columns_off(apart, ours)
    triangle = may_read_a_triangle(objective.point, leaf)
    if not whole:
        sample = _sample(ours, columns, leaf, budget.sampled)
        indices = coordinates_of(leaf, mirrored(leaf, sample)[: budget.sampled] if triangle else sample)
    differences = numeric.elements(name, indices)
    relative = RELATIVE if objective.point.wide else _RELATIVE_NARROW
    parts = _Parts(ours, objective.conjugate, relative, _floor(numeric, leaf))
    doubtful = parts.doubtful(indices, differences, set(columns))
    unseen = _look_closely(numeric, name, parts, differences, doubtful, closer)
    _decide(objective, name, parts, differences, doubtful[:_ASKED], apart)
    look_at_ends(numeric, name, parts.flat, doubtful[: len(doubtful) - len(unseen)], differences)
    (values, doubt, low, high), steep = parts.table(differences), parts.steep(differences, indices)
    tolerance = relative * ours.abs().nan_to_num(0, 0, 0) + parts.floors(differences) + _DOUBTS * doubt
    values = torch.where(adrift := low.isnan() & ~values.isnan() & (doubt > parts.bearable(values)), torch.nan, values)
    within = ~torch.isnan(steep[0]) | (torch.isnan(values.abs()) & torch.isfinite(ours.abs()))
    within |= ~(torch.isnan(low) | ours.isnan()) | (ours == values) | ((ours - values).abs() <= tolerance)
    is_half_read = triangle and not bool(within.all())
    note = symmetric_agrees(ours, values, RELATIVE * largest(ours) + parts.floor) if is_half_read else None
    if note is not None:
        values, within = torch.where(within, values, torch.nan), torch.ones_like(within)
    broken = (bool(adrift.any()) and _breaks(objective.point, name)) or not (
        whole or _directions(numeric, name, parts, triangle)
    )
    agrees: bool | None = bool(within.all()) and not broken
    if agrees and whole and note is None and ours.numel() and not _confirms(parts, values, low):
        agrees = None
    seen, exact, jumps = whole and not unseen, bool(differences.exact), parts.slope_jumps(leaf, differences)
    return Compared(ours, values, low, high, tolerance, ~within, agrees, broken, seen, exact, note, jumps, steep)


def _confirms(parts: _Parts, values: Tensor, low: Tensor) -> bool:
    """Whether a difference or a kink confirms some element that is not zero; where all are zero, any one."""
    seen = ~torch.isnan(values.abs()) | ~torch.isnan(low)
    return bool((seen & parts.telling).any() if bool(parts.telling.any()) else seen.any())


def _columns_off(apart: Tensor, ours: Tensor) -> list[int]:
    """The input's elements (flat) at which the client's numbers are another in any row."""
    is_off = ~(apart <= RELATIVE * ours.abs())
    columns: list[int] = is_off.reshape(len(ours), -1).any(0).nonzero().reshape(-1).tolist()
    return columns


def _look_closely(
    numeric: Numeric, name: str, parts: _Parts, differences: Differences, doubtful: Sequence[Coordinate], closer: Budget
) -> Sequence[Coordinate]:
    """Looks again at the doubtful places while the budget lasts; those that are left over, where a first difference is no verdict."""
    seen, unseen = looks(doubtful, closer)
    for coordinate in seen:
        numeric.closely(name, coordinate, differences)
    for coordinate in (coordinate for coordinate in unseen if parts.contradicts(coordinate, differences)):
        differences.value.pop(coordinate, None)
        if bool(torch.isinf(ours := parts.at(coordinate)).any()):  # not looked at: the others of its kind speak for it
            differences.steep[coordinate] = ours, ours
    return unseen


def _decide(
    objective: Differentiated,
    name: str,
    parts: _Parts,
    differences: Differences,
    seen: Sequence[Coordinate],
    apart: Tensor | None,
) -> None:
    """Asks numbers of 60 digits where those of float64 do not settle, say otherwise than autodiff, or tell it not from the client's.

    Arguments:
        apart: how far the client's numbers lie from ours, of the shape of both.
    """
    exact, confirmed = ExactDifferences(objective, name), 0
    for coordinate in seen:
        settled = coordinate in differences.value and parts.settled(coordinate, differences)
        has_sides = coordinate in differences.sides and coordinate not in differences.unclear
        tells = coordinate not in differences.sides and settled and not parts.contradicts(coordinate, differences)
        if coordinate in differences.steep and not bool(torch.isfinite(parts.at(coordinate)).all()):
            continue
        if has_sides or (tells and parts.parted(coordinate, differences, apart)):
            continue
        if settled and confirmed >= _ENOUGH:
            continue
        sides = exact.at(coordinate)
        if sides is None:
            continue
        left, right, rounding = (side.to(parts.flat.device) for side in sides)
        if not bool((torch.isfinite(left) & torch.isfinite(right) & torch.isfinite(rounding)).all()):
            continue  # what is added to exp(1e6) leaves no trace in 600 digits
        differences.exact.add(coordinate)
        if settled:
            allowed = _DOUBTS * differences.doubt[coordinate] + parts.relative * differences.value[coordinate].abs()
            confirmed += bool(((left + right) / 2 - differences.value[coordinate]).abs().le(allowed).all())
        differences.value[coordinate] = (left + right) / 2
        differences.doubt[coordinate] = _EXACT * (left.abs() + right.abs()) + rounding
        differences.sides.pop(coordinate, None)
        if bool(sides_differ(left, right).any()):
            differences.sides[coordinate] = (left, right)
    for coordinate in differences.unclear - differences.exact:
        # Noise looks like a bend too; the derivatives around the point show one that is.
        differences.sides.pop(coordinate, None)
    parts.drop_one_sided(objective.point.leaves[name], differences)


def _breaks(point: Point, name: str) -> bool:
    """Whether differences do not settle because there is no derivative, not because of rounding."""
    reason = disagreement(point, name)
    return reason is not None and reason["code"] == "singular"


def _floor(numeric: Numeric, leaf: Tensor) -> float:
    """What is nothing beside the outputs' own size: the tolerance where the derivative is zero."""
    return _ZERO * largest(numeric.size) / (largest(leaf) or 1.0)


def largest(tensor: Tensor) -> float:
    size = tensor.abs()
    finite = size[torch.isfinite(size)]
    return float(finite.max()) if finite.numel() else 0.0


def _sample(ours: Tensor, columns: Sequence[int], leaf: Tensor, count: int) -> list[int]:
    """Elements where the client's derivative is another, those where ours is largest, and random ones."""
    flat = ours.abs().reshape(len(ours), -1).sum(0)
    chosen = dict.fromkeys(columns[: count // 2])
    chosen |= dict.fromkeys(flat.topk(min(WORST, flat.numel())).indices.tolist())
    generator = torch.Generator().manual_seed(leaf.numel())
    chosen |= dict.fromkeys(torch.randperm(leaf.numel(), generator=generator, device="cpu")[:count].tolist())
    return [int(index) for index in chosen][:count]


class _Parts:
    """Our derivative as finite differences see it: the real and the imaginary part of each element apart."""

    def __init__(self, ours: Tensor, conjugate: bool, relative: float, floor: float) -> None:
        self._ours = ours
        plain = ours.conj().resolve_conj() if conjugate and ours.is_complex() else ours
        self.flat = plain.reshape(len(ours), -1)
        self.relative, self.floor = relative, floor
        self._conjugate = conjugate
        size = self.flat.abs().nan_to_num(0, 0, 0)
        self._row = size.amax(1) if size.numel() else size.sum(1)

    @property
    def telling(self) -> Tensor:
        """Elements whose confirmation says something of the whole: those that are not zero."""
        return (self._ours != 0) & torch.isfinite(self._ours.abs())

    def bearable(self, values: Tensor) -> Tensor:
        """What a difference's doubt may be to say something, shape of `values`."""
        size = torch.maximum(self._ours.abs(), values.abs()).nan_to_num(0, 0, 0)
        return self._bearable(self._ours, size, self._row.reshape(-1, *[1] * (self._ours.ndim - 1)))

    def settled(self, coordinate: Coordinate, differences: Differences) -> bool:
        ours, value, doubt = self.at(coordinate).abs(), differences.value[coordinate].abs(), differences.doubt[coordinate]
        return bool((doubt <= self._bearable(ours, torch.maximum(ours, value).nan_to_num(0, 0, 0), self._row)).all())

    def _bearable(self, ours: Tensor, size: Tensor, row: Tensor) -> Tensor:
        """A share of the element itself, and of its row where ours is zero."""
        zero = ours.abs().nan_to_num(0, 0, 0) <= _ZERO_BESIDE * _ZERO_BESIDE * row
        return torch.maximum(torch.where(zero, _ZERO_BESIDE * row + self.floor / _ZERO_BESIDE, 0.0), _ADRIFT * size)

    def parted(self, coordinate: Coordinate, differences: Differences, apart: Tensor | None) -> bool:
        """Whether what differences leave in doubt is less than what ours and the client's number are apart, where these are two."""
        if apart is None:
            return True
        column, doubt = apart.reshape(len(apart), -1)[:, coordinate[0]], differences.doubt[coordinate]
        # A value that does not move at all may have lost what moves, as a cross-entropy of 1e-23.
        is_open = (column <= doubt) | (differences.value[coordinate] == 0)
        return not bool((is_open & (column > self.relative * self.at(coordinate).abs())).any())

    def contradicts(self, coordinate: Coordinate, differences: Differences) -> bool:
        return self.off(coordinate, differences) > 1

    def doubtful(self, indices: Sequence[Coordinate], differences: Differences, suspects: set[int]) -> list[Coordinate]:
        """Places that deserve a closer look: contradictions first, then what the client has otherwise, kinks, and what does not settle."""
        ranked: list[tuple[float, float, Coordinate]] = []
        for coordinate in indices:
            off = self.off(coordinate, differences)
            rank = (
                0 if off > 1 and coordinate[0] in suspects else 1 if off > 1 else 2 if coordinate[0] in suspects
                else 3 if coordinate in differences.bent else 4 if not self.settled(coordinate, differences) else 5
            )  # fmt: skip
            if rank < 5:
                ranked.append((rank, -off, coordinate))
        return [coordinate for *_, coordinate in sorted(ranked)]

    def at(self, coordinate: Coordinate) -> Tensor:
        column = self.flat[:, coordinate[0]]
        if not column.is_complex():
            return column
        return column.imag if coordinate[1] else column.real

    def off(self, coordinate: Coordinate, differences: Differences) -> float:
        """How far the two are apart, in tolerances; infinite where there is no difference yet, or no derivative."""
        if coordinate not in differences.value:
            return math.inf
        ours = self.at(coordinate)
        floor = 0.0 if coordinate in differences.exact else self.floor
        allowed = self.relative * ours.abs() + floor + _DOUBTS * differences.doubt[coordinate]
        apart = float(((ours - differences.value[coordinate]).abs() / allowed.clamp(min=_LEAST)).max())
        return math.inf if math.isnan(apart) else apart

    def drop_one_sided(self, leaf: Tensor, differences: Differences) -> None:
        """Drops central differences of a complex input across an axis that lies nearer than any step, where ours is one of the sides.

        All steps from a number 1e-12 beside a branch cut see a kink at the cut, and ours is the derivative on this side of it.
        """
        for coordinate, (left, right) in differences.sides.items() if leaf.is_complex() else ():
            ours, value = self.at(coordinate), differences.value[coordinate]
            slack = _SIDE * (left.abs() + right.abs())
            is_side = ((ours - left).abs() <= slack) | ((ours - right).abs() <= slack)
            if _is_beside_an_axis(leaf, coordinate):
                differences.value[coordinate] = torch.where(is_side, torch.nan, value)

    def slope_jumps(self, leaf: Tensor, differences: Differences) -> Tensor:
        """What the slopes of the two sides along an axis differ by at kinks of a complex input, zero elsewhere; shape of ours, real."""
        slope_jumps = torch.zeros(self.flat.shape, dtype=self.flat.abs().dtype, device=self.flat.device)
        for coordinate, (left, right) in differences.sides.items() if leaf.is_complex() else ():
            apart = (left - right).abs()
            if not _is_beside_an_axis(leaf, coordinate):
                is_kink = apart > _SIDE * (left.abs() + right.abs())
                slope_jumps[:, coordinate[0]] = torch.maximum(slope_jumps[:, coordinate[0]], torch.where(is_kink, apart, 0.0))
        return slope_jumps.reshape(self._ours.shape)

    def steep(self, differences: Differences, sampled: Sequence[Coordinate]) -> tuple[Tensor, Tensor]:
        """The range of the one-sided derivatives where ours is not finite and one of them is infinite, shape of ours; NaN elsewhere."""
        low = torch.where(torch.isinf(self.flat) & (not self.flat.is_complex()), self.flat.real, torch.nan)
        low[:, [index for index, _ in sampled]] = torch.nan  # infinities outside the sample: those in it speak for them
        high = low.clone()
        for coordinate, (left, right) in differences.steep.items() if not self.flat.is_complex() else ():
            beside = ~torch.isfinite(self.at(coordinate))
            low[:, coordinate[0]] = torch.where(beside, torch.minimum(left, right), torch.nan)
            high[:, coordinate[0]] = torch.where(beside, torch.maximum(left, right), torch.nan)
        return low.reshape(self._ours.shape), high.reshape(self._ours.shape)

    def floors(self, differences: Differences) -> Tensor:
        """What is nothing beside the outputs, of the shape of ours; zero where numbers of 60 digits say what is there."""
        floors = torch.full(self.flat.shape, self.floor, dtype=self.flat.abs().dtype, device=self.flat.device)
        for index in (index for index, part in differences.exact if not part):
            floors[:, index] *= self.flat[:, index].isnan()  # NaN has no digits to ask for
        return floors.reshape(self._ours.shape)

    def table(self, differences: Differences) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
        for coordinate, (left, right) in differences.sides.items():
            if self.flat.is_complex():
                continue
            ours, (below, above) = self.at(coordinate), (torch.minimum(left, right), torch.maximum(left, right))
            slack = self.floor + self.relative * (below.abs() + above.abs())
            between = (ours.isnan() | ((ours >= below - slack) & (ours <= above + slack))) & (above - below > slack)
            low[:, coordinate[0]] = torch.where(between, below - slack, torch.nan)
            high[:, coordinate[0]] = torch.where(between, above + slack, torch.nan)
        if self._conjugate and values.is_complex():
            values = values.conj().resolve_conj()
        shape = self._ours.shape
        return values.reshape(shape), doubt.reshape(shape), low.reshape(shape), high.reshape(shape)


def _is_beside_an_axis(leaf: Tensor, coordinate: Coordinate) -> bool:
    """Whether the part of a complex number that is moved is smaller than any step, and not zero."""
    number = leaf.reshape(-1)[coordinate[0]]
    return 0 < abs(float(number.imag if coordinate[1] else number.real)) <= _BESIDE * float(number.abs())


def _directions(numeric: Numeric, name: str, parts: _Parts, symmetric: bool) -> bool:
    """Whether random directional derivatives agree: they see the elements that were not sampled. `symmetric`: or those along symmetric ones."""
    if symmetric and _directions(numeric, name, parts, False):
        return True
    for k in range(DIRECTIONS):
        seen = numeric.along(name, k, symmetric=symmetric)
        if seen is None:
            continue
        direction, value, doubt = seen
        product = parts.flat.conj() * direction.reshape(-1)
        ours = (product.real if product.is_complex() else product).sum(1)
        spread = float((parts.flat * direction.reshape(-1)).abs().square().sum().sqrt())
        if bool(((ours - value).abs() > 10 * parts.relative * spread + parts.floor + _DOUBTS * doubt).any()):
            return False
    return True
