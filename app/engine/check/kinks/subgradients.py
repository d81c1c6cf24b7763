"""The derivatives that a function has around a kink: their convex hull is Clarke's subdifferential, and every value in it is right.

F. H. Clarke, Optimization and Nonsmooth Analysis (1983), theorem 2.5.1: the subdifferential is the hull of the limits of gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Final

import torch
from torch import Tensor

from app.engine.check.kinks.exchanges import Exchange
from app.engine.check.kinks.hulls import nearest
from app.engine.check.kinks.surroundings import (
    CHANGES,
    FIRST,
    PATTERNS,
    STEERED,
    STEPS,
    Surroundings,
    gradient_near,
    has_kinks,
    median_of,
    sides_of,
    steered_sides,
)
from app.engine.check.objective import Differentiated
from app.engine.stepwise.one_sided import scale_of
from app.engine.stepwise.point import REFUSALS

_FRESH: Final = 500  # the number of the first of further patterns, on whose sides a direction is tried
# Groups of tied elements, the largest first, that are moved together; 4 and 16 give the same verdicts (9 ties measured).
_TIES: Final = 8
_OFF: Final = 1e-3  # of a product's terms: a hundred times what a point of a hull is found to
# Patterns, each with its opposite, in which a jump is looked for; 2 and 32 give the same verdicts (43 derivations measured).
_CONTINUOUS: Final = 8
_SETTLED: Final = 0.05  # of its range, by which the range of a kink may still change from one step to the next
_NOTHING: Final = 1e-11  # some 50,000 roundings
_STILL: Final = 1e-6  # what a gradient at another side of another element may change by, and not depend on it
_ALONE: Final = 24  # kinks that are moved one by one, to see which of them hang together; 6 and 96 give the same (43 measured)
_BASES, _FARTHER = 3, 100.0  # other sides from which each is moved to its own other side, a hundred times as far
_CORNERS: Final = 96  # gradients of which a hull is made
_FEW: Final = 8  # kinks that hang together of which so many gradients show every corner: 8 tied maxima have 8
_OFTEN: Final = 4  # times that each corner was come to, on average: else some may not have been seen, as of 720 orders of six
# All on one side of the point, farther than they lie apart: the largest of twenty lies below it on one random side in a million.
_SHIFTS: Final = (2.0, -2.0)
# Patterns that are shifted along each direction, and the part of the corners' that is; half and twice as many give the same verdicts (measured
# of 9 ties and 3).
_SHIFTED, _EACH_SHIFT = 2, 8
_RANKS: Final = 4  # tied elements of which each takes each place in so many patterns, but for one tie in a thousand
# Of a derivative: each has a hull of its own, of up to `_CORNERS` gradients; 4 and 16 give the same verdicts (8 kinks measured).
_PROVED_ROWS: Final = 8
_REFINED: Final = 6  # times that a hull is refined towards a point outside it: that of a circle closes in quadratically
_HULL: Final = 1e-5  # a point of a hull is found to about six digits


@dataclass(frozen=True)
class Subgradients:
    """Around the point, of one input.

    Attributes:
        ours: the derivative at the point, shape [rows, *input].
        low, high: the range of each element's derivative, shape [rows, *input]; NaN where it does not bend.
        patterns: the derivative on each of the first random sides, shape [rows, *input]; none where one of them could not be had.
        seen: derivatives around the point, shape [rows, *input] each; of large inputs some of them.
        is_exhaustive: `seen` are all that were computed.
        largest: the largest magnitude of each element of them and of `ours`, shape [rows, *input].
        complete: new ones no longer bend elsewhere; else an element that does not bend in them may do so all the same, as each of many
            tied medians is the median only where half of the others lie below it.
        unsure: suspects that were not looked at by themselves, shape [rows, *input].
        exchange: the largest tie, where its elements can change places.
        hidden: some bend shows only where all elements lie on one side, so that chance tells neither all corners nor what hangs together.
    """

    objective: Differentiated
    name: str
    ours: Tensor
    low: Tensor
    high: Tensor
    patterns: tuple[Tensor, ...]
    seen: tuple[Tensor, ...]
    is_exhaustive: bool
    largest: Tensor
    complete: bool
    unsure: Tensor
    exchange: Exchange | None
    hidden: bool

    @cached_property
    def kinks(self) -> Tensor:
        return ~torch.isnan(self.low)

    def is_continuous(self, base: Tensor, rounding: Tensor) -> bool:
        """Whether the function moves no farther than its derivatives say: else it jumps, and what lies around are other pieces' derivatives.

        Arguments:
            base: its rows at the point, shape [rows].
            rounding: of each row, shape [rows].
        """
        for number in range(FIRST, FIRST + _CONTINUOUS):
            by = STEPS[0] * scale_of(self._leaf) * sides_of(self._leaf, number)
            try:
                moved = self.objective.values({self.name: self._leaf + by})
            except REFUSALS:
                return False
            allowed = 2 * (self.largest * by.abs()).reshape(len(base), -1).sum(1) + rounding
            if not bool(((moved - base).abs() <= allowed).all()):
                return False
        return True

    def contains(self, expected: Tensor) -> Tensor:
        """Elements of `expected` [rows, *input] that are in the range of their own kink."""
        slack = _HULL * (self.low.abs() + self.high.abs()).nan_to_num(0, 0, 0)
        return self.kinks & (expected >= self.low - slack) & (expected <= self.high + slack)

    def leaves_open(self, expected: Tensor) -> Tensor:
        """Elements of `expected` [rows, *input] that a tie may explain though it was not seen: in the range of all kinks of their row."""
        rows = [side.reshape(len(expected), -1) for side in (self.low.nan_to_num(torch.inf), self.high.nan_to_num(-torch.inf))]
        low, high = (
            side.reshape(-1, *[1] * (expected.ndim - 1))
            for side in (rows[0].amin(1).clamp(max=0), rows[1].amax(1).clamp(min=0))
        )
        slack = _HULL * (high - low)
        incomplete = torch.full_like(self.kinks, not self.complete) & self.kinks
        return (self.unsure | incomplete) & (expected >= low - slack) & (expected <= high + slack)

    def is_range_known(self) -> bool:
        """Whether the whole range of each kink was seen: it depends on its own side, or few are tied."""
        columns = self.kinks.reshape(len(self.kinks), -1).any(0).nonzero().reshape(-1).tolist()
        few = len(columns) <= _RANKS or self._separable(columns)
        return self.complete and self.is_exhaustive and few and len(self.kinks) <= _PROVED_ROWS

    def proves(self, expected: Tensor, *, with_ours: bool = True) -> bool:
        """Whether `expected` as a whole is a mixture of derivatives around the point, found by going where it differs from a mixture.

        Arguments:
            with_ours: the derivative at the point is one of them.
        """
        if len(expected) > _PROVED_ROWS or not bool(torch.isfinite(expected).all() & torch.isfinite(self.ours).all()):
            return False
        rows = expected.reshape(len(expected), -1)
        return all(self._of_exchange(row, target) or self._mixture(row, target, with_ours) for row, target in enumerate(rows))

    def _of_exchange(self, row: int, target: Tensor) -> bool | None:
        return None if self.exchange is None else self.exchange.contains(row, target, torch.zeros_like(target))

    @cached_property
    def _different(self) -> tuple[Tensor, ...]:
        return torch.unique(torch.stack(self.seen), dim=0).unbind() if self.seen else ()

    def _mixture(self, row: int, target: Tensor, with_ours: bool) -> bool:
        known = [self.ours] if with_ours else []
        known += [gradient for gradient in self._different if bool(torch.isfinite(gradient).all())][:_CORNERS]
        if not known:
            return False
        points = [gradient.reshape(len(gradient), -1)[row] for gradient in known]
        residual, distance = nearest(torch.stack(points), target)
        for _ in range(_REFINED):
            if distance <= _HULL:
                break
            # The derivative that lies farthest towards it, were the function convex (or, the other way, concave).
            for side in (1.0, -1.0):
                gradient = self._near(side * residual / residual.abs().max().clamp(min=1e-300))
                points += [] if gradient is None or not bool(torch.isfinite(gradient[row]).all()) else [gradient[row]]
            residual, distance = nearest(torch.stack(points), target)
        return distance <= _HULL

    def excludes(self, expected: Tensor, others: Tensor, doubt: Tensor) -> bool | None:
        """Whether elements that are each in their range are no subgradient together; None where that cannot be told.

        (1, 1) at a tie of two maxima is none: one of them wins, and the derivatives of the two add up to 1.

        Arguments:
            others: elements at which differences see a kink.
            doubt: what each element of `expected` may be off by, of its shape.
        """
        columns = (self.kinks | others).reshape(len(expected), -1).any(0).nonzero().reshape(-1).tolist()
        if len(columns) < 2 or self._separable(columns):
            return False
        if self.off_the_plane(expected, doubt):
            return True
        if self.exchange is not None:
            rows = zip(expected.reshape(len(expected), -1), doubt.reshape(len(doubt), -1), strict=True)
            contained = [self.exchange.contains(row, *pair) for row, pair in enumerate(rows)]
            if False in contained or None not in contained:
                return False in contained
        if len(columns) > _ALONE:
            return None
        verdicts = [self._outside(group, expected) for group in self._groups(columns)]
        return True if True in verdicts else None if None in verdicts else False

    def off_the_plane(self, expected: Tensor, doubt: Tensor) -> bool:
        """Whether some row of `expected` has another product with a direction in which all derivatives around have the same one.

        Tied elements that move together stay tied, and so do all where they grow alike: of n tied medians the derivatives add up to 1,
        whichever is the median.
        """
        leaf = self._leaf.reshape(-1)
        values, counts = torch.unique(leaf, return_counts=True)
        tied = values[counts > 1][counts[counts > 1].argsort(descending=True)][:_TIES]
        directions = torch.stack([torch.ones_like(leaf), leaf, *((leaf == value).to(leaf.dtype) for value in tied)])
        rows = len(expected)
        of_each: list[
            tuple[Tensor, Tensor]
        ] = []  # products, and of the magnitudes: a gradient at a time, for each may be large
        sides = [sides_of(self._leaf, _FRESH + k).reshape(-1) for k in range(PATTERNS)]
        sides += [side + shift * along.sign() for side in sides[:_SHIFTED] for shift in _SHIFTS for along in directions]
        fresh = (self._near(each) for each in sides)
        for gradient in chain(self.seen, fresh):
            if gradient is None:
                return False
            if bool(torch.isfinite(gradient).all()):
                flat = gradient.reshape(rows, -1)
                of_each.append((flat @ directions.T, flat.abs() @ directions.abs().T))
        if not of_each:
            return False
        products, believed = torch.stack([product for product, _ in of_each]), expected.reshape(rows, -1) @ directions.T
        size = torch.stack([size for _, size in of_each]).amax(0)
        low, high = products.amin(0), products.amax(0)
        allowed = _OFF * size + doubt.reshape(rows, -1) @ directions.abs().T
        is_the_same = (high - low <= _STILL * size) & (size > 0)
        return bool((is_the_same & (torch.maximum(low - believed, believed - high) > allowed)).any())

    def _separable(self, columns: list[int]) -> bool:
        """Whether the derivative at each kink depends only on its own side, as for relu of each element."""
        if not self.patterns or self.hidden:
            return False
        up = torch.stack([sides_of(self._leaf, FIRST + k).reshape(-1)[columns] for k in range(PATTERNS)])[:, None, :] > 0
        values = torch.stack([gradient.reshape(len(gradient), -1)[:, columns] for gradient in self.patterns])
        size = values.abs().amax(0)
        for side in (up, ~up):
            high = torch.where(side, values, -torch.inf).amax(0)
            low = torch.where(side, values, torch.inf).amin(0)
            if bool(((high - low) > _STILL * size).any()):
                return False
        return True

    def _groups(self, columns: list[int]) -> list[list[int]]:
        """Kinks that hang together: moving one changes the derivative at the other."""
        if self.hidden:
            return [columns]
        groups = [{column} for column in columns]
        for number in range(_BASES):
            sides = sides_of(self._leaf, 400 + number).reshape(-1)
            here = self._near(sides)
            for column in columns:
                moved = sides.clone()
                moved[column] *= -_FARTHER
                gradient = self._near(moved)
                if gradient is None or here is None:
                    return [columns]
                size = torch.maximum(gradient.abs(), here.abs())
                changed = ((gradient - here).abs() > CHANGES * size).any(0)
                together = {c for c in columns if bool(changed[c])} | {column}
                joined = set[int]().union(*(g for g in groups if g & together))
                groups = [g for g in groups if not g & together] + [joined]
        return [sorted(group) for group in groups]

    def _outside(self, group: list[int], expected: Tensor) -> bool | None:
        """Whether `expected` lies outside the hull at the kinks `group`; None where some of its corners may not have been seen."""
        sides = [sides_of(self._leaf, 300 + k).reshape(-1) for k in range(_CORNERS)]
        sides += [side + shift for side in sides[: len(sides) // _EACH_SHIFT] for shift in _SHIFTS]
        corners = [corner for each in sides if (corner := self._corner(each, group)) is not None]
        if not corners:
            return None
        corners += [gradient.reshape(len(gradient), -1)[:, group] for gradient in self.seen if self.hidden]
        # All directions of a plane are seen densely; with more, each corner has to be seen again and again.
        different = len(torch.unique(torch.stack(corners), dim=0))
        is_seen_often = len(group) <= 2 or different <= len(corners) // _OFTEN
        # One for each element, and the flat side, and ties of two: each was looked at by itself.
        are_all_seen = is_seen_often and (len(group) <= _FEW or (self.hidden and different <= 2 * len(group)))
        believed = expected.reshape(len(expected), -1)[:, group]
        for row in range(len(believed)):
            points = [corner[row] for corner in corners]
            for _ in range(_REFINED):
                residual, distance = nearest(torch.stack(points), believed[row])
                if distance <= _HULL:
                    break
                # The corner that lies farthest towards it, were the function convex (or, the other way, concave).
                for side in (1.0, -1.0):
                    moved = torch.zeros(self._leaf.numel(), dtype=torch.float64, device=self._leaf.device)
                    moved[group] = side * residual
                    corner = self._corner(moved, group)
                    points += [] if corner is None else [corner[row]]
            else:
                if distance > 100 * _HULL:
                    return True if are_all_seen else None
        return False

    def _corner(self, sides: Tensor, group: list[int]) -> Tensor | None:
        """The derivatives at the kinks `group` where only these are moved, shape [rows, kinks]."""
        moved = torch.zeros_like(sides)
        moved[group] = sides[group]
        gradient = self._near(moved)
        return None if gradient is None else gradient[:, group]

    @property
    def _leaf(self) -> Tensor:
        return self.objective.point.leaves[self.name]

    def _near(self, sides: Tensor) -> Tensor | None:
        gradient = gradient_near(self.objective, self.name, sides.reshape(self._leaf.shape), STEPS[0])
        return None if gradient is None else gradient.reshape(len(gradient), -1)


def subgradients(
    objective: Differentiated,
    name: str,
    ours: Tensor,
    size_of_rows: Tensor,
    suspects: Tensor,
    believed: Tensor | None = None,
) -> Subgradients | None:
    """What the derivatives around the point are; None where there is no kink, or none can be had. 40 derivatives.

    Arguments:
        ours: the derivative at the point, shape [rows, *input].
        size_of_rows: what the rounding of each row is to be measured by, shape [rows].
        suspects: elements of which it matters most whether they bend, shape of `ours`: each is looked at by itself.
        believed: the client's derivative, shape of `ours`: on whose side of ours there may be another one.
    """
    leaf = objective.point.leaves[name]
    if leaf.is_complex() or not objective.point.wide or not leaf.numel():
        return None
    toward = None if believed is None else (believed - ours).nan_to_num(0, 0, 0).sum(0)
    around, gradients, coarse, at_first, hidden = _at_first_sides(objective, name, ours, size_of_rows, toward)
    if hidden:
        around.look_at_each()
    exchange = around.widen_at_tie(ours)
    # What is looked at by itself first leaves fewer bends to chance.
    unsure = around.exchange(coarse, suspects & ~around.bent)
    complete = around.look_on(at_first)
    if not bool(around.bent.any()):
        return None
    low, high = (torch.where(around.bent, side, torch.nan) for side in (around.low, around.high))
    patterns = () if any(gradient is None for gradient in gradients) else tuple(around.seen[:PATTERNS])
    seen = tuple(around.seen)
    of_tie = complete, unsure, exchange, hidden
    return Subgradients(objective, name, ours, low, high, patterns, seen, around.is_exhaustive, around.largest, *of_tie)


def _at_first_sides(
    objective: Differentiated, name: str, ours: Tensor, size_of_rows: Tensor, toward: Tensor | None
) -> tuple[Surroundings, Sequence[Tensor | None], Sequence[Tensor], Tensor, bool]:
    """What is seen on the first sides, and the derivatives on the random ones of them, at the finer step and at the coarser.

    And elements that bend, settled or not; and whether some bend shows on steered sides alone.
    """
    leaf = objective.point.leaves[name]
    of_steps, ranges = [], []
    for step in STEPS:
        gradients = [gradient_near(objective, name, sides_of(leaf, FIRST + k), step) for k in range(PATTERNS)]
        steered = [gradient_near(objective, name, steered_sides(leaf, FIRST + k, toward=toward), step) for k in range(STEERED)]
        of_steps.append([ours if gradient is None else gradient for gradient in gradients])
        ranges.append(_range([g for g in (*gradients, *steered) if g is not None] or [ours]))
    (low_c, high_c), (low, high) = ranges
    least = size_of_rows.reshape(-1, *[1] * leaf.ndim) / scale_of(leaf).clamp(min=1e-300) * _NOTHING
    settled = (low - low_c).abs() + (high - high_c).abs() < _SETTLED * (high - low)
    # At a kink the same sides give the same derivative at either step; that of a function which goes round within these steps is another.
    apart = median_of(lambda coarse, fine: (coarse - fine).abs().nan_to_num(torch.inf, torch.inf), *of_steps)
    settled &= apart <= _SETTLED * (high - low)
    at_first = has_kinks(low, high, least)
    around = Surroundings(objective, name, low, high, at_first & settled, least, ours.abs().nan_to_num(0, 0, 0), toward)
    for gradient in (*gradients, *steered):
        if gradient is not None:
            around.keep(gradient)
    plain = _range([gradient for gradient in gradients if gradient is not None] or [ours])
    hidden = bool((at_first & ~has_kinks(*plain, least)).any())
    return around, gradients, of_steps[0], at_first, hidden


def _range(gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The least and the largest finite number of each element; ∞ and -∞ where it has none."""
    low, high = torch.full_like(gradients[0], torch.inf), torch.full_like(gradients[0], -torch.inf)
    for gradient in gradients:  # not stacked: each may be large
        finite = torch.isfinite(gradient)
        low = torch.where(finite, torch.minimum(low, gradient), low)
        high = torch.where(finite, torch.maximum(high, gradient), high)
    return low, high
