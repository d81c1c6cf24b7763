"""Where an agreement says nothing: rounding alone may change so much of an element that a wrong number fits as well as the right one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from app.engine.check.agreement import RELATIVE
from app.engine.check.client_precision import ClientPrecision
from app.engine.check.mistakes.case import moved_to
from app.engine.check.objective import Differentiated
from app.engine.stepwise.point import REFUSALS
from app.engine.tensors import is_differentiable

# What an agreement excludes: an element that is off by half a unit of its third digit. The smallest factors by which derivations are
# wrong, a thousandth that was left out or n for n - 1 of some hundreds, are larger; a float32 of the condition 100 has that much.
_PART: Final = 5e-4
# Units in the last place that a right number may lie beside the correctly rounded derivative: each of the last few steps of a formula
# rounds by half a unit. In bfloat16, where a unit is up to 0.8 %, that is the 3 % that it cannot tell apart.
_UNITS: Final = 4.0
_OF_PYTORCH: Final = 1.0  # units beside PyTorch's own number: the same steps, on another device or in another order of a sum
# Units that all elements may be off by alike: roundings of single elements differ, and that of a factor they share is half a unit. In
# bfloat16 one is 0.8 %.
_TOGETHER: Final = 1.0
# Roundings of the largest of its row, of which a sum that cancels leaves so many where a person's formula gives zero.
_RESIDUE: Final = 8.0
_GONE: Final = 0.5  # of the derivative; rounding in bfloat16 takes a tenth of an element of which it still knows a digit
_COUNTS: Final = 1e-3  # of the largest of its row: what is smaller may be rounding beside it
# A right derivation that was computed step by step in the client's arithmetic is off by no more than a few runs under random rounding are:
# by 0.24 of the doubt, which is some sixteen times as much, at most (500 derivations in half precision), and no element that counts is off
# by a quarter. What lies off along the derivative itself, a factor, shrinks as the elements are more. A wrong one is off by more: by this.
_TYPICAL, _TYPICAL_PART, _SURELY = 0.25, 0.25, 0.35
# Units of a factor beyond that of PyTorch's own number, where that is more than `_UNITS`: another order of the same steps. Of 499 derivations
# step by step in half precision none that was right lay beyond both.
_BESIDE: Final = 2.0
_HALF: Final = 1e-4  # eps of half precision is larger; a person's float32 may cancel where PyTorch's does not
_TYPICAL_TOGETHER: Final = 0.1  # of the derivative


def is_open(
    objective: Differentiated,
    name: str,
    ours: Tensor,
    believed: Tensor,
    reference: Tensor,
    by_rounding: Tensor,
    doubt: Tensor,
    precision: ClientPrecision,
) -> bool | None:
    """Whether some element of `believed` is confirmed by nothing but that rounding could have made it, tensors of shape [rows, *input].

    None where it has lost digits as PyTorch's own number in the client's arithmetic has, or a right derivation step by step in it.

    Arguments:
        ours: PyTorch's derivative in float64.
        reference: what is known of the derivative.
        by_rounding: what `believed` and `reference` differ by beyond what anything else than rounding leaves in doubt.
        doubt: what rounding leaves in doubt.
    """
    size = _sizes(objective, reference)
    # Below its ordinary numbers an arithmetic has a few digits or none, which half and twice the derivative share: the rounded number alone.
    is_beneath = _is_beneath(reference, precision)
    allowed = torch.where(is_beneath, _PART * size, torch.maximum(_PART * size, _UNITS * _unit(size, precision)))
    is_unconfirmed = (by_rounding > allowed) | _are_scaled(believed, reference, by_rounding, precision)
    is_residue = (believed == 0) & (reference.abs() <= _RESIDUE * precision.eps * _largest_of_row(size))
    is_unconfirmed &= ~(_is_rounded(believed, reference, precision) | is_residue)
    if not bool(is_unconfirmed.any()):
        return False
    of_pytorch = list(_of_pytorch(objective, name, ours, precision))
    if _is_typical(believed, reference, by_rounding, doubt, precision, of_pytorch):
        return None
    for own in of_pytorch:
        units = torch.where(is_beneath, 0.0, _OF_PYTORCH)
        is_unconfirmed &= ~((believed - own).abs() <= units * _unit(_sizes(objective, own), precision))
    return True if bool(is_unconfirmed.any()) else None


def _are_scaled(believed: Tensor, reference: Tensor, by_rounding: Tensor, precision: ClientPrecision) -> Tensor:
    """The elements that are not zero, where on average they are larger or smaller than the derivative by more than a rounding they share."""
    size = reference.abs().nan_to_num(0, 0, 0)
    telling = (size > max(_COUNTS * float(_largest_of_row(size).max()), precision.tiny)) & torch.isfinite(believed.abs())
    # Another subgradient is not scaled: nothing of it is left to rounding.
    apart = (believed - reference).abs()
    telling &= (by_rounding > 0.5 * apart) | (apart <= _PART * size)
    if reference.is_complex() or precision.half is not None or not bool(telling.any()):
        return torch.zeros_like(telling)
    factor = float((believed[telling] / reference[telling]).mean())
    return telling & (abs(factor - 1) > max(_PART, _TOGETHER * precision.eps))


def _is_typical(
    believed: Tensor,
    reference: Tensor,
    by_rounding: Tensor,
    doubt: Tensor,
    precision: ClientPrecision,
    of_pytorch: list[Tensor],
) -> bool:
    """Whether `believed` is off as a right derivation in half precision is, and a wrong one, small as its mistake may be, hardly is.

    Arguments:
        of_pytorch: PyTorch's derivatives in the client's arithmetic. A factor that they do not have is a mistake rather than rounding.
    """
    if precision.eps <= _HALF:
        return False
    largest = float(reference.abs().nan_to_num(0, 0, 0).max()) if reference.numel() else 0.0
    if not largest or not bool(torch.isfinite(by_rounding).all() & torch.isfinite(believed.abs()).all()):
        return False
    # Of the largest, for squares of 1e-200 are zero.
    believed, reference, by_rounding, doubt, *of_pytorch = (
        of / largest for of in (believed, reference, by_rounding, doubt, *of_pytorch)
    )
    size = reference.abs().nan_to_num(0, 0, 0)
    whole = float(size.norm())
    # What is zero has no terms of that size that would cancel in every arithmetic alike.
    unit = torch.where(size > 0, _RESIDUE, _TOGETHER) * precision.eps * _largest_of_row(size)
    is_near = (by_rounding <= _TYPICAL * doubt) & ((by_rounding <= _TYPICAL_PART * size) | (by_rounding <= unit))
    own = max((abs(_along(derivative, reference)) for derivative in of_pytorch), default=0.0)
    counting = whole**4 / float(size.pow(4).sum())  # as many elements of equal size have such a sum
    together = max(precision.eps, _TYPICAL * float(doubt.norm()) / whole / math.sqrt(counting))
    together = min(together, max(_UNITS * precision.eps, own + _BESIDE * precision.eps))
    is_factor = abs(_along(believed, reference)) > together
    return bool(is_near.all()) and float(by_rounding.norm()) <= _TYPICAL_TOGETHER * whole and not is_factor


def _along(derivative: Tensor, reference: Tensor) -> float:
    """What `derivative` lies off along `reference`, relative to it: factor less one."""
    whole = float(reference.abs().nan_to_num(0, 0, 0).norm())
    return float((reference.conj() / whole * ((derivative - reference) / whole)).real.nan_to_num(0, 0, 0).sum())


def tolerance_with(doubt: Tensor, tolerance: Tensor, apart: Tensor, precision: ClientPrecision) -> Tensor:
    """What the client's numbers may be off by, with what rounding and printed digits leave in doubt.

    In half precision as much as a right derivation is off by, where all elements together are off by more: a wrong one would hide in the
    doubt of single elements.

    Arguments:
        tolerance: without that doubt.
        apart: how far the numbers lie from the derivative.
    """
    written = torch.zeros_like(doubt) if precision.half is None else precision.half.reshape(doubt.shape)
    rounding, unexplained = doubt - written, (apart - tolerance - written).clamp(min=0)
    is_beyond = precision.eps > _HALF and float(unexplained.norm()) > _SURELY * float(rounding.norm())
    return tolerance + written + (_SURELY if is_beyond else 1.0) * rounding


def _is_beneath(reference: Tensor, precision: ClientPrecision) -> Tensor:
    """Elements that are not zero and below the ordinary numbers of the client's arithmetic."""
    return (reference != 0) & (reference.abs() < precision.tiny)


