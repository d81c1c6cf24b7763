"""Finite differences of an Objective, element by element while that is affordable, along random directions beyond."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from app.engine.check.objective import Differentiated
from app.engine.precision.random_rounding import RandomRounding
from app.engine.stepwise.one_sided import random_like
from app.engine.stepwise.point import REFUSALS
from app.engine.stepwise.quotients import Move, Quotients, quotients, runs_away, settled, unbounded

EVALUATIONS: Final = 500  # forwards for all elements, and as many again for those that need a closer look
SECONDS: Final = 2.0  # what either of them may take
SAMPLED: Final = 24  # elements an input, where not all are affordable
_FEWEST: Final = 24  # forwards, however long they take: one element looked at closely, or twelve elements
# Random, of all elements together: one could hide a wrong element by chance; 1 to 16 give the same verdicts (measured).
DIRECTIONS: Final = 4
# Decades at most that steps go farther down for an element below the others: with 4 those of log at 1e-14 beside 1 do not settle any more,
# with none they settle at another number; 9 to 36 give the same verdicts (measured).
_FARTHER: Final = 9.0
_LEVELS: Final = 12  # steps tried where the first does not settle; 3 and 48 give the same verdicts (43 derivations measured)
_CLOSE: Final = 24  # elements looked at closely, at most
_KINK: Final = 1e-2  # of the two sides' slopes: a smooth function's differ by some 1e-5, so a thousand times that is a kink
# Under random rounding; the least of four errors is a quarter of a typical one, and eight of these are allowed for.
_RUNS: Final = 4
_CLEARLY: Final = 100.0  # the sides of abs and relu differ by 1e6 times their doubt and more
_LARGER: Final = 64.0  # times the eps of the arithmetic: no longer a matter of single bits, and still small
# Forwards, of which the quickest counts: the first reads code and memory, and others may wait for the machine.
_TIMED: Final = 3
# Two steps further, which are 30 times as small at least: the quotients of a bounded function grow by as much.
_TOO_FAST: Final = 8.0
_LAST_BITS: Final = 1e-4  # more than this of the row's size that the last bits of an element move is no rounding

_OF_PYTHON: Final = (torch.float64, torch.complex128)  # of the precision of Python's own numbers

Coordinate = tuple[int, bool]  # flat index of an element, and whether its imaginary part is moved


@dataclass
class Budget:
    """Forwards left: at most `EVALUATIONS`, and no more than fit in `SECONDS`; and elements of an input that are sampled."""

    left: int
    sampled: int = SAMPLED

    @classmethod
    def of(cls, objective: Differentiated) -> Budget:
        took = []
        for _ in range(_TIMED):
            begun = time.perf_counter()
            objective.values({})
            took.append(max(time.perf_counter() - begun, 1e-6))
            if took[-1] > SECONDS / SAMPLED:
                break
        left = max(_FEWEST, min(EVALUATIONS, int(SECONDS / min(took))))
        return cls(left, min(SAMPLED, left // 2))

    def spend(self, count: int) -> bool:
        self.left -= count
        return self.left >= 0


@dataclass
class Differences:
    """Numeric derivatives with respect to one input.

    Attributes:
        value: coordinate → derivative of every row, shape [rows], real (of the real or the imaginary part).
        doubt: coordinate → how far it may be off.
        sides: coordinate → one-sided derivatives (left, right), where they were found to differ: a kink.
        unclear: coordinates whose sides differ, but not by much more than they may be off: a tail that falls by half in a step looks so too.
        exact: coordinates whose values are quotients of numbers of 60 digits.
        steep: coordinate → one-sided derivatives (left, right) of rows in which one of them is infinite, NaN of others.
        bent: coordinates where the two sides of the first difference are not alike: a kink, or a strong curvature.
    """

    value: dict[Coordinate, Tensor] = field(default_factory=dict)
    doubt: dict[Coordinate, Tensor] = field(default_factory=dict)
    sides: dict[Coordinate, tuple[Tensor, Tensor]] = field(default_factory=dict)
    unclear: set[Coordinate] = field(default_factory=set)
    exact: set[Coordinate] = field(default_factory=set)
    bent: set[Coordinate] = field(default_factory=set)
    steep: dict[Coordinate, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Numeric:
    """Differences of `objective` around its point."""

    def __init__(self, objective: Differentiated) -> None:
        self._objective = objective
        self.base = objective.values({})
        self._eps = torch.finfo(self.base.dtype).eps
        self.size = torch.maximum(torch.nan_to_num(objective.size(), 0.0, 0.0, 0.0), self._unsure() / self._eps)
        self._step = self._eps ** (1 / 3)

    def has_values(self, name: str) -> Tensor:
        """Rows that are finite at the point, shape [rows, 1…] of as many axes as their derivative by the input."""
        return torch.isfinite(self.base).reshape(-1, *[1] * self.leaf(name).ndim)

    def is_infinite(self, name: str) -> Tensor:
        """Rows that are infinite there, of that shape."""
        return torch.isinf(self.base).reshape(-1, *[1] * self.leaf(name).ndim)

    def _unsure(self) -> Tensor:
        """What rounding within the steps leaves in doubt of every row, shape [rows]: much more than of its terms in cos(1e6 x).

        The least of some runs under random rounding: most of them flip a branch where the point lies on a jump. Roundings as large as they
        are here often change nothing, as a number near 6 is moved by less than half its last bit; larger ones are measured beside them.
        """
        unsure = torch.zeros_like(self.base.abs())
        begun = time.perf_counter()
        for times in (1.0, _LARGER):
            runs: list[Tensor] = []
            for number in range(_RUNS):
                if runs and time.perf_counter() - begun > SECONDS:
                    break
                try:
                    with RandomRounding(number, times * self._eps):
                        moved = self._objective.values({})
                except REFUSALS:
                    return torch.zeros_like(unsure)
                runs.append((moved - self.base).abs().nan_to_num(0.0, 0.0, 0.0) / times)
            unsure = torch.maximum(unsure, torch.stack(runs).amin(0))
        return unsure

    def elements(self, name: str, coordinates: Iterable[Coordinate]) -> Differences:
        """One central difference for each coordinate; those that PyTorch refuses are left out."""
        differences = Differences()
        for coordinate in coordinates:
            step = self._step * self._scale(name, coordinate)
            line = quotients(self._element(name, coordinate), self.base, [step])
            if line is None:
                continue
            differences.value[coordinate] = line.central[0]
            differences.doubt[coordinate] = 8 * self._eps * self.size / torch.minimum(line.up, line.down)
            ahead, behind = line.ahead[0], line.behind[0]
            slope_change = (ahead - behind).abs()
            # A smooth function's two sides differ by some 1e-5 of themselves at this step.
            if bool((slope_change > _KINK * (ahead.abs() + behind.abs()) + 4 * differences.doubt[coordinate]).any()):
                differences.bent.add(coordinate)
        return differences

    def closely(self, name: str, coordinate: Coordinate, differences: Differences) -> None:
        """Looks again, over many steps: the most settled central difference, or the two sides of a kink."""
        scale = self._scale(name, coordinate)
        own = self._least(name, coordinate)
        # What is much smaller than the others may be near the edge of a domain, or of a tie: steps go down to its own size.
        decades = self._digits + min(_FARTHER, math.log10(scale / own) if 0 < own < scale else 0.0)
        steps = [scale * 10.0 ** -(1 + k * decades / _LEVELS) for k in range(1, _LEVELS + 1)]
        line = quotients(self._element(name, coordinate), self.base, steps)
        if line is None or len(line.steps) < 3:
            return
        (l_at, l_doubt, _), (r_at, r_doubt, _), (value, doubt, _) = line.settled(
            rounding := self._rounding(name, coordinate, own)
        )
        doubt = torch.where(_is_too_fast(line.central, rounding / line.steps[:, None]), torch.inf, doubt)
        differences.value[coordinate], differences.doubt[coordinate] = value, doubt
        apart = (r_at - l_at).abs()
        infinite = [_infinities(side, rounding / line.steps[:, None]) for side in (line.behind, line.ahead)]
        if any(bool(torch.isinf(side).any()) for side in infinite):
            left, right = (torch.where(torch.isinf(side), side, at) for side, at in zip(infinite, (l_at, r_at), strict=True))
            is_steep = torch.isinf(left) | torch.isinf(right)
            differences.steep[coordinate] = torch.where(is_steep, left, torch.nan), torch.where(is_steep, right, torch.nan)
        kinks = apart > 1e-3 * (r_at.abs() + l_at.abs()) + 4 * (r_doubt + l_doubt)
        kinks &= ~_closes(line, rounding, apart)
        if bool(kinks.any()) and not bool((kinks & (runs_away(line.ahead) | runs_away(line.behind))).any()):
            differences.sides[coordinate] = (l_at, r_at)
            if bool((kinks & (apart < _CLEARLY * (r_doubt + l_doubt))).any()):
                differences.unclear.add(coordinate)

    def _rounding(self, name: str, coordinate: Coordinate, magnitude: float) -> Tensor:
        """The noise of every row's value, shape [rows]: 8 roundings of its terms, and what moving the element by its last bits does."""
        noise = self.noise
        bits = 4 * self._eps * magnitude
        sides = [self.moved(name, coordinate, by) for by in (bits, -bits)] if magnitude else []
        seen = [(side[0] - self.base).abs() for side in sides if side]
        if len(seen) < 2:
            return noise
        moved = torch.maximum(*seen)
        # A jump at the point is no noise.
        return noise + torch.minimum(torch.nan_to_num(moved, 0.0, 0.0, 0.0), _LAST_BITS * self.size)

    def along(self, name: str, number: int, *, symmetric: bool = False) -> tuple[Tensor, Tensor, Tensor] | None:
        """A random direction (shape of the input), the derivative of every row along it, and its doubt.

        None where the direction tells nothing: the function is refused, or bends along it.
        """
        leaf = self._objective.point.leaves[name]
        direction = random_like(leaf, 90 + number)
        direction = direction + direction.mH if symmetric else direction
        scale = float(leaf.abs().nan_to_num(0, 0, 0).mean()) or 1.0
        steps = [factor * self._step * scale for factor in (10, 1, 0.1)]
        line = quotients(lambda t: self._at({name: leaf + t * direction}, t), self.base, steps)
        if line is None or len(line.steps) < len(steps):
            return None
        gaps, noise = (line.ahead - line.behind).abs(), line.noise(self.noise)
        if bool(((gaps[1] > 0.5 * gaps[0]) & (gaps[2] > 0.5 * gaps[1]) & (gaps[2] > 4 * noise[2])).any()):
            return None
        value, doubt, _ = settled(line.central, noise, line.steps, 2)
        return direction, value, doubt

    @property
    def _digits(self) -> float:
        """Steps shrink over so many decades: 9 in float64, 4 in float32."""
        return 9.0 if self._eps < 1e-10 else 4.0

    def _scale(self, name: str, coordinate: Coordinate) -> float:
        leaf = self._objective.point.leaves[name]
        own = float(leaf.reshape(-1)[coordinate[0]].abs())
        typical = float(leaf.abs().nan_to_num(0, 0, 0).mean())
        scale = max(own, 0.1 * typical)
        return scale if 0 < scale < float("inf") else 1.0

    def _least(self, name: str, coordinate: Coordinate) -> float:
        """The size of the element; of a zero, that of the smallest other."""
        sizes = self._objective.point.leaves[name].abs().reshape(-1)
        own = float(sizes[coordinate[0]])
        others = sizes[(sizes > 0) & torch.isfinite(sizes)]
        return own or (float(others.min()) if others.numel() else 0.0)

    def _element(self, name: str, coordinate: Coordinate) -> Move:
        return lambda by: self.moved(name, coordinate, by)

    def leaf(self, name: str) -> Tensor:
        return self._objective.point.leaves[name]

    def last_bit(self, number: float) -> float:
        """The gap to the neighbours of a number, in the arithmetic of the rows."""
        return self._eps * 2.0 ** math.floor(math.log2(abs(number)))

    @property
    def noise(self) -> Tensor:
        """What rounding leaves in doubt of a difference of two values of every row, shape [rows]."""
        return 8 * self._eps * self.size

    def moved(self, name: str, coordinate: Coordinate, by: float) -> tuple[Tensor, float] | None:
        """The rows where one element is moved, and how far it really is: at 1e8 a step of 1e-6 is rounded by a hundredth.

        None where PyTorch refuses, or it does not move.
        """
        leaf = self.leaf(name)
        index, imaginary = coordinate
        flat = leaf.reshape(-1).clone()
        if leaf.dtype in _OF_PYTHON:
            # In Python's own numbers, which are rounded alike: four of PyTorch's small steps are half of what a small program takes.
            own = flat[index].item()
            number = own + (by * 1j if imaginary else by)
            by_really = number.imag - own.imag if imaginary else number.real - own.real
            flat[index] = number  # type: ignore[assignment]  # PyTorch's annotation lacks complex numbers
        else:
            flat[index] += by * 1j if imaginary else by
            change = flat[index] - leaf.reshape(-1)[index]
            by_really = float(change.imag if imaginary else change.real)
        return self._at({name: flat.reshape(leaf.shape)}, by_really) if by_really else None

    def _at(self, leaves: Mapping[str, Tensor], by: float) -> tuple[Tensor, float] | None:
        """The rows at other leaves, which are `by` from the point; None where PyTorch refuses."""
        try:
            return self._objective.values(leaves), by
        except REFUSALS:
            return None


