"""The whole Function along lines through the point: its one-sided derivatives beside the one that PyTorch gives."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.explain.differences.inner_rounding import inner_rounding
from app.engine.explain.evidence import Evidence, weights_of
from app.engine.stepwise.detached import detached_values
from app.engine.stepwise.one_sided import perturbed, random_like
from app.engine.stepwise.point import REFUSALS, Ref, all_finite
from app.engine.stepwise.quotients import UNSETTLED, Sides, confirms, sides, steps_between
from app.engine.tensors import is_differentiable
from app.program.errors import tensors_in

# Steps in units of an element's own magnitude. At the first two that are tried a smooth function's central difference is right to 1e-10
# already; down to 2^-48, some ten neighbouring numbers; of a zero, which has none, down to 2^-96.
_FIRST: Final = 2.0**-18
_FARTHEST: Final = 2.0**-6  # where the first two do not show it: a sixty-fourth of the element, so that its sign and order stay
_NEAREST: Final = 2.0**-48
_NEAREST_OF_ZERO: Final = 2.0**-96
_NEAR_BY: Final = 2.0**-34  # of the typical element, for one far below it: from there on the element's own steps take over
# A derivative that is this little beside the terms that it is the sum of, some 64 of their roundings, is what is left of zero.
_CANCELLED: Final = 64 * 2.0**-52
# A derivative that is off by so little beside the values and the size of the point (or 1) has lost digits in a formula, and is not wrong:
# sinc at 1e-12, whose derivative of -3e-12 PyTorch gives as 0 (the catalogue has a better rule).
_NEGLIGIBLE: Final = 1e-9
# Quotients over steps a sixteenth of each other fall like the step's fourth root or faster, so many times, by numbers that are this many
# roundings: three decades, in which a bend's would stand still.
_FALLS: Final = 0.5
_FALLING: Final = 4
_CLEAN: Final = 64.0
# A derivative that moves the outputs by so little, 16 of their roundings, over the element's whole length is rounding: cos(pi / 2).
_ROUNDINGS: Final = 16 * 2.0**-52
# Where 1 - cos(h) becomes 0: 16 times the square root of eps. What stops moving farther off than this is constant there, not rounded.
_HALF_OF_THE_DIGITS: Final = 2.0**-22
_DROWNED: Final = 4.0  # roundings: a difference has two, of the largest number and of what it is taken from each
_FORWARDS: Final = 600  # runs of the Function for one report, at most
ONE_ELEMENT: Final = 40  # that one element may take
_WORK: Final = 4e7  # and tensor elements computed for them
_CALLS: Final = 150_000  # and steps, of 30 µs each in a loop of small ones: some 5 s


@dataclass(frozen=True, slots=True)
class Seen:
    """One line.

    Attributes:
        direction: what the input was moved along, of its shape.
        pytorch: the derivative along it that PyTorch gives; not finite where its gradient is not.
        sides: those of the Function; None where `pytorch` was confirmed at once.
        floor: a difference between the two that is nothing beside the values.
        end: 1.0 or -1.0 where the Function has no value on that side, however near, and has one on the other.
    """

    direction: Tensor
    pytorch: float
    sides: Sides | None
    floor: float = 0.0
    end: float | None = None

    @property
    def unit(self) -> float:
        """How far the element is moved where t is 1."""
        return float(self.direction.abs().max())

    @property
    def agrees(self) -> bool | None:
        """None where it cannot be told."""
        if self.sides is None:
            return True
        agrees = self.sides.agree(self.pytorch)
        negligible = all(abs(side.value - self.pytorch) <= self.floor for side in (self.sides.left, self.sides.right))
        return None if agrees is False and negligible else agrees


@dataclass
class Lines:
    """Lines through the point of `evidence`, for a positive random combination of the outputs `refs`; `ones`: for their sum."""

    evidence: Evidence
    refs: tuple[Ref, ...]
    ones: bool = False
    forwards_left: int = 0
    _cotangents: dict[Ref, Tensor] = field(default_factory=dict)
    _base: dict[Ref, Tensor] = field(default_factory=dict)
    _weights: dict[Ref, Tensor] = field(default_factory=dict)
    _held: dict[fx.Node, Any] = field(default_factory=dict)
    _inner: float | None = None

    def __post_init__(self) -> None:
        trace = self.evidence.trace
        size = sum(tensor.numel() for tensor in trace.values.values())
        self.forwards_left = min(_FORWARDS, int(_WORK / max(1, size)), _CALLS // max(1, len(trace.records)))
        self._weights = (
            {ref: torch.ones_like(trace.values[ref]) for ref in self.refs} if self.ones else weights_of(trace, self.refs)
        )
        everything = {ref for ref in trace.outputs if trace.live[ref]}
        known = everything == set(self.refs) and not self.ones
        self._cotangents = self.evidence.weighted if known else trace.backward(self._weights)
        with torch.no_grad():
            outputs = dict(zip(trace.outputs, trace.point.run({}), strict=True))
        self._base = {ref: outputs[ref] for ref in self.refs}
        self._held = detached_values(trace.point)

    def gradient(self, name: str) -> Tensor | None:
        return self._cotangents.get(self.evidence.trace.leaves[name])

    def along(self, name: str, direction: Tensor, reach: float = 1.0, *, nearest: float = _NEAREST) -> Seen:
        """The line through the point on which the input `name` moves along `direction`.

        Arguments:
            reach: how many times `direction` is as large as the other elements, or as 1.
        """
        gradient = self.gradient(name)
        ours = 0.0 if gradient is None else float((gradient.conj() * direction)[direction != 0].sum().real)
        rise = self._rise(name, direction)
        noise, terms, size = self._noise(name, direction)
        floor = _NEGLIGIBLE * size / max(reach, 1.0)
        if abs(ours) <= max(_CANCELLED * terms, _ROUNDINGS * size):
            ours = 0.0
        if math.isfinite(ours) and math.isfinite(noise) and confirms(rise, ours, noise, _FIRST):
            return Seen(direction, ours, None)
        rise, steps = cache(rise), steps_between(_FARTHEST, nearest)
        if not math.isfinite(ours):  # what the steps round is not known where their derivative is infinite
            steps = self._above_rounding(name, direction, steps)
        # Beside 1e300 an element of 1e-300 is smaller by more than a float64 can say.
        far = steps_between(_FARTHEST * reach, _NEAR_BY * reach) if math.isfinite(reach) else []
        far = [h for h in far if h > 2 * _FARTHEST]
        seen = Seen(direction, ours, sides(rise, noise, [*far, *steps]), floor)
        if far and seen.agrees is False:  # what is far from the point may be of another branch, and only confirms
            seen = Seen(direction, ours, sides(rise, noise, steps), floor)
        if seen.agrees is False and (
            _is_rounded_to(ours, seen.sides, direction) or (ours == 0 and _tends_to_zero(rise, noise, steps))
        ):
            return Seen(direction, ours, None)
        if seen.agrees is not True and self._is_nothing(name, direction, ours, seen.sides):
            return Seen(direction, 0.0, None)
        if seen.agrees is False and self._is_drowned(seen):
            return Seen(direction, ours, None)
        # The number next to an element: asin has a value there at 1 - 2e-16, and none at 1.
        beside = torch.finfo(direction.dtype).eps
        outside = [sign for sign in (1.0, -1.0) if all(math.isnan(rise(sign * h)) for h in (*steps, beside))]
        return replace(seen, end=outside[0]) if len(outside) == 1 else seen

    def _above_rounding(self, name: str, direction: Tensor, steps: list[float]) -> list[float]:
        """The steps without the finest, at which rounding holds what an infinite derivative is of: 1 - cos(h), whose root is |h|."""
        trace = self.evidence.trace
        broken = [ref for ref, c in self._cotangents.items() if ref[0].op != "placeholder" and not all_finite(c)]

        def moving(by: float) -> set[Ref]:
            self.moved(name, direction, by)
            results = trace.point.results()
            known = {ref: list(tensors_in(results[ref[0]]))[ref[1]] for ref in broken if ref[0] in results}
            return {ref for ref, value in known.items() if not torch.equal(value, trace.values[ref])}

        for sign in (1.0, -1.0) if broken else ():
            first = next((k for k, h in enumerate(steps) if h <= _FIRST), 0)
            awake = moving(sign * steps[first])
            last = bisect_left(range(first + 1, len(steps)), True, key=lambda k: not awake <= moving(sign * steps[k])) + first
            if steps[last] <= _HALF_OF_THE_DIGITS:
                steps = steps[: last + 1]
        return steps

    def _is_nothing(self, name: str, direction: Tensor, ours: float, sides: Sides | None) -> bool:
        """Whether all are rounding beside the derivative where the other elements are other numbers: 1e-32 of `det(ones(3, 3))`."""
        if sides is None or not sides.settled:
            return False
        leaf = self.evidence.trace.point.leaves[name]
        others = [torch.where(direction != 0, leaf, perturbed(leaf, 1.0, number)) for number in range(2)]
        size = min(self._rise_between(name, at, at + direction) for at in others)
        return math.isfinite(size) and max(abs(ours), abs(sides.left.value), abs(sides.right.value)) <= _CANCELLED * size

    def _is_drowned(self, seen: Seen) -> bool:
        """Whether both derivatives move the outputs by no more than what a step rounds inside: the 1e-22 of a loss of scores 0 and 50."""
        if self._inner is None:
            trace, self._inner = self.evidence.trace, 0.0
            for record in trace.records:
                cotangents = [self._cotangents[ref].abs() for ref in record.refs() if ref in self._cotangents]
                weight = max((float(c.max()) for c in cotangents if c.numel()), default=0.0)
                if 0 < weight < math.inf:
                    self._inner = max(self._inner, weight * inner_rounding(trace, record))
        sizes = [abs(side.value) for side in (seen.sides.left, seen.sides.right)] if seen.sides is not None else []
        return _FARTHEST * max(abs(seen.pytorch), *sizes) <= _DROWNED * self._inner

    def _rise_between(self, name: str, a: Tensor, b: Tensor) -> float:
        before, after = self._run(name, a), self._run(name, b)
        if before is None or after is None or any(after[ref].shape != base.shape for ref, base in self._base.items()):
            return 0.0
        return sum(float((self._weights[ref].abs() * (after[ref] - before[ref]).abs()).sum()) for ref in self._base)

    def worse(self, name: str, index: int) -> Seen:
        """Of an element, or of the real and the imaginary part of one, the line that agrees less."""
        seen = self.element(name, index)
        if self.evidence.trace.point.leaves[name].is_complex() and seen.agrees is not False:
            other = self.element(name, index, imaginary=True)
            return other if other.agrees is not True else seen
        return seen

    def element(self, name: str, index: int, *, imaginary: bool = False) -> Seen:
        """The line on which one element moves; `direction` is a power of two near its magnitude, so that steps are exact."""
        leaf = self.evidence.trace.point.leaves[name]
        own, typical = float(leaf.reshape(-1)[index].abs()), _typical(leaf)
        if 0 < own < torch.finfo(leaf.dtype).tiny:
            return Seen(torch.ones_like(leaf), math.nan, UNSETTLED)  # its neighbours are too far for a step
        unit = _power_of_two(own or min(typical, 1.0))
        direction = torch.zeros_like(leaf).reshape(-1)
        direction[index] = torch.tensor(unit * 1j if imaginary else unit, dtype=leaf.dtype)
        nearest = _NEAREST if own else _NEAREST_OF_ZERO
        return self.along(name, direction.reshape(leaf.shape), max(typical, 1.0) / unit, nearest=nearest)

    def random(self, name: str, number: int, mask: Tensor) -> Seen:
        """A line on which every element under the mask moves, each by a power of two near its magnitude."""
        leaf = self.evidence.trace.point.leaves[name]
        size = leaf.abs()
        size = torch.where(size > 0, size, min(_typical(leaf), 1.0)).clamp(min=torch.finfo(size.dtype).tiny)
        unit = torch.exp2(torch.floor(torch.log2(size)))
        turn = random_like(leaf, 130 + number)
        turn = turn / turn.abs() if leaf.is_complex() else torch.sign(turn)
        return self.along(name, torch.where(mask & torch.isfinite(size), unit * turn, 0))

    def _rise(self, name: str, direction: Tensor) -> Callable[[float], float]:
        leaf = self.evidence.trace.point.leaves[name]

        def rise(t: float) -> float:
            outputs = self._run(name, leaf + t * direction)
            if outputs is None:
                return math.nan
            total = 0.0
            for ref, base in self._base.items():
                output = outputs[ref]
                if output.shape != base.shape:
                    return math.nan
                moved = torch.where(output == base, 0, output - base)
                finite = torch.isfinite(base)  # what is not finite at the point is another finding
                total += float((self._weights[ref].conj() * moved)[finite].sum().real)
            return total

        return rise

    def moved(self, name: str, direction: Tensor, by: float) -> dict[Ref, Tensor] | None:
        """The outputs where the input is moved; None where that is refused."""
        return self._run(name, self.evidence.trace.point.leaves[name] + by * direction)

    def _run(self, name: str, leaf: Tensor) -> dict[Ref, Tensor] | None:
        self.forwards_left -= 1
        trace = self.evidence.trace
        try:
            with torch.no_grad():
                return dict(zip(trace.outputs, trace.point.run({name: leaf}, self._held), strict=True))
        except REFUSALS:
            return None

    def _noise(self, name: str, direction: Tensor) -> tuple[float, float, float]:
        """The rounding error of a rise, the size of the terms that the derivative is the sum of, and that of the outputs that move.

        The error: of each number that moves, eps times what it weighs in the result (a running error analysis, Higham, Accuracy and
        Stability of Numerical Algorithms, 2nd ed., section 3.3).
        """
        trace = self.evidence.trace
        if all(self.moved(name, direction, by) is None for by in (_FIRST, -_FIRST)):
            return math.inf, 0.0, 0.0
        results, total, terms, size, eps = trace.point.results(), 0.0, 0.0, 0.0, 0.0
        for (node, k), value in trace.values.items():
            cotangent = self._cotangents.get((node, k))
            if cotangent is None or not is_differentiable(value.dtype) or node not in results or node.op == "placeholder":
                continue  # inputs are moved by powers of two, which is exact
            moved = list(tensors_in(results[node]))[k]
            if moved.shape != value.shape or cotangent.shape != value.shape:
                continue
            finfo = torch.finfo(value.dtype)
            share = cotangent.abs() * value.abs()
            rounded = cotangent.abs() * value.abs().clamp(min=finfo.tiny)  # below it numbers lie as far apart as just above
            changed = (moved != value) & ~torch.isnan(value.abs())
            if bool(changed.any()):
                share, rounded = share[changed], rounded[changed]
            elif name not in trace.depends[(node, k)]:
                continue  # else it did not move for rounding: x + 1e20
            total += float(rounded[torch.isfinite(share)].sum())
            if (node, k) in self._base:
                size += float(share[torch.isfinite(share)].sum())
            part = cotangent.abs() * (moved - value).abs()
            terms += float(part[torch.isfinite(part)].sum()) / _FIRST
            eps = max(eps, finfo.eps)
        return eps * total, terms, size


def _is_rounded_to(ours: float, sides: Sides | None, direction: Tensor) -> bool:
    """Whether both derivatives are `ours` but for what the gradient's dtype, whose least number is not zero, cannot hold: 1e-600."""
    finfo = torch.finfo(direction.dtype)
    apart = finfo.tiny * finfo.eps * float(direction.abs().sum())
    return sides is not None and all(abs(side.value - ours) <= apart for side in (sides.left, sides.right))


def _tends_to_zero(rise: Callable[[float], float], noise: float, steps: Sequence[float]) -> bool:
    """Whether the quotients of both sides fall, step by step and by a power of it, until they are rounding: those of |x|^1.5."""
    for sign in (1.0, -1.0):
        sizes = [(h, abs(rise(sign * h))) for h in steps]
        clean = [size / h for h, size in itertools.takewhile(lambda pair: pair[1] > _CLEAN * noise, sizes)]
        if len(clean) < _FALLING or not all(b <= _FALLS * a for a, b in itertools.pairwise(clean)):
            return False
    return True


def _power_of_two(size: float) -> float:
    return 2.0 ** max(-1022, min(1000, math.floor(math.log2(size)))) if 0 < size < math.inf else 1.0


def _typical(leaf: Tensor) -> float:
    size = leaf.abs()
    usable = size[torch.isfinite(size) & (size > 0)]
    return float(usable.mean()) if usable.numel() else 1.0