def _is_rounded(believed: Tensor, reference: Tensor, precision: ClientPrecision) -> Tensor:
    """Such elements at which the client has exactly what the arithmetic makes of the derivative: a subnormal number, or zero."""
    if reference.is_complex() or precision.dtype == torch.float64:
        return torch.zeros_like(reference, dtype=torch.bool)
    return _is_beneath(reference, precision) & (believed == reference.to(precision.dtype).to(reference.dtype))


def _unit(size: Tensor, precision: ClientPrecision) -> Tensor:
    """One in the last place of numbers of this size; the least number of the arithmetic for those below: 6e-8 in float16."""
    return precision.eps * (size + precision.tiny)


def _sizes(objective: Differentiated, derivative: Tensor) -> Tensor:
    """What the rounding of each element is relative to: its own size, or that of its row where it is zero.

    Of random combinations of rows, that of all of them: an element of one may cancel.
    """
    size = derivative.abs().nan_to_num(0, 0, 0)
    if objective.combined:
        size = size.square().mean(0, keepdim=True).sqrt().expand_as(size)
    return torch.where(size > 0, size, _PART * _largest_of_row(size))


def _largest_of_row(size: Tensor) -> Tensor:
    return size.reshape(len(size), -1).amax(1).reshape(-1, *[1] * (size.ndim - 1)) if size.numel() else size


