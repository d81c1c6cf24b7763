"""Finite differences of an Objective, element by element while that is affordable, along random directions beyond."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from app.engine.check.objective import Objective
from app.engine.stepwise.one_sided import random_like
from app.engine.stepwise.point import REFUSALS

EVALUATIONS: Final = 500  # forwards for all elements, and as many again for those that need a closer look
SECONDS: Final = 2.0  # what either of them may take
SAMPLED: Final = 24  # elements an input, where not all are affordable
DIRECTIONS: Final = 4
_FARTHER: Final = 9.0
_LEVELS: Final = 12  # steps tried where the first does not settle
_CLOSE: Final = 24  # elements looked at closely, at most

Place = tuple[int, bool]  # flat index of an element, and whether its imaginary part is moved


@dataclass
class Budget:
    """Forwards left: at most `EVALUATIONS`, and no more than fit in `SECONDS`."""

    left: int

    @classmethod
    def of(cls, objective: Objective) -> Budget:
        begun = time.perf_counter()
        objective.values({})
        took = max(time.perf_counter() - begun, 1e-6)
        return cls(max(2 * SAMPLED, min(EVALUATIONS, int(SECONDS / took))))

    def spend(self, count: int) -> bool:
        self.left -= count
        return self.left >= 0


@dataclass
class Differences:
    """Numeric derivatives with respect to one input.

    Attributes:
        value: place → derivative of every row, shape [rows], real (of the real or the imaginary part).
        doubt: place → how far it may be off.
        sides: place → one-sided derivatives (left, right), where they were found to differ: a kink.
        whole: all elements are there.
    """

    value: dict[Place, Tensor] = field(default_factory=dict)
    doubt: dict[Place, Tensor] = field(default_factory=dict)
    sides: dict[Place, tuple[Tensor, Tensor]] = field(default_factory=dict)
    whole: bool = True


class Numeric:
    """Differences of `objective` around its point."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.base = objective.values({})
        self.size = torch.nan_to_num(objective.size(), 0.0, 0.0, 0.0)
        self._eps = torch.finfo(self.base.dtype).eps
        self._step = self._eps ** (1 / 3)

    def elements(self, name: str, places: Iterable[Place]) -> Differences:
        """One central difference for each place; those that PyTorch refuses are left out."""
        differences = Differences()
        for place in places:
            scale = self._scale(name, place)
            sides = self._sides(name, place, self._step * scale)
            if sides is None:
                continue
            right, left = sides
            differences.value[place] = (right - left) / (2 * self._step * scale)
            differences.doubt[place] = 8 * self._eps * self.size / (self._step * scale)
        return differences

    def closely(self, name: str, place: Place, differences: Differences) -> None:
        """Looks again, over many steps: the most settled central difference, or the two sides of a kink."""
        scale = self._scale(name, place)
        own = float(self._objective.point.leaves[name].reshape(-1)[place[0]].abs())
        # An element much smaller than the others may be near the edge of a domain: steps go down to its own size.
        decades = self._digits + min(_FARTHER, math.log10(scale / own) if 0 < own < scale else 0.0)
        steps = [scale * 10.0 ** -(1 + k * decades / _LEVELS) for k in range(1, _LEVELS + 1)]
        central, right, left = [], [], []
        for step in steps:
            sides = self._sides(name, place, step)
            bad = torch.full_like(self.base, torch.nan)
            plus, minus = (bad, bad) if sides is None else sides
            central.append((plus - minus) / (2 * step))
            right.append((plus - self.base) / step)
            left.append((self.base - minus) / step)
        noise = torch.stack([8 * self._eps * self.size / step for step in steps])
        c, r, w = torch.stack(central), torch.stack(right), torch.stack(left)
        best, at = _settled(c, noise)
        differences.value[place], differences.doubt[place] = at, best
        r_doubt, r_at = _settled(r, noise)
        l_doubt, l_at = _settled(w, noise)
        apart = (r_at - l_at).abs()
        if bool((apart > 1e-3 * (r_at.abs() + l_at.abs()) + 4 * (r_doubt + l_doubt)).any()):
            differences.sides[place] = (l_at, r_at)

    def along(self, name: str, number: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """A random direction (shape of the input), the derivative of every row along it, and its doubt.

        None where the direction tells nothing: the function is refused, or bends along it.
        """
        leaf = self._objective.point.leaves[name]
        direction = random_like(leaf, 90 + number)
        scale = float(leaf.abs().nan_to_num(0, 0, 0).mean()) or 1.0
        tries, gaps = [], []
        steps = [factor * self._step * scale for factor in (10, 1, 0.1)]
        for step in steps:
            pair = self._pair({name: leaf + step * direction}, {name: leaf - step * direction})
            if pair is None:
                return None
            tries.append((pair[0] - pair[1]) / (2 * step))
            gaps.append(((pair[0] - self.base) - (self.base - pair[1])).abs() / step)
        noise = torch.stack([8 * self._eps * self.size / step for step in steps])
        if bool(((gaps[1] > 0.5 * gaps[0]) & (gaps[2] > 0.5 * gaps[1]) & (gaps[2] > 4 * noise[2])).any()):
            return None
        doubt, value = _settled(torch.stack(tries), noise)
        return direction, value, doubt

    @property
    def _digits(self) -> float:
        """Steps shrink over so many decades: 9 in float64, 4 in float32."""
        return 9.0 if self._eps < 1e-10 else 4.0

    def _scale(self, name: str, place: Place) -> float:
        leaf = self._objective.point.leaves[name]
        own = float(leaf.reshape(-1)[place[0]].abs())
        typical = float(leaf.abs().nan_to_num(0, 0, 0).mean())
        scale = max(own, 0.1 * typical)
        return scale if 0 < scale < float("inf") else 1.0

    def _sides(self, name: str, place: Place, step: float) -> tuple[Tensor, Tensor] | None:
        leaf = self._objective.point.leaves[name]
        moved = []
        for by in (step, -step):
            flat = leaf.clone().reshape(-1)
            flat[place[0]] += by * 1j if place[1] else by
            moved.append(flat.reshape(leaf.shape))
        return self._pair({name: moved[0]}, {name: moved[1]})

    def _pair(self, plus: Mapping[str, Tensor], minus: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        try:
            right, left = self._objective.values(plus), self._objective.values(minus)
        except REFUSALS:
            return None
        return right, left


def _settled(tries: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Of differences over shrinking steps, shape [steps, rows]: for each row the least doubt, and the value where it is."""
    doubt = (tries[1:] - tries[:-1]).abs() + noise[1:]
    doubt = torch.where(torch.isfinite(doubt), doubt, torch.inf)
    best, at = doubt.min(0)
    return best, tries[1:].gather(0, at[None])[0]


def places_of(leaf: Tensor, flat: Iterable[int] | None = None) -> list[Place]:
    indices = range(leaf.numel()) if flat is None else flat
    return [(k, part) for k in indices for part in ((False, True) if leaf.is_complex() else (False,))]


def looks(places: Sequence[Place], budget: Budget) -> tuple[Sequence[Place], Sequence[Place]]:
    """Those that may be looked at closely, and the rest."""
    allowed = min(_CLOSE, max(0, budget.left) // (2 * _LEVELS))
    budget.spend(2 * _LEVELS * min(allowed, len(places)))
    return places[:allowed], places[allowed:]
