"""Difference quotients along a line through a point, and where they settle as steps shrink: of many rows at once, or of one number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor

# Steps shrink by this factor from one level to the next: a quotient of a smooth function then gains 4 bits a level, until rounding takes over.
SHRINK: Final = 16.0
# A quotient and a derivative that differ by less, relative to the larger, are taken for the same: the quotient's own error at its best
# step is about sqrt(eps) = 1.5e-8 (Nocedal & Wright, Numerical Optimization, 2nd ed., section 8.1), and this leaves three digits of room
# for functions that are large beside their derivative.
SAME: Final = 1e-5
# The doubt is what finer levels differ by, no strict bound: room for that.
_DOUBTS: Final = 8.0
_ROUNDINGS: Final = 4.0  # roundings that two quotients may differ by
_GROWTH: Final = 2.0  # of a quotient from one step to the next, 2.2 times as small at least: that of a jump grows by as much
# A quotient that may be off by more than this share of what it is compared with says nothing.
_TELLING: Final = 0.05
CLEAN: Final = 1e-3  # of a change between two steps' quotients that rounding may be, for the change to say something
_CHANGES: Final = 6  # changes that tell a quotient that grows without bound: 4.5 decades
# Of one change to the next: those of log(h) are equal, those of h^-s grow, and those of what settles like h^(1/50) shrink to less.
_KEEPS: Final = 0.98
# Quotients that fall at least like the square root of the step tend to zero.
_FALLS: Final = 0.3

# The rows of a function where a line through its point has gone by t, and how far it really went, as numbers are rounded (signed as t
# is); None where refused.
Move: TypeAlias = Callable[[float], tuple[Tensor, float] | None]
# f(t) - f(0); NaN where f is not defined.
Rise: TypeAlias = Callable[[float], float]
# Of each row: the value of least doubt, that doubt, and the step it is of.
Settled: TypeAlias = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Quotients:
    """Of rows along a line, shape [steps, rows].

    Attributes:
        behind, ahead: of the two sides.
        central: over both; their error shrinks with the square of the step.
        down, up: how far either side really went, shape [steps].
    """

    behind: Tensor
    ahead: Tensor
    central: Tensor
    down: Tensor
    up: Tensor

    @property
    def steps(self) -> Tensor:
        return (self.up + self.down) / 2

    def noise(self, rounding: Tensor) -> Tensor:
        """What rounding does to each quotient, where it does so much to each row, shape [rows]."""
        return rounding / self.steps[:, None]

    def settled(self, rounding: Tensor) -> tuple[Settled, Settled, Settled]:
        """Where the left, the right and the central ones settle."""
        noise, steps = self.noise(rounding), self.steps
        return (
            settled(self.behind, noise, steps, 1),
            settled(self.ahead, noise, steps, 1),
            settled(self.central, noise, steps, 2),
        )


def quotients(move: Move, base: Tensor, steps: Sequence[float]) -> Quotients | None:
    """Over the steps that are not refused; None where all are.

    Arguments:
        base: the rows at the point.
    """
    pairs = [(right, left) for right, left in ((move(step), move(-step)) for step in steps) if right and left]
    if not pairs:
        return None
    right, left = (torch.stack([pair[side][0] for pair in pairs]) for side in (0, 1))
    up, down = (torch.tensor([abs(pair[side][1]) for pair in pairs], dtype=base.dtype, device=base.device) for side in (0, 1))
    behind, ahead = (base - left) / down[:, None], (right - base) / up[:, None]
    return Quotients(behind, ahead, (right - left) / (up + down)[:, None], down, up)


@dataclass(frozen=True, slots=True)
class OneSided:
    """A derivative from one side: what the quotients settle at, and by how much that may be off; NaN and infinity where they do not.

    Attributes:
        steady: the quotients stand still, fall, or are nothing beside rounding. Those of a bounded function that is too fast for the
            steps grow, and prove nothing against a large derivative.
    """

    value: float
    doubt: float
    steady: bool

    @property
    def settled(self) -> bool:
        """Whether the quotients stand still, and are known to a twentieth or tend to zero."""
        return self.steady and math.isfinite(self.doubt)

    def is_not(self, other: float) -> bool:
        """Whether this is surely another number than `other`; False where it cannot be told."""
        apart = abs(self.value - other)
        return (
            self.steady
            and self.doubt < _TELLING * apart
            and apart > SAME * max(abs(self.value), abs(other)) + _DOUBTS * self.doubt
        )

    def is_(self, other: float) -> bool:
        """Whether this is `other` as far as it can be told, and it can be told to a twentieth."""
        apart, size = abs(self.value - other), max(abs(self.value), abs(other))
        # What tends to zero cannot be told to a twentieth of itself, but it stands still, falls or is rounding; what runs away does not.
        is_telling = self.doubt <= _TELLING * size or (other == 0 and self.steady)
        return apart <= SAME * size + _DOUBTS * self.doubt and is_telling


_NOTHING: Final = OneSided(math.nan, math.inf, False)


@dataclass(frozen=True, slots=True)
class Sides:
    """The derivatives from both sides of a function along a line, and the limit of its central differences, which alone proves neither."""

    left: OneSided
    right: OneSided
    central: OneSided

    def per(self, unit: float) -> Sides:
        """The same, of an element that moves by `unit` where the line goes by 1."""
        return Sides(
            *(OneSided(side.value / unit, side.doubt / unit, side.steady) for side in (self.left, self.right, self.central))
        )

    @property
    def settled(self) -> bool:
        return math.isfinite(self.left.doubt) and math.isfinite(self.right.doubt)

    @property
    def differentiable(self) -> bool:
        """Whether both sides settle at one number."""
        return self.settled and not self.left.is_not(self.right.value) and not self.right.is_not(self.left.value)

    @property
    def value(self) -> float:
        """The most certain of them; zero where it cannot be told from zero."""
        best = min((self.left, self.right, self.central), key=lambda side: side.doubt)
        return 0.0 if abs(best.value) <= best.doubt else best.value

    def between(self, other: float) -> bool:
        """Whether `other` is one of them or lies between them: a subgradient."""
        low, high = sorted((self.left.value, self.right.value))
        return low <= other <= high or self.left.is_(other) or self.right.is_(other)

    def agree(self, other: float) -> bool | None:
        """Whether both are the derivative `other`; None where that cannot be told."""
        if self.left.is_not(other) or self.right.is_not(other):
            return False
        if self.left.is_(other) and self.right.is_(other):
            return True
        # The central differences of an even function are zero, also where both sides run away.
        is_even = other == 0 and not (self.left.steady and self.right.steady)
        return True if self.central.is_(other) and not is_even else None


UNSETTLED: Final = Sides(_NOTHING, _NOTHING, _NOTHING)


def steps_between(farthest: float, nearest: float) -> list[float]:
    """Shrinking steps from one to the other."""
    levels = max(3, round(math.log(farthest / nearest, SHRINK)) + 1)
    return [farthest * SHRINK**-k for k in range(levels)]


def sides(rise: Rise, noise: float, steps: Sequence[float]) -> Sides:
    """Looks along the line at shrinking steps.

    Arguments:
        noise: the rounding error of one `rise`.
    """

    def move(t: float) -> tuple[Tensor, float]:
        return torch.tensor([rise(t)], dtype=torch.float64), t

    lines = quotients(move, torch.zeros(1, dtype=torch.float64), steps)
    if lines is None:
        return UNSETTLED
    rounding = torch.tensor([noise], dtype=torch.float64)
    each: list[OneSided] = []
    columns = (lines.behind, lines.ahead, lines.central)
    for column, (value, doubt, level) in zip(columns, lines.settled(rounding), strict=True):
        last = int(level)
        is_steady = _is_steady(column[: last + 1, 0].tolist(), float(doubt), float(lines.noise(rounding)[last]))
        each.append(OneSided(float(value), float(doubt), is_steady) if math.isfinite(doubt) else _NOTHING)
    return Sides(*each)


def settled(quotients: Tensor, noise: Tensor, steps: Tensor, order: int) -> Settled:
    """Where quotients over shrinking steps, shape [steps, rows], settle.

    What a quotient may be off by is what the quotients of finer steps, and their extrapolations (Richardson), differ from it by beyond
    their noise: two coarse steps that agree by chance, as those of cos at 1e8, are not believed, nor is a plateau of coarse ones:
    x + sin(1e12 x) / 1e12 has the slope 1 there, and 2 where it is looked at closely.

    Arguments:
        noise: what rounding does to each quotient, shape [steps, rows] or [steps, 1].
        steps: shape [steps], two at least.
        order: of a quotient's error in its step: 1 of one side, 2 of central ones.
    """
    noise = noise.expand_as(quotients)
    power = ((steps[:-1] / steps[1:]) ** order)[:, None]
    better = quotients[1:] + (quotients[1:] - quotients[:-1]) / (power - 1)
    doubts, values = [], []
    for column, own in ((quotients, noise), (better, noise[1:] * (power + 1) / (power - 1))):
        level = torch.arange(len(column), device=column.device)  # compared: triu wakes every thread for these few
        finer = (level[:, None] <= level)[..., None]
        beyond = ((column[None] - column[:, None]).abs() - _ROUNDINGS * own).clamp(min=0)
        farther = torch.where(finer, beyond, 0.0).amax(1)[:-1]
        doubts.append(torch.where(torch.isfinite(farther), farther + own[:-1], torch.inf))
        values.append(column[:-1])
    doubt, at = torch.cat(doubts).min(0)
    plain = len(quotients) - 1
    return torch.cat(values).gather(0, at[None])[0], doubt, torch.where(at < plain, at, at - plain + 1)


def runs_away(quotients: Tensor) -> Tensor:
    """Rows whose quotients of one side, shape [steps, rows], grow as the step shrinks, to the last: a jump, and no bend."""
    sizes = quotients.nan_to_num().abs()
    return (sizes[1:] > _GROWTH * sizes[:-1]).all(0)


def unbounded(quotients: Sequence[float], noise: Sequence[float]) -> float | None:
    """The infinity that quotients over steps which shrink alike go to; None where they do not."""
    changes = [b - a for a, b in itertools.pairwise(quotients)]
    clean = [c for c, n in zip(changes, noise[1:], strict=True) if n <= CLEAN * abs(c)]
    last = clean[-_CHANGES:]
    if len(last) < _CHANGES or clean != changes[: len(clean)]:
        return None
    keeps = all(a * b > 0 and abs(b) >= _KEEPS * abs(a) for a, b in itertools.pairwise(last))
    return math.copysign(math.inf, last[-1]) if keeps else None


def _is_steady(quotients: Sequence[float], doubt: float, rounding: float) -> bool:
    last = [abs(q) for q in quotients[-3:]]
    falls = len(last) == 3 and last[2] < _FALLS * last[1] < _FALLS * _FALLS * last[0]
    return doubt <= _TELLING * last[-1] or falls or last[-1] <= _DOUBTS * rounding


_FINER: Final = 64.0  # the finer pair's step: a smooth function's gap closes by as much, and eight times says that it does


def confirms(rise: Rise, derivative: float, noise: float, step: float) -> bool:
    """Whether two pairs of points around the line's origin already show `derivative`, without a bend: four evaluations.

    Arguments:
        step: of the coarser pair.
    """
    gaps = []
    for h in (step, step / _FINER):
        right, left = rise(h) / h, -rise(-h) / h
        gaps.append(abs(right - left))
        rounding = 4 * noise / h
    close = abs((right + left) / 2 - derivative) <= SAME * abs(derivative) + rounding and rounding <= _TELLING * abs(derivative)
    if derivative == 0:
        # Nothing else is as certain, and the other steps will tell; nor is it where the finer pair cannot show whether a gap closes:
        # that of |x|, in one sum with 1e9.
        close = right == -left and (gaps[0] <= rounding / _FINER or rounding <= gaps[0] / 8)
    return close and gaps[1] <= max(gaps[0] / 8, SAME * abs(derivative) + rounding)
