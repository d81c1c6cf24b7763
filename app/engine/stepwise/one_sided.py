"""Looks at a function near a point, along a few random directions, and says of each output element how it behaves there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import torch
from torch import Tensor

from app.engine.tensors import is_differentiable

# Steps relative to each element's own magnitude. The coarse ones show the law by which a difference shrinks, the fine ones confirm it
# (sin(1e8 x) looks like a jump at the coarse ones), and the last is a few hundred rounding errors: what moves there is noise or a jump.
COARSE: Final = (2.0**-17, 2.0**-21, 2.0**-25)
FINE: Final = (2.0**-29, 2.0**-33)
LAST: Final = 2.0**-46
# The neighbouring number of every element (of a zero, its own scale times this): where the value is not finite already there, its domain
# ends at the point, and not merely near it, as that of asin near 1 - 1e-12.
NEAREST: Final = 2.0**-70
# |f(x+h) - f(x)| shrinks by 16^-(1-s) a coarse step for a derivative that grows like h^-s: s = 0 smooth, 1/2 sqrt|x|, 1 a jump.
_GROWS: Final = (0.15, 0.85)
_NOISE: Final = 16.0  # a signal is this many times the noise
# Quotients of one side that change as much from the second coarse step to the third as from the first to the second grow like log(h) or
# faster: those of a smooth function change by a sixteenth.
_KEEPS: Final = 0.9
_CHANGES: Final = 1e-3  # of the quotient, so that it is no rounding
# Directions tried where both sides of the first are refused: each has its own signs, and one may lead inside.
_OTHERS: Final = (3, 4, 5, 6)
_JUMP: Final = 1e-6  # a jump is at least this large, relative to the element
_SOME_ROUNDINGS: Final = 1e-11  # and to the others, which may be in one sum with it
# Elements of a direction that is kept, which takes a fifth of what it takes to draw it: 1,024 of them are a megabyte at most.
_FEW: Final = 64

# Gives the outputs where every input is moved by `step` times its own scale along direction number `direction`; None where refused.
EvaluateAt = Callable[[float, int], Sequence[Tensor] | None]


@dataclass(frozen=True, slots=True)
class Marks:
    """Of one output, which elements do what near the point; boolean tensors of its shape.

    Attributes:
        kink: one-sided derivatives exist and differ.
        jump: the value jumps, or runs away.
        singular: the difference quotient grows without bound, though the value does not jump.
        edge: the value is not finite on one side: the domain ends here.
        switch: an integer or boolean that flips here.
    """

    kink: Tensor
    jump: Tensor
    singular: Tensor
    edge: Tensor
    switch: Tensor

    @property
    def any(self) -> Tensor:
        return self.kink | self.jump | self.singular | self.edge | self.switch

    def kinds(self) -> list[str]:
        """Names of what occurs, gravest first."""
        return [name for name in ("jump", "singular", "edge", "kink", "switch") if bool(getattr(self, name).any())]


def random_like(tensor: Tensor, number: int) -> Tensor:
    """Magnitudes in [0.5, 1.5] of random sign (complex: phase), the same for the same number and shape."""
    drawn = _few_drawn if tensor.numel() <= _FEW else _drawn
    return drawn(tuple(tensor.shape), tensor.dtype.is_complex, number).to(tensor.device, tensor.dtype, copy=True)


def _drawn(shape: tuple[int, ...], is_complex: bool, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(0x9E37 + 7919 * number + math.prod(shape))
    magnitude = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu") + 0.5
    turn = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")
    return torch.polar(magnitude, turn * (2 * math.pi)) if is_complex else magnitude * torch.sign(turn - 0.5)


_few_drawn = lru_cache(maxsize=1024)(_drawn)


def scale_of(tensor: Tensor) -> Tensor:
    """How far an element may be moved: by its own magnitude; a zero by the typical magnitude of the others, at most 1.

    What is flat or bends at 6, as relu6, is not to be looked at from 1e9, whatever stands beside the zero.
    """
    magnitude = tensor.detach().abs()
    usable = torch.isfinite(magnitude) & (magnitude > 0)
    one = torch.ones((), dtype=magnitude.dtype, device=magnitude.device)
    typical = torch.minimum(magnitude[usable].mean(), one) if bool(usable.any()) else one
    zero = torch.zeros((), dtype=magnitude.dtype, device=magnitude.device)
    return torch.where(usable, magnitude, torch.where(torch.isfinite(magnitude), typical, zero))


def random_direction(tensor: Tensor, direction: int) -> Tensor:
    """A random direction, element by element in the scale of `tensor`."""
    return random_like(tensor, direction) * scale_of(tensor)


def displaced(tensor: Tensor, step: float, direction: Tensor) -> Tensor:
    """`tensor + step * direction`; for a step of ±`NEAREST`, the neighbours of its elements in that direction."""
    if abs(step) != NEAREST:
        return tensor + step * direction
    by = step * direction
    if tensor.is_complex():
        return torch.complex(_neighbour(tensor.real, by.real), _neighbour(tensor.imag, by.imag))
    return _neighbour(tensor, by)


def _neighbour(tensor: Tensor, by: Tensor) -> Tensor:
    toward = torch.where(by > 0, torch.inf, -torch.inf).to(tensor.dtype)
    return torch.where((tensor == 0) | (by == 0), tensor + by, torch.nextafter(tensor, toward))


def perturbed(tensor: Tensor, width: float, number: int) -> Tensor:
    """Another point: `tensor` strewn over `width` times its typical magnitude."""
    magnitude = tensor.detach().abs()
    finite = magnitude[torch.isfinite(magnitude)]
    typical = max(float(finite.mean()) if finite.numel() else 1.0, 1e-3)
    generator = torch.Generator().manual_seed(31 + number)
    noise = torch.randn(tuple(tensor.shape), generator=generator, dtype=torch.float64, device="cpu").to(
        device=tensor.device, dtype=tensor.dtype
    )
    return torch.nan_to_num(tensor.detach()) + width * typical * noise


def classify(evaluate: EvaluateAt, base: Sequence[Tensor], directions: int) -> list[Marks]:
    """How each output behaves near the point: 8 evaluations a direction, 12 where something is seen; with two directions 3 more.

    Arguments:
        evaluate: the function near the point, under no_grad. Direction number 2 is the sum of 0 and 1.
        base: its outputs at the point.
        directions: 1 or 2.
    """
    known = cache(evaluate)
    first = 0
    if known(NEAREST, 0) is None and known(-NEAREST, 0) is None:  # two ends of a domain at once
        first = next((d for d in _OTHERS if known(NEAREST, d) is not None or known(-NEAREST, d) is not None), 0)
    total = _along(lambda step: known(step, first), base)
    if directions > 1 and not first:
        for marks in (_along(lambda step: known(step, 1), base), _across(known, base)):
            total = [
                Marks(*(getattr(a, n) | getattr(b, n) for n in Marks.__slots__)) for a, b in zip(total, marks, strict=True)
            ]
    return total


def _across(evaluate: EvaluateAt, base: Sequence[Tensor]) -> list[Marks]:
    """Kinks that no single line shows: the middle one of three equal numbers moves as far up as down, but not as a sum of its parts."""
    gaps: dict[float, list[Tensor]] = {}
    for step in (*COARSE, *FINE, LAST):
        sides = [_like(evaluate(step, direction), base) for direction in (0, 1, 2)]
        if any(side is None for side in sides):
            return [_nothing(output) for output in base]
        gaps[step] = [_curl(values) for values in zip(base, *sides, strict=True)]
        if step == COARSE[-1] and not any(bool(_lasting(gaps, k, output).any()) for k, output in enumerate(base)):
            return [_nothing(output) for output in base]
    marks = []
    for k, output in enumerate(base):
        ratio = FINE[1] / COARSE[2]
        g2, g4 = gaps[COARSE[2]][k], gaps[FINE[1]][k]
        blank = torch.zeros(output.shape, dtype=torch.bool, device=output.device)
        kink = _lasting(gaps, k, output) & (g4 > 0.25 * ratio * g2) & (g4 < 4 * ratio * g2)
        kink = kink & _at_the_point(gaps[LAST][k], g2, output)
        marks.append(Marks(kink, blank, blank, blank, blank))
    return marks


def _curl(values: Sequence[Tensor]) -> Tensor:
    """|f(x + hv + hw) - f(x + hv) - f(x + hw) + f(x)|: of the order of h² where there is a derivative."""
    here, v, w, both = values
    if not is_differentiable(here.dtype):
        return torch.zeros(here.shape, dtype=torch.float64, device=here.device)
    return torch.nan_to_num(((both - v) - (w - here)).abs(), 0.0, 0.0, 0.0)


def _lasting(gaps: dict[float, list[Tensor]], k: int, base: Tensor) -> Tensor:
    """Where a gap shrinks like h, not faster, and is no rounding."""
    if not is_differentiable(base.dtype):
        return torch.zeros(base.shape, dtype=torch.bool, device=base.device)
    g0, g1, g2 = (gaps[step][k] for step in COARSE)
    return _proportional(g0, g1, g2) & (g2 > 8 * _NOISE * torch.finfo(base.dtype).eps * (base.abs() + _typical(base)))


def _proportional(g0: Tensor, g1: Tensor, g2: Tensor) -> Tensor:
    step = COARSE[0] / COARSE[1]
    return (0.5 * g0 < step * g1) & (step * g1 < 2 * g0) & (0.5 * g1 < step * g2) & (step * g2 < 2 * g1)


def _nothing(output: Tensor) -> Marks:
    blank = torch.zeros(output.shape, dtype=torch.bool, device=output.device)
    return Marks(blank, blank, blank, blank, blank)


_Pair = tuple[Sequence[Tensor] | None, Sequence[Tensor] | None]


def _along(evaluate: Callable[[float], Sequence[Tensor] | None], base: Sequence[Tensor]) -> list[Marks]:
    levels = {step: _pair(evaluate, step, base) for step in (*COARSE, LAST)}
    if any(side is None for pair in levels.values() for side in pair):
        return _refused(_pair(evaluate, NEAREST, base), base)
    if any(
        not bool(torch.isfinite(side[k]).all()) for pair in levels.values() for side in pair if side for k in range(len(base))
    ):
        levels[NEAREST] = _pair(evaluate, NEAREST, base)
    marks_of_all = [_coarse(levels, k, output) for k, output in enumerate(base)]
    if any(bool((m.kink | m.jump | m.singular).any()) for m in marks_of_all):
        levels |= {step: _pair(evaluate, step, base) for step in FINE}
        if all(side is not None for pair in levels.values() for side in pair):
            marks_of_all = [_confirmed(m, levels, k, o) for k, (m, o) in enumerate(zip(marks_of_all, base, strict=True))]
    return [
        _inside(m, levels, k, o) if bool(m.edge.any()) else m for k, (m, o) in enumerate(zip(marks_of_all, base, strict=True))
    ]


def _inside(marks: Marks, levels: dict[float, _Pair], k: int, base: Tensor) -> Marks:
    """The marks, where a domain ends and the value jumps or is steep without bound on the side that is left: 0 ** x and x ** x at 0."""
    if not is_differentiable(base.dtype):
        return marks
    q0, q1, q2 = (_of_inner_side(levels, step, k, base) / step for step in COARSE)
    is_unbounded = (q1 - q0 > _CHANGES * q2) & (q2 - q1 >= _KEEPS * (q1 - q0))
    jumps = (q2 * COARSE[2] >= (COARSE[1] / COARSE[0]) ** (1 - _GROWS[1]) * q1 * COARSE[1]) & is_unbounded
    jump, singular = marks.edge & jumps, marks.edge & is_unbounded & ~jumps
    return Marks(marks.kink, marks.jump | jump, marks.singular | singular, marks.edge & ~is_unbounded, marks.switch)


def _of_inner_side(levels: dict[float, _Pair], step: float, k: int, base: Tensor) -> Tensor:
    """How far the value moves on the side that is finite; NaN where none is."""
    up, down = _differences(levels, step, k, base)
    return torch.where(torch.isfinite(up), up, down).abs()


def _pair(evaluate: Callable[[float], Sequence[Tensor] | None], step: float, base: Sequence[Tensor]) -> _Pair:
    return _like(evaluate(step), base), _like(evaluate(-step), base)


def _like(outputs: Sequence[Tensor] | None, base: Sequence[Tensor]) -> Sequence[Tensor] | None:
    """None where the outputs have other shapes than at the point."""
    if outputs is None or any(a.shape != b.shape for a, b in zip(outputs, base, strict=True)):
        return None
    return outputs


def _refused(nearest: _Pair, base: Sequence[Tensor]) -> list[Marks]:
    """One side is refused (out of the domain) or has another shape; if both are, the point only cannot be probed."""
    plus, minus = nearest
    if (plus is None) == (minus is None):
        return [_nothing(output) for output in base]
    marks = []
    for output in base:
        blank = torch.zeros(output.shape, dtype=torch.bool, device=output.device)
        marks.append(Marks(blank, blank, blank, ~blank, blank))
    return marks


def _differences(levels: dict[float, _Pair], step: float, k: int, base: Tensor) -> tuple[Tensor, Tensor]:
    """f(x+h) - f(x) and f(x-h) - f(x), zero where all three are the same infinity."""
    plus, minus = levels[step]
    sides = [torch.where(side[k] == base, torch.zeros_like(base), side[k] - base) for side in (plus, minus) if side is not None]
    return sides[0], sides[1]


def _magnitudes(levels: dict[float, _Pair], step: float, k: int, base: Tensor) -> tuple[Tensor, Tensor]:
    """How far the value moves on its farther side; how far the two sides are from a straight line."""
    up, down = _differences(levels, step, k, base)
    return torch.maximum(up.abs(), down.abs()), (up + down).abs()


def _typical(base: Tensor) -> Tensor:
    finite = base[torch.isfinite(base)].abs()
    return finite.mean() if finite.numel() else torch.ones((), dtype=base.abs().dtype, device=base.device)


def _coarse(levels: dict[float, _Pair], k: int, base: Tensor) -> Marks:
    blank = torch.zeros(base.shape, dtype=torch.bool, device=base.device)
    if not is_differentiable(base.dtype):
        plus, minus = levels[LAST]
        flips = (plus[k] != base) | (minus[k] != base) if plus is not None and minus is not None else blank
        return Marks(blank, blank, blank, blank, flips)
    (s0, g0), (s1, g1), (s2, g2) = (_magnitudes(levels, step, k, base) for step in COARSE)
    still, _ = _magnitudes(levels, LAST, k, base)
    noise = still + torch.finfo(base.dtype).eps * base.abs()
    edge = blank if NEAREST not in levels else _ends(levels, k, base)
    alone = blank if NEAREST not in levels else edge & _stands_alone(levels, k, base)  # no side is left: xlogy(x, 0) at 0
    edge = edge & ~alone
    low, high = (COARSE[1] / COARSE[0]) ** (1 - _GROWS[0]), (COARSE[1] / COARSE[0]) ** (1 - _GROWS[1])
    kink = _proportional(g0, g1, g2) & (g2 > _NOISE * noise)
    grows = (s1 > low * s0) & (s1 < high * s0) & (s2 > low * s1) & (s2 < high * s1)
    singular = grows & (s2 > _NOISE * noise)
    jump = (s1 >= high * s0) & (s2 >= high * s1) & (s2 > _JUMP * base.abs() + _SOME_ROUNDINGS * _typical(base))
    ended = edge | alone
    return Marks(kink & ~ended, (jump & ~ended) | alone, singular & ~ended, edge, blank)


def _ends(levels: dict[float, _Pair], k: int, base: Tensor) -> Tensor:
    if any(side is None for side in levels[NEAREST]):
        return _refused(levels[NEAREST], [base])[0].edge
    last, nearest = (_magnitudes(levels, step, k, base)[0] for step in (LAST, NEAREST))
    return torch.isfinite(base) & ~torch.isfinite(last) & ~torch.isfinite(nearest)


def _stands_alone(levels: dict[float, _Pair], k: int, base: Tensor) -> Tensor:
    """Whether the value is not finite on either side, however near."""
    if any(side is None for side in levels[NEAREST]):
        return torch.zeros(base.shape, dtype=torch.bool, device=base.device)
    sides = [side for step in (LAST, NEAREST) for side in _differences(levels, step, k, base)]
    return ~torch.stack([torch.isfinite(side) for side in sides]).any(0)


def _at_the_point(least: Tensor, g2: Tensor, base: Tensor) -> Tensor:
    """Whether a bend is still there at the last step: one nearby is not; where the gap would be within rounding, that cannot be told."""
    if not is_differentiable(base.dtype):
        return torch.zeros(base.shape, dtype=torch.bool, device=base.device)
    rest = LAST / COARSE[2] * g2
    return (least > 0.25 * rest) | (rest < _NOISE * torch.finfo(base.dtype).eps * (base.abs() + _typical(base)))


def _confirmed(marks: Marks, levels: dict[float, _Pair], k: int, base: Tensor) -> Marks:
    if not is_differentiable(base.dtype):
        return marks
    s2, g2 = _magnitudes(levels, COARSE[2], k, base)
    s4, g4 = _magnitudes(levels, FINE[1], k, base)
    still, least = _magnitudes(levels, LAST, k, base)
    ratio = FINE[1] / COARSE[2]
    kink = marks.kink & (g4 > 0.25 * ratio * g2) & (g4 < 4 * ratio * g2) & _at_the_point(least, g2, base)
    apart = (s4 >= 0.5 * s2) & ((still >= 0.1 * s4) | (s4 > 4 * s2))
    jump = marks.jump & (apart | ~torch.isfinite(still))
    singular = marks.singular & (s4 > ratio ** (1 - _GROWS[0]) * s2) & (s4 < ratio ** (1 - _GROWS[1]) * s2)
    return Marks(kink, jump, singular, marks.edge, marks.switch)