def _closes(line: Quotients, rounding: Tensor, apart: Tensor) -> Tensor:
    """Rows whose two sides come nearer than half of `apart` at the finest step that still shows so much: curvature, and no kink.

    Coarser steps, of another regime, may be the only ones free of rounding: hardswish at 0, in one sum with 1e9.
    """
    gaps, shows = (line.ahead - line.behind).abs(), line.noise(rounding) <= apart / 4
    finest = torch.where(shows, torch.arange(len(gaps), device=gaps.device)[:, None], -1).amax(0)
    return (finest >= 0) & (gaps.gather(0, finest.clamp(min=0)[None])[0] < apart / 2)


def _is_too_fast(column: Tensor, noise: Tensor) -> Tensor:
    """Rows whose quotients still grow at the last steps, by no rounding: of a function that is too fast for them, as sin at 1e160."""
    sizes, noise = column.abs(), noise.expand_as(column)
    return (sizes[-1] > _TOO_FAST * sizes[-3]) & (sizes[-1] > _TOO_FAST * noise[-1])


def _infinities(column: Tensor, noise: Tensor) -> Tensor:
    """The infinity to which the quotients of each row go, shape [rows]; NaN where they do not."""
    infinite = torch.full_like(column[0], torch.nan)
    growing = (column[-1].abs() > column[0].abs()) & torch.isfinite(column).all(0)
    for row in growing.nonzero().reshape(-1).tolist():
        limit = unbounded(column[:, row].tolist(), noise.expand_as(column)[:, row].tolist())
        infinite[row] = torch.nan if limit is None else limit
    return infinite


def coordinates_of(leaf: Tensor, flat: Iterable[int] | None = None) -> list[Coordinate]:
    indices = range(leaf.numel()) if flat is None else flat
    return [(k, part) for k in indices for part in ((False, True) if leaf.is_complex() else (False,))]


def looks(coordinates: Sequence[Coordinate], budget: Budget) -> tuple[Sequence[Coordinate], Sequence[Coordinate]]:
    """Those that may be looked at closely, and the rest."""
    allowed = min(_CLOSE, max(0, budget.left) // (2 * _LEVELS))
    budget.spend(2 * _LEVELS * min(allowed, len(coordinates)))
    return coordinates[:allowed], coordinates[allowed:]
