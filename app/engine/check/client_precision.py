"""How exactly the client's numbers can be known: the arithmetic in which they were computed, and the digits in which they were written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_flatten

from app.catalogue.facts import values
from app.engine.check.objective import Differentiated
from app.engine.precision.random_rounding import RandomRounding
from app.engine.stepwise.point import REFUSALS, Point, name_of
from app.engine.tensors import is_differentiable

_FLOAT32: Final = (torch.float32, torch.complex64)
_MANY: Final = 20_000  # numbers, of which the decimals are not looked for one by one: 10 ms
_NARROW: Final = (torch.float32, torch.float16, torch.bfloat16)
# Written with so many significant digits or fewer, numbers are a printout; float32 prints itself with six to nine (C++ limits:
# digits10, max_digits10), and a float64 that happens to have nine or fewer has a chance of 1e-7.
_MOST_DIGITS, _FLOAT32_DIGITS = 9, 6
# With one or two digits they are no printout that proves anything (0.5, 2, 12): meant as they stand, but for 0.012 and 0.000006, which
# have so many places after the point that they are the rest of a printout of larger numbers.
_FEWEST_DIGITS: Final = 3
# Decimals of all numbers together: of 5 ** 4 with so many one is a whole number of sixteenths, as half precision has them.
_BINARY: Final = 4
ZERO_AS_PRINTED: Final = 5.1e-7  # half of the last of six decimals, as people print
# A decimal of float64's last digit shows in numbers of fewer digits: of a random number that it fits has a chance of twice this times its
# size in units of the last place, and all numbers together less than `_BY_CHANCE`.
_FITS, _BY_CHANCE = 1e-13, 1e-6
_HALF_A_DIGIT: Final = 0.51  # half of the last digit, and 2 % for the rounding of the decimal itself
# Runs under random rounding, and by how much a right derivation may be farther off than the worst of them: 5 of 6 uniform errors are
# within a factor of 2 of their largest, and another order of the same operations rounds otherwise: of 500 float32 derivatives of random
# programs one was 9 times as far off.
_RUNS: Final = 6
_SLACK: Final = 16.0
_ROUNDINGS: Final = 8.0  # of the element itself; 2 and 32 give the same verdicts (111 derivations measured)
_MOST_ROWS: Final = 96  # derivatives of rows under random rounding


@dataclass(frozen=True, slots=True)
class ClientPrecision:
    """What is known of one `expected`.

    Attributes:
        dtype: real, of the arithmetic in which it was computed: asked for by the dtypes, or seen in the numbers.
        may_be: half precision, in which short decimals may have been computed; None where they were not, or surely were.
        leaves: the inputs as they were sent.
        half: half of the last digit that is written, shape of `expected`; None where it is not rounded so.
        coarse: half of the last digit of numbers written with one or two digits: too few to prove a derivative; None otherwise.
        whole: half of the last digit of whole numbers, if they are roundings and not meant as they stand; None otherwise.
        zeros: every number is zero, as a derivative below half of `ZERO_AS_PRINTED`'s last digit prints itself.
    """

    dtype: torch.dtype
    leaves: Mapping[str, Tensor]
    may_be: torch.dtype | None = None
    half: Tensor | None = None
    coarse: Tensor | None = None
    whole: Tensor | None = None
    zeros: bool = False

    @property
    def eps(self) -> float:
        return torch.finfo(self.dtype).eps

    @property
    def tiny(self) -> float:
        """Below this the arithmetic has no ordinary numbers."""
        return torch.finfo(self.dtype).tiny

    @property
    def last_decimal(self) -> float:
        """What every number may be off by for the decimals that are written; zero where none are."""
        half = self.half if self.half is not None else self.coarse
        return float(half[half > 0].min()) if half is not None and bool((half > 0).any()) else 0.0

    def as_meant(self, believed: Tensor, reference: Tensor) -> Tensor:
        """What the client believes, where it is infinite because the arithmetic has no number as large as the derivative."""
        if reference.is_complex():
            return believed
        fits = reference.to(self.dtype).to(reference.dtype)
        return torch.where(torch.isinf(fits) & (fits == believed), reference, believed)


def client_precision(point: Point, leaves: Mapping[str, Tensor], expected: Tensor, ours: Tensor) -> ClientPrecision:
    """From the dtypes of the inputs, of the steps of `point` that cast, and of `expected`, and from the digits of `expected`.

    Arguments:
        ours: PyTorch's derivative in float64.
    """
    dtypes = {tensor.dtype.to_real() for tensor in (*leaves.values(), expected) if is_differentiable(tensor.dtype)}
    dtypes |= {dtype.to_real() for node in point.nodes for dtype in _cast_by(node)}
    if not is_differentiable(expected.dtype) or not expected.numel():
        return _of(dtypes, leaves)
    numbers = torch.view_as_real(expected.resolve_conj()) if expected.is_complex() else expected
    numbers = numbers.detach().to("cpu", torch.float64)
    if expected.dtype not in (*_FLOAT32, torch.float64, torch.complex128):
        return _of(dtypes, leaves)
    held = {dtype for dtype in _NARROW if bool((numbers.to(dtype).to(torch.float64) == numbers)[numbers != 0].all())}
    if torch.float32 in held:
        numbers = _as_written_in_float32(numbers)
    sizes = numbers.abs()
    shown = sizes[(sizes > 0) & torch.isfinite(sizes)]
    if not shown.numel():
        return replace(_of(dtypes, leaves), zeros=not bool((sizes > 0).any()))
    digits, decimals = _significant(shown), _decimals(shown)
    halves = {dtype for dtype in held - {torch.float32} if not _is_held(ours, dtype)}
    if digits is None or digits >= _FLOAT32_DIGITS:
        # More digits than a person writes, and float32 (or less) holds them all: computed there, sent as plain numbers.
        dtypes |= (held & {torch.float32}) | halves
    if digits is not None and digits >= _FLOAT32_DIGITS:
        dtypes.add(torch.float32)
    precision = _of(dtypes, leaves)
    if halves and _may_be_of_half(shown, decimals):
        precision = replace(precision, may_be=_coarsest(halves))
    if digits is None and not decimals:
        return precision
    if digits is not None and digits < _FLOAT32_DIGITS and bool((shown == shown.round()).all()):
        return replace(precision, whole=_half_of_whole(sizes, digits, expected))
    of_largest = _MOST_DIGITS if digits is None else digits
    if decimals is not None:
        of_largest = min(of_largest, decimals + 1 + int(torch.floor(torch.log10(shown.max()))))
    half = _half_of_last(sizes, digits, decimals)
    half = (half.sum(-1) if expected.is_complex() else half).to(expected.device)
    if max(of_largest, 1) >= _FEWEST_DIGITS:
        return replace(precision, half=half)
    is_printed = of_largest == _FEWEST_DIGITS - 1 or (decimals or 0) >= _FEWEST_DIGITS
    return replace(precision, coarse=half if is_printed else None)


def _cast_by(node: fx.Node) -> list[torch.dtype]:
    """The floating dtypes that a step casts to: what it gives is rounded there, and so is every derivative on its way back."""
    named = (
        [getattr(torch, name_of(node))] if name_of(node) in values("casts_to") else []
    )  # `half` is the name of its dtype too
    dtypes = named + [member for member in tree_flatten((node.args, node.kwargs))[0] if isinstance(member, torch.dtype)]
    return [dtype for dtype in dtypes if is_differentiable(dtype)]


def _is_held(derivative: Tensor, dtype: torch.dtype) -> bool:
    """Whether half precision has the derivative itself: numbers beside it are none that were rounded to its digits.

    They are what a wrong formula gives of short numbers: 4.96875 where 3x² is 4.6875 at 1.25.
    """
    parts = torch.view_as_real(derivative.resolve_conj()) if derivative.is_complex() else derivative
    numbers = parts.detach().to("cpu", torch.float64)
    return torch.equal(numbers.to(dtype).to(torch.float64), numbers)


def _may_be_of_half(shown: Tensor, decimals: int | None) -> bool:
    """Whether short decimals, which half precision has, may be numbers of it: 4.6875 and 9.375."""
    fractions = int((shown != shown.round()).sum())
    return decimals is not None and decimals >= _FEWEST_DIGITS and decimals * fractions >= _BINARY


def _half_of_last(sizes: Tensor, digits: int | None, decimals: int | None) -> Tensor:
    """Half of the last digit that each number is written with."""
    half = torch.zeros_like(sizes)
    if digits is not None:
        own = _HALF_A_DIGIT * 10.0 ** (torch.floor(torch.log10(sizes.clamp(min=1e-300))) - digits + 1)
        half = torch.where(sizes > 0, own, half)
    if not decimals:
        return half
    # What is not zero and would be written as zero was not written in these places.
    is_shown = (sizes == 0) | ((sizes * 10.0**decimals).round() != 0)
    return torch.where(is_shown, half.clamp(min=_HALF_A_DIGIT * 10.0**-decimals), half)


def _as_written_in_float32(numbers: Tensor) -> Tensor:
    """The shortest decimals that float32 reads as these numbers: 0.2038 of 0.20380000770092010."""
    if numbers.numel() > _MANY or not bool(torch.isfinite(numbers).all()):
        return numbers
    written = [float(str(number)) for number in numbers.float().reshape(-1).numpy()]
    return torch.tensor(written, dtype=torch.float64, device="cpu").reshape(numbers.shape)


def _half_of_whole(sizes: Tensor, digits: int, expected: Tensor) -> Tensor | None:
    """What whole numbers may be off by where they are roundings, shape of `expected`; None for those below a hundred."""
    largest = float(torch.floor(torch.log10(sizes.max().clamp(min=1))))
    if largest + 1 < _FEWEST_DIGITS:
        return None
    half = torch.full_like(sizes, _HALF_A_DIGIT)
    if digits >= _FEWEST_DIGITS:
        half = _HALF_A_DIGIT * 10.0 ** (torch.floor(torch.log10(sizes.clamp(min=1))) - digits + 1).clamp(min=0.0)
    return (half.sum(-1) if expected.is_complex() else half).to(expected.device)


def _of(dtypes: set[torch.dtype], leaves: Mapping[str, Tensor]) -> ClientPrecision:
    return ClientPrecision(_coarsest(dtypes | {torch.float64}), leaves)


def _coarsest(dtypes: set[torch.dtype]) -> torch.dtype:
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def _significant(sizes: Tensor) -> int | None:
    """The decimal digits with which every number can be written; None where some needs more than nine."""
    exponents = torch.floor(torch.log10(sizes))
    for digits in range(1, _MOST_DIGITS + 1):
        scaled = sizes * 10.0 ** (digits - 1 - exponents)
        if bool(((scaled - scaled.round()).abs() <= _FITS * scaled).all()):
            return digits
    return None


def _decimals(sizes: Tensor) -> int | None:
    """The places after the point with which every number can be written; None where some needs more than nine, or it may be chance."""
    for decimals in range(_MOST_DIGITS + 1):
        scaled = sizes * 10.0**decimals
        if bool(((scaled - scaled.round()).abs() <= _FITS * scaled.clamp(min=1)).all()):
            # What is next to nothing fits any number of places, and so proves none.
            chances = torch.where(scaled.round() != 0, (2 * _FITS * scaled).clamp(max=1.0), 1.0)
            return decimals if float(torch.log10(chances).sum()) < math.log10(_BY_CHANCE) else None
    return None


def rounding_spread(
    objective: Differentiated, name: str, ours: Tensor, eps: float, around: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """What a right derivation in an arithmetic of `eps` may be off by, element by element, shape of `ours` [rows, *input].

    The derivative is computed some times with every result of every call moved by a random rounding error of that arithmetic, the inputs
    too where they hold more digits than it has: what cancels, and what is ill-conditioned, shows.

    Arguments:
        around: at kinks the range of the derivatives around them, NaN elsewhere: that rounding chooses another of these is no error.
    """
    point = objective.point
    runs = max(2, min(_RUNS, _MOST_ROWS // max(1, len(ours))))
    spread = torch.zeros(ours.shape, dtype=ours.abs().dtype, device=ours.device)
    for number in range(runs):
        leaves = {}
        for index, (other, leaf) in enumerate(point.leaves.items()):
            if is_differentiable(leaf.dtype) and eps > 2 * torch.finfo(leaf.dtype).eps and not _holds(leaf, eps):
                generator = torch.Generator().manual_seed(1000 * number + index)
                noise = torch.rand(leaf.shape, generator=generator, dtype=torch.float64, device="cpu").to(leaf.device) - 0.5
                leaves[other] = (leaf * (1 + eps * noise)).to(leaf.dtype)
        try:
            with RandomRounding(number, eps, written_out=True):
                moved = objective.derivative(leaves)[name]
        except REFUSALS:
            continue
        off = (moved - ours).abs()
        if around is not None:
            outside = torch.maximum(around[0] - moved, moved - around[1]).clamp(min=0)
            off = torch.where(torch.isnan(around[0]), off, outside)
        spread = torch.maximum(spread, off.nan_to_num(0, 0, 0))
    row = (
        ours.abs().reshape(len(ours), -1).nan_to_num(0, 0, 0).amax(1)
        if ours.numel()
        else ours.abs().reshape(len(ours), -1).sum(1)
    )
    # What autodiff has as zero another derivation may have as the rest of a sum that cancels.
    residue = (ours == 0).to(spread.dtype)
    return _SLACK * spread + _ROUNDINGS * eps * (ours.abs() + residue * row.reshape(-1, *[1] * (ours.ndim - 1))).nan_to_num(
        0, 0, 0
    )


def _holds(leaf: Tensor, eps: float) -> bool:
    """Whether an arithmetic of this eps holds the input exactly, so that it was not rounded on its way in."""
    dtype = next((dtype for dtype in _NARROW if torch.finfo(dtype).eps == eps), None)
    return dtype is not None and not leaf.is_complex() and bool((leaf.to(dtype).to(leaf.dtype) == leaf).all())
