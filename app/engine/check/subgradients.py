"""The derivatives that a function has around a kink: their convex hull is Clarke's subdifferential, and every value in it is right.

F. H. Clarke, Optimization and Nonsmooth Analysis (1983), theorem 2.5.1: the subdifferential is the hull of the limits of gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from app.engine.check.hulls import nearest
from app.engine.check.objective import Differentiated
from app.engine.stepwise.one_sided import random_like, scale_of
from app.engine.stepwise.point import REFUSALS

# Steps off the point, relative to an element: a smooth derivative changes by 1/256 as much at the second as at the first, that at a kink by
# as much. They are this small for arguments as large as 1e12, where sin has gone round at 2^-30 of it.
_STEPS: Final = (2.0**-40, 2.0**-48)
_PATTERNS: Final = (
    16  # random sides on which all elements are put at once, and their opposites; of five tied maxima each wins once in 97 %
)
# Further patterns that show no new bend, before none is expected; where they do show some, so many for each: of fifty tied medians each
# is the median in one of fifty, and is missed in 2 % of cases.
_QUIET, _EACH = 48, 4
_CONTINUOUS: Final = 8  # patterns, each with its opposite, in which a jump is looked for
_MOST_PATTERNS: Final = 320  # gradients, some 0.1 ms each
# A derivative that changes by less than this of itself does not bend.
_CHANGES: Final = 1e-3
_SETTLED: Final = 0.05  # of its range, by which the range of a kink may still change from one step to the next
_NOTHING: Final = 1e-11  # some 50,000 roundings
_STILL: Final = 1e-6  # what a gradient at another side of another element may change by, and not depend on it
_ALONE: Final = 24  # kinks that are moved one by one, to see which of them hang together
# Winners in whose place an element is put, as many as groups of ties; and derivatives for that, fewer where there are many elements.
_WINNERS, _EXCHANGES, _EXCHANGED_ELEMENTS = 32, 2048, 50_000_000
_BASES, _FARTHER = 3, 100.0  # other sides from which each is moved to its own other side, a hundred times as far
_CORNERS: Final = 96  # gradients of which a hull is made
_FEW: Final = 8  # kinks that hang together of which so many gradients show every corner: 8 tied maxima have 8
_PROVED_ROWS: Final = 8  # of a derivative: each has a hull of its own, of up to `_CORNERS` gradients; chosen
_REFINED: Final = 6  # times that a hull is refined towards a point outside it: that of a circle closes in quadratically
_HULL: Final = 1e-5  # a point of a hull is found to about six digits


@dataclass(frozen=True)
class Subgradients:
    """Around the point, of one input.

    Attributes:
        ours: the derivative at the point, shape [rows, *input].
        low, high: the range of each element's derivative, shape [rows, *input]; NaN where it does not bend.
        seen: derivatives around the point, shape [rows, *input] each.
        complete: new ones no longer bend elsewhere; else an element that does not bend in them may do so all the same, as each of many
            tied medians is the median only where half of the others lie below it.
        unsure: suspects that were not looked at by themselves, shape [rows, *input].
    """

    objective: Differentiated
    name: str
    ours: Tensor
    low: Tensor
    high: Tensor
    seen: tuple[Tensor, ...]
    complete: bool
    unsure: Tensor

    @cached_property
    def kinks(self) -> Tensor:
        return ~torch.isnan(self.low)

    def is_continuous(self, base: Tensor, rounding: Tensor) -> bool:
        """Whether the function moves no farther than its derivatives say: else it jumps, and what lies around are other pieces' derivatives.

        Arguments:
            base: its rows at the point, shape [rows].
            rounding: of each row, shape [rows].
        """
        largest = torch.stack([self.ours, *self.seen]).abs().nan_to_num(0, 0, 0).amax(0)
        for number in range(200, 200 + _CONTINUOUS):
            by = _STEPS[0] * scale_of(self._leaf) * _sides(self._leaf, number)
            try:
                moved = self.objective.values({self.name: self._leaf + by})
            except REFUSALS:
                return False
            allowed = 2 * (largest * by.abs()).reshape(len(base), -1).sum(1) + rounding
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

    def is_of_few(self) -> bool:
        """Whether every derivative around was seen, so that what is no mixture of them is none of any."""
        few = bool((self.kinks.reshape(len(self.kinks), -1).sum(1) <= _FEW).all())
        return self.complete and few and len(self.kinks) <= _PROVED_ROWS

    def proves(self, expected: Tensor, *, with_ours: bool = True) -> bool:
        """Whether `expected` as a whole is a mixture of derivatives around the point, found by going where it differs from a mixture.

        Arguments:
            with_ours: the derivative at the point is one of them.
        """
        if len(expected) > _PROVED_ROWS or not bool(torch.isfinite(expected).all() & torch.isfinite(self.ours).all()):
            return False
        return all(self._mixture(row, target, with_ours) for row, target in enumerate(expected.reshape(len(expected), -1)))

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

    def excludes(self, expected: Tensor, others: Tensor) -> bool | None:
        """Whether elements that are each in their range are no subgradient together; None where that cannot be told.

        (1, 1) at a tie of two maxima is none: one of them wins, and the derivatives of the two add up to 1.

        Arguments:
            others: elements at which differences see a kink.
        """
        columns = (self.kinks | others).reshape(len(expected), -1).any(0).nonzero().reshape(-1).tolist()
        if len(columns) < 2 or self._separable(columns):
            return False
        if len(columns) > _ALONE:
            return None
        verdicts = [self._outside(group, expected) for group in self._groups(columns)]
        return True if True in verdicts else None if None in verdicts else False

    def _separable(self, columns: list[int]) -> bool:
        """Whether the derivative at each kink depends only on its own side, as for relu of each element."""
        signs, gradients = [], []
        for k in range(_PATTERNS):
            sides = _sides(self._leaf, 200 + k).reshape(-1)
            gradient = self._near(sides)
            if gradient is None:
                return False
            signs.append(sides[columns])
            gradients.append(gradient[:, columns])
        up = torch.stack(signs)[:, None, :] > 0
        values = torch.stack(gradients)
        size = values.abs().amax(0)
        for side in (up, ~up):
            high = torch.where(side, values, -torch.inf).amax(0)
            low = torch.where(side, values, torch.inf).amin(0)
            if bool(((high - low) > _STILL * size).any()):
                return False
        return True

    def _groups(self, columns: list[int]) -> list[list[int]]:
        """Kinks that hang together: moving one changes the derivative at the other."""
        groups = [{column} for column in columns]
        for number in range(_BASES):
            sides = _sides(self._leaf, 400 + number).reshape(-1)
            here = self._near(sides)
            for column in columns:
                moved = sides.clone()
                moved[column] *= -_FARTHER
                gradient = self._near(moved)
                if gradient is None or here is None:
                    return [columns]
                size = torch.maximum(gradient.abs(), here.abs())
                changed = ((gradient - here).abs() > _CHANGES * size).any(0)
                together = {c for c in columns if bool(changed[c])} | {column}
                joined = set[int]().union(*(g for g in groups if g & together))
                groups = [g for g in groups if not g & together] + [joined]
        return [sorted(group) for group in groups]

    def _outside(self, group: list[int], expected: Tensor) -> bool | None:

        corners = [
            corner
            for k in range(_CORNERS)
            if (corner := self._corner(_sides(self._leaf, 300 + k).reshape(-1), group)) is not None
        ]
        if not corners:
            return None
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
                    return True if len(group) <= _FEW else None
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
        gradient = _gradient_near(self.objective, self.name, sides.reshape(self._leaf.shape), _STEPS[0])
        return None if gradient is None else gradient.reshape(len(gradient), -1)


def subgradients(
    objective: Differentiated, name: str, ours: Tensor, size_of_rows: Tensor, suspects: Tensor
) -> Subgradients | None:
    """What the derivatives around the point are; None where there is no kink, or none can be had. 32 derivatives.

    Arguments:
        ours: the derivative at the point, shape [rows, *input].
        size_of_rows: what the rounding of each row is to be measured by, shape [rows].
        suspects: elements of which it matters most whether they bend, shape of `ours`: each is looked at by itself.
    """
    leaf = objective.point.leaves[name]
    if leaf.is_complex() or not objective.point.wide or not leaf.numel():
        return None
    of_steps, ranges = [], []
    for step in _STEPS:
        gradients = [_gradient_near(objective, name, _sides(leaf, 200 + k), step) for k in range(_PATTERNS)]
        of_steps.append([ours if gradient is None else gradient for gradient in gradients])
        stack = torch.stack([g for g in gradients if g is not None] or [ours])
        finite = torch.isfinite(stack)
        ranges.append((torch.where(finite, stack, torch.inf).amin(0), torch.where(finite, stack, -torch.inf).amax(0)))
    (low_c, high_c), (low, high) = ranges
    least = size_of_rows.reshape(-1, *[1] * leaf.ndim) / scale_of(leaf).clamp(min=1e-300) * _NOTHING
    settled = (low - low_c).abs() + (high - high_c).abs() < _SETTLED * (high - low)
    # At a kink the same sides give the same derivative at either step; that of a function which goes round within these steps is another.
    apart = (torch.stack(of_steps[0]) - torch.stack(of_steps[1])).abs().nan_to_num(torch.inf, torch.inf)
    settled &= apart.median(0).values <= _SETTLED * (high - low)
    at_first = _has_kinks(low, high, least)
    around = _Around(objective, name, low, high, at_first & settled, least, [g for g in gradients if g is not None])
    complete = around.look_on(at_first)
    unsure = around.exchange(torch.stack(of_steps[0]), suspects & ~around.bent)
    if not bool(around.bent.any()):
        return None
    low, high = (torch.where(around.bent, side, torch.nan) for side in (around.low, around.high))
    return Subgradients(objective, name, ours, low, high, tuple(around.seen), complete, unsure)


@dataclass
class _Around:
    """What has been seen so far, `low` and `high` of every element; `bent` where these are more than rounding."""

    objective: Differentiated
    name: str
    low: Tensor
    high: Tensor
    bent: Tensor
    least: Tensor
    seen: list[Tensor]

    def look_on(self, bent_at_first: Tensor) -> bool:
        """Tries further patterns while they show new bends; whether no more are expected."""
        leaf, number, quiet, enough = self.objective.point.leaves[self.name], _PATTERNS, 0, _QUIET
        while quiet < enough and number < _MOST_PATTERNS and not bool(self.bent.all()) and bool(self.bent.any()):
            if self.look(_sides(leaf, 200 + number)) is None:
                break
            number, quiet = number + 1, quiet + 1
            more = _has_kinks(self.low, self.high, self.least) & ~bent_at_first & ~self.bent
            if bool(more.any()):
                quiet, self.bent = 0, self.bent | more
                enough = max(_QUIET, _EACH * int(self.bent.sum()))
        return quiet >= enough or bool(self.bent.all())

    def look(self, sides: Tensor) -> tuple[Tensor, Tensor] | None:
        """The derivative on these sides, and where it is the same at either step; None where it cannot be had."""
        coarse, fine = (_gradient_near(self.objective, self.name, sides, step) for step in _STEPS)
        if coarse is None or fine is None:
            return None
        alike = torch.isfinite(fine) & ((fine - coarse).abs() <= _CHANGES * fine.abs())
        self.low = torch.where(alike, torch.minimum(self.low, fine), self.low)
        self.high = torch.where(alike, torch.maximum(self.high, fine), self.high)
        self.seen.append(fine)
        return fine, alike

    def exchange(self, patterns: Tensor, suspects: Tensor) -> Tensor:
        """Looks at each of `suspects` [rows, *input] in the place of an element that wins a tie; those left over, of that shape.

        Of many tied medians each is the median only where half of the others lie below it, which chance shows of few. But two tied
        elements that change places change derivatives.

        Arguments:
            patterns: derivatives at the first sides, at the coarser step, shape [patterns, rows, *input].
        """
        flat = self.objective.point.leaves[self.name].reshape(-1)
        columns = suspects.reshape(len(suspects), -1).any(0).nonzero().reshape(-1)
        bases = self._bases(patterns) if len(columns) else []
        # Those that look least like a tie first: one that is none has to be known as such.
        alike = torch.isin(flat[columns], flat[[winner for winner, *_ in bases]])
        left = max(_WINNERS, min(_EXCHANGES, _EXCHANGED_ELEMENTS // flat.numel()))
        unsure = torch.zeros(len(suspects), flat.numel(), dtype=torch.bool, device=flat.device)
        for column in columns[alike.long().argsort(stable=True)].tolist() if bases else ():
            unsure[:, column] = left <= 0
            for base in sorted(bases, key=lambda base: bool(flat[base[0]] != flat[column])) if left > 0 else ():
                left -= 1
                if self._has_kink_in_place(column, *base):
                    break
        return unsure.reshape(suspects.shape) & suspects

    def _bases(self, patterns: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """Winners of ties, the rarest first, each with sides [elements] on which it alone lies between all others, and the derivative there."""
        leaf = self.objective.point.leaves[self.name]
        usual = patterns.median(0).values
        away = (patterns - usual).abs().nan_to_num(0, 0, 0)
        wins = (away > torch.maximum(self.least, _CHANGES * patterns.abs().amax(0))).any(1).reshape(len(patterns), -1)
        at = int(wins.any(1).int().argmax())
        winners, often = wins[at].nonzero().reshape(-1), wins.sum(0)
        moved = (_sides(leaf, 200 + at) * scale_of(leaf)).reshape(-1)
        bases = []
        for winner in winners[often[winners].argsort(stable=True)][:_WINNERS].tolist():
            # In the same order, but so far apart that rounding leaves no two of them together; none at the point, where PyTorch may be wrong.
            sides = (moved - moved[winner]).sign()
            sides[winner] = 0.5
            known = self.look(sides.reshape(leaf.shape))
            if known is not None and self._note_kink(winner, self._apart(known[0], usual), known[1]):
                bases.append((winner, sides, known[0]))
        return bases

    def _has_kink_in_place(self, column: int, winner: int, sides: Tensor, base: Tensor) -> bool:
        """Whether the derivative by element `column` is another than `base` where it stands in the place of `winner`."""
        exchanged = sides.clone()
        exchanged[winner], exchanged[column] = sides[column], sides[winner]
        exchanged = exchanged.reshape(base.shape[1:])
        near = _gradient_near(self.objective, self.name, exchanged, _STEPS[0])
        if near is None or not bool(self._apart(near, base)[:, column].any()):
            return False
        known = self.look(exchanged)
        if known is None:
            return False
        return self._note_kink(column, self._apart(known[0], base), known[1])

    def _note_kink(self, column: int, apart: Tensor, alike: Tensor) -> bool:
        """Notes in which rows element `column` bends, `apart` shape [rows, elements]; whether in any."""
        kinks = (apart & alike.reshape(apart.shape))[:, column]
        self.bent.view(len(kinks), -1)[:, column] |= kinks
        return bool(kinks.any())

    def _apart(self, one: Tensor, other: Tensor) -> Tensor:
        """Where two derivatives differ by more than rounding, shape [rows, elements]."""
        return _has_kinks(torch.minimum(one, other), torch.maximum(one, other), self.least).reshape(len(one), -1)


def _sides(leaf: Tensor, number: int) -> Tensor:
    """Random signs, with magnitudes over two decades, so that one kink is often much nearer than another."""
    sides = random_like(leaf, number // 2)
    sign = -1.0 if number % 2 else 1.0  # each and its opposite, so that every element is on both sides
    return sign * sides.sign() * torch.pow(10.0, 2 * (sides.abs() - 1))


def _gradient_near(objective: Differentiated, name: str, sides: Tensor, step: float) -> Tensor | None:
    leaf = objective.point.leaves[name]
    try:
        return objective.derivative({name: leaf + step * scale_of(leaf) * sides})[name]
    except REFUSALS:
        return None


def _has_kinks(low: Tensor, high: Tensor, least: Tensor) -> Tensor:
    """Where a range is more than rounding: `least` is nothing of the function itself over its input."""
    spread, size = high - low, torch.maximum(low.abs(), high.abs()).nan_to_num(0, 0, 0)
    return torch.isfinite(spread) & (spread > _CHANGES * size) & (spread > torch.clamp(least, min=1e-9 * float(size.max())))