def _of_pytorch(objective: Differentiated, name: str, ours: Tensor, precision: ClientPrecision) -> Iterator[Tensor]:
    """PyTorch's derivatives in the client's arithmetic: of the inputs as they were sent, and with all of them in its dtype."""
    if precision.dtype == torch.float64:
        yield ours
        return
    cast = {
        other: leaf.to(precision.dtype if not leaf.is_complex() else precision.dtype.to_complex())
        if is_differentiable(leaf.dtype)
        else leaf
        for other, leaf in precision.leaves.items()
    }
    for leaves in (precision.leaves, cast):
        try:
            narrow = moved_to(objective, objective.point.in_dtypes(leaves)).derivative()[name]
        except REFUSALS:
            continue  # it has no such kernel in that dtype
        if narrow.shape == ours.shape:
            yield narrow.to(ours.dtype)


def is_near(objective: Differentiated, name: str, ours: Tensor, believed: Tensor, precision: ClientPrecision) -> bool:
    """Whether rounding in an arithmetic that nobody named explains `believed`: the derivative, or PyTorch's own in it, and a last step or two."""
    return any(
        bool(((believed - own).abs() <= _BESIDE * _unit(_sizes(objective, own), precision)).all())
        for own in (ours, *_of_pytorch(objective, name, ours, precision))
    )


def vanishes_in_float32(objective: Differentiated, name: str, ours: Tensor, precision: ClientPrecision) -> bool:
    """Whether PyTorch's derivative is zero everywhere where float32 computes it."""
    narrow = _of_pytorch(objective, name, ours, replace(precision, dtype=torch.float32))
    return any(not bool((own != 0).any()) for own in narrow)


def is_nothing_left(believed: Tensor, reference: Tensor, tolerance: Tensor, apart: Tensor, precision: ClientPrecision) -> bool:
    """Whether an element that counts says nothing: it may be off by as much as it is large, and the client's is another."""
    size = reference.abs().nan_to_num(0, 0, 0)
    telling = (size > 0) & ~_is_rounded(believed, reference, precision)
    lost = telling & (tolerance >= size) & (apart > RELATIVE * size)
    is_all = precision.dtype == torch.float64 and bool(lost.any()) and bool((tolerance >= size)[telling].all())
    written = torch.zeros_like(size) if precision.half is None else precision.half.reshape(size.shape)
    by_rounding = (tolerance - written >= size) & (apart - written > _GONE * size)
    counts = max(_COUNTS, _RESIDUE * precision.eps)
    return is_all or bool((lost & by_rounding & (size > counts * _largest_of_row(size))).any())
