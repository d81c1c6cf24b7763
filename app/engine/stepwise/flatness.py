"""Whether a function that has the derivative zero at a point is constant between jumps, and not only at rest there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor

from app.engine.stepwise.one_sided import perturbed

# Where a function that is constant between jumps would show one: around the point by its own magnitude, mirrored at zero, and farther
# by plain numbers (a rounding of metres to kilometres jumps 500 away from 1).
_WIDTHS: Final = (1.0, 10.0, 100.0)
_DISTANCES: Final = (1.0, 1e3, 1e6, 1e9, 1e12)
# Halvings between two points of different values: a slope that is there takes up more than 2^-60 of the way, or is no slope in float64.
_HALVINGS: Final = 60
# A value that changes by less, relative to itself and to where we look, may be rounding: some 10^6 roundings.
_ROUNDING: Final = 1e-10

# The value at another tensor, and whether its derivative by it is zero everywhere; None where the function is refused there.
LookAt = Callable[[Tensor], tuple[Tensor, bool] | None]


def is_constant_between_jumps(look: LookAt, at: Tensor) -> bool:
    """Whether the value changes somewhere, and the derivative is zero wherever we look: at other points, and on the way to them.

    The value of a function with flat ends (a clamp, a saturated sigmoid) changes along a slope, which halving finds.
    """
    here = look(at)
    if here is None or not here[1]:
        return False
    jumps = False
    for there in _elsewhere(at):
        seen = look(there)
        if seen is None or seen[0].shape != here[0].shape:
            continue
        if not seen[1]:
            return False
        moved = _moved(seen[0], here[0], float(there.abs().max()))
        if not jumps and bool(moved.any()):
            if not _jumps_between(look, at, there, here[0].reshape(-1), int(moved.reshape(-1).nonzero()[0])):
                return False
            jumps = True
    return jumps


def _elsewhere(at: Tensor) -> Iterator[Tensor]:
    for number, width in enumerate(_WIDTHS):
        yield perturbed(at, width, number)
    yield -at
    for distance in _DISTANCES:
        yield at + distance
        yield at - 1.5 * distance


def _moved(a: Tensor, b: Tensor, size: float) -> Tensor:
    """Where two values differ by more than rounding may make of numbers of this size; what is NaN has no value that could jump."""
    larger = torch.maximum(a.abs(), b.abs()).nan_to_num(0, 0, 0)
    return (a != b) & ~torch.isnan(a.abs()) & ~torch.isnan(b.abs()) & ~((a - b).abs() <= _ROUNDING * (larger + size))


def _jumps_between(look: LookAt, a: Tensor, b: Tensor, value: Tensor, index: int) -> bool:
    """Whether halving the way between two points whose values differ at `index` comes down to a jump, and never meets a slope."""
    first = value[index]
    for _ in range(_HALVINGS):
        middle = a + (b - a) / 2
        if torch.equal(middle, a) or torch.equal(middle, b):
            return True
        seen = look(middle)
        if seen is None:
            return True
        if not seen[1]:
            return False
        if bool(seen[0].reshape(-1)[index] == first):
            a = middle
        else:
            b = middle
    return True
