"""What the client believes against what is known of a derivative, element by element: it agrees, it does not, or that cannot be told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import torch
from torch import Tensor

from app.engine.check.agreement import RELATIVE, Compared, largest
from app.engine.check.client_precision import ZERO_AS_PRINTED, ClientPrecision, rounding_spread
from app.engine.check.finite_differences import Numeric
from app.engine.check.kinks.mixtures import (
    at_kinks,
    is_mixture,
    is_of_own_backward,
    left_open,
    may_be_of_a_tie,
    without_unknown,
)
from app.engine.check.kinks.subgradients import subgradients
from app.engine.check.objective import Differentiated
from app.engine.check.open_digits import is_nothing_left, is_open, tolerance_with, vanishes_in_float32
from app.engine.check.reasons import Reason
from app.engine.stepwise.one_sided import scale_of

# Numbers that the client had from finite differences are off by some eps^(1/2) of the function's size over the step (one-sided) or
# eps^(2/3) (central), in every element alike. Only so much is forgiven as shows in the elements large enough to be sure of:
_NOISE_AT_MOST: Final = 1e-6  # of the function's size over the element's, or of the row's largest derivative
_SURE: Final = 1e3  # elements so many times larger than that noise are right to three digits or wrong
_NOISE_SLACK: Final = 8.0  # times the median noise of those
_LARGEST_SLACK: Final = 2.0  # times the largest: that of differences over large steps is not the same in all elements
_ROUNDINGS: Final = 16.0  # an element that is off by fewer, in the client's arithmetic, was computed by a formula
# What differences leave of a derivative that is nothing beside the function (relative to the function over the element): a multiple of its
# last bit over the step, 1e-13 for steps of 1e-3 to 1e-8 for steps of 1e-8; or zero, where the function did not move at all.
_LAST_BIT, _BENEATH_ALL = 1e-13, 1e-7
_NOT_SEEN, _NOT_MOVED = 1e-9, 1e-11
# Differences that differ from PyTorch and the client alike by fewer tolerances prove neither wrong: where PyTorch is wrong they do by 1e6.
_FAR_OFF: Final = 1e3
# Of the function over the element, where the derivative is zero: 5000 roundings, as finite differences leave.
_CANCELLED: Final = 1e-12
_LOST: Final = 0.05  # of the derivative that rounding may change: more leaves no digit
_DROWNED: Final = 4.0  # times the derivative: what is nearer to it in size is meant as it stands
# Where no element is large enough to show it: the noise of a good central difference, and a thousandth of the row at most.
_NO_ELEMENT, _OF_THE_ROW = 1e-10, 1e-3
# Of an element; where it is known to less than that, other mistakes look alike: half of sin x and 0.46 cos x.
_NAMED: Final = 0.04
# In the last place of the client's arithmetic: a mistaken derivative is rounded there as a right one is.
_UNITS: Final = 1.0, 4.0
_LEVELS: Final = 2.0  # between two of the tolerances that mistakes are looked for in: nearer ones find the same
_BY_LUCK: Final = 1e-3  # the chance that a number with that noise is right to six digits, or a thousandth of the noise in size

KINK = "At a kink the one-sided derivatives differ and every value between them is right; PyTorch takes one of these."
_FEW_DIGITS = (
    "Rounding loses digits of some elements in these steps: yours are what PyTorch or a formula gives in your arithmetic, and off by as "
    "much as `max_error` says, which a mistake of that size would be too. Kind `precision` names the step."
)
_AUTODIFF_WRONG = "PyTorch's own derivative is not what differences give at some elements; yours is."


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one input, tensors of shape [rows, *input].

    Attributes:
        agrees: None: cannot tell, and `reason` says why.
        error, tolerance: by element.
        off: the client's derivative is wrong there.
        kinks: elements at a kink.
        believed: what the client believes; None where it was not sent, or in another shape.
    """

    agrees: bool | None
    error: Tensor
    tolerance: Tensor
    off: Tensor
    kinks: Tensor
    believed: Tensor | None
    reason: Reason | None = None
    note: str | None = None


def of_autodiff(objective: Differentiated, numeric: Numeric, name: str, compared: Compared) -> Verdict:
    """Where nothing was sent to compare with."""
    is_valued = numeric.has_values(name)
    if bool(is_valued.all()):
        return _of_autodiff(objective, numeric, name, compared)
    valued = _of_autodiff(objective, numeric, name, _of_valued(compared, is_valued))
    return (
        replace(valued, note=None)
        if valued.agrees is False
        else replace(valued, agrees=None, reason=Reason.NO_NUMBER, note=None)
    )


def _of_autodiff(objective: Differentiated, numeric: Numeric, name: str, compared: Compared) -> Verdict:
    """The same where the function has values."""
    kinks = ~torch.isnan(compared.low)
    agrees, tolerance = compared.agrees, compared.tolerance
    is_subgradient = may_be_of_a_tie(
        objective,
        numeric,
        name,
        compared,
        lambda: subgradients(objective, name, compared.ours, numeric.size, compared.contradicted),
    )
    if is_subgradient is not False:
        why = None if is_subgradient else Reason.CORNERS
        return Verdict(
            is_subgradient, torch.zeros_like(compared.error), tolerance, torch.zeros_like(kinks), kinks, None, why, KINK
        )
    if agrees is False and not compared.broken and bool(torch.isfinite(compared.ours.abs()).all()):
        # In float64 too a derivative may hold few digits, or none: cos(1e11 x).
        tolerance = tolerance + rounding_spread(objective, name, compared.ours, torch.finfo(torch.float64).eps)
        off = compared.error > tolerance
        # Of the larger of the two: where PyTorch gives zero, any doubt is more than all of it.
        size = torch.maximum(compared.ours.abs(), compared.values.abs().nan_to_num(0, 0, 0))
        lost = compared.contradicted & (tolerance > _LOST * size) & ~torch.isinf(compared.values.abs())
        # A sum that cancels to zero leaves roundings of its terms, as that of a softmax does: they are all there is to be right.
        lost &= ~((compared.values == 0) & (compared.error <= _CANCELLED * _function_over_element(objective, numeric, name)))
        agrees = None if bool(lost.any()) and not bool((off & ~lost).any()) else not bool(off.any())
    if agrees and not bool(torch.isfinite(compared.ours.abs()).all()):
        agrees = False  # infinite as the quotients are: no derivative, and nobody said that infinity was expected
    reason = Reason.UNSETTLED if compared.agrees is None else Reason.NO_DIGITS if agrees is None else None
    if agrees and is_of_own_backward(objective, kinks):
        agrees = is_mixture(objective, numeric, name, compared.ours, kinks)
        reason = Reason.CORNERS if agrees is None else None
    off = torch.zeros_like(kinks)
    error = torch.where(torch.isfinite(compared.ours.abs()), compared.error, torch.inf)
    return Verdict(agrees, error, tolerance, off, kinks | (compared.slope_jumps > 0), None, reason, _note(compared, kinks))


def of_client(
    objective: Differentiated, numeric: Numeric, name: str, compared: Compared, believed: Tensor, precision: ClientPrecision
) -> Verdict:
    """Against the client's derivative, shape [rows, *input] like ours; `precision.half` is of that shape too."""
    is_valued = numeric.has_values(name)
    compared, has_unknown = without_unknown(compared)
    believed = precision.as_meant(believed, _reference(compared)[1])
    if bool(is_valued.all()):
        verdict = _of_client(objective, numeric, name, compared, believed, precision)
        without_number = has_unknown and verdict.agrees is not False
        return replace(verdict, agrees=None, reason=Reason.NO_NUMBER) if without_number else verdict
    ours, is_infinite = compared.ours, is_valued.logical_not() & numeric.is_infinite(name)
    valued = _of_client(
        objective, numeric, name, _of_valued(compared, is_valued), torch.where(is_valued, believed, 0.0), precision
    )
    # Where there is no value, PyTorch's derivative of the other terms may still be another than the client's.
    tolerance = RELATIVE * ours.abs().nan_to_num(0, 0, 0) + _rounding(objective, name, ours, precision, None)
    apart = _difference(believed, ours)
    off = (apart > tolerance) & (torch.isfinite(ours.abs()) | (is_infinite & ~ours.isnan())) & ~is_valued
    error, off = torch.where(is_valued, valued.error, torch.where(ours.isnan(), 0.0, apart)), valued.off | off
    agrees, reason = (False, None) if valued.agrees is False or bool(off.any()) else (None, Reason.NO_NUMBER)
    return replace(valued, agrees=agrees, error=error, off=off, believed=believed, reason=reason, note=None)


def _of_client(
    objective: Differentiated, numeric: Numeric, name: str, compared: Compared, believed: Tensor, precision: ClientPrecision
) -> Verdict:
    """The same where the function has values."""
    ours = compared.ours
    suspects = compared.contradicted | ~((believed - ours).abs() <= RELATIVE * ours.abs())
    search = cache(lambda: subgradients(objective, name, ours, numeric.size, suspects, believed))  # once: hundreds of them
    is_subgradient = may_be_of_a_tie(objective, numeric, name, compared, search)
    if is_subgradient is not False:
        compared = replace(compared, contradicted=torch.zeros_like(compared.contradicted), agrees=True, broken=False)
    repaired, reference = _reference(compared)
    tolerance = torch.where(repaired, compared.tolerance, RELATIVE * ours.abs().nan_to_num(0, 0, 0))
    apart, kinks = _difference(believed, reference), ~torch.isnan(compared.low)
    off, reason = apart > tolerance, Reason.CORNERS if is_subgradient is None else None
    open_question, unforgiven, doubt, around, excluded = is_subgradient is None, apart, torch.zeros_like(apart), None, None
    if bool(off.any()):
        around = search()
        inside, excluded = at_kinks(compared, believed, around, precision)
        kinks = kinks if around is None else kinks | around.kinks
        open_question, reason = (True, Reason.CORNERS) if excluded is None else (open_question, reason)
        if not excluded:
            apart = torch.where(inside, 0.0, apart)
        off = apart > tolerance
    if bool(off.any()):
        limits = None if around is None else (around.low, around.high)
        doubt = _rounding(objective, name, ours, precision, limits)
        tolerance = tolerance_with(doubt, tolerance, apart, precision)
        off = apart > tolerance
    if bool(off.any()):
        noise, shows = _noise(objective, numeric, name, reference, apart, precision)
        tolerance = tolerance + torch.where((believed != 0) & (believed.abs() < _BY_LUCK * noise), 0.0, noise)
        if not shows and bool(off.any()) and not bool((apart > tolerance).any()):
            open_question, reason = True, Reason.AS_DIFFERENCES
        off = apart > tolerance
    if bool(off.any()) and (why := _undecided(objective, numeric, name, compared, believed, precision, doubt, off, apart)):
        open_question, reason, off = True, why, torch.zeros_like(off)
    may_be_right, why = left_open(compared, believed, None if excluded else around, apart, off)
    if why is not None:
        open_question, reason, off = True, why, off & ~may_be_right
    if reason == Reason.CORNERS and is_subgradient is not None and bool((unforgiven <= tolerance).all()):
        open_question = False  # it agrees with PyTorch's own choice there
    lost, has_few = _lost(objective, name, compared.ours, believed, reference, (apart, tolerance, doubt), precision)
    agrees, reason = _answer(compared, bool(repaired.any()), bool(off.any()), (reason if open_question else None) or lost)
    if agrees and is_of_own_backward(objective, kinks):
        agrees, reason = is_mixture(objective, numeric, name, believed, kinks), Reason.CORNERS
    kinks = kinks | (compared.slope_jumps > 0)
    note = _AUTODIFF_WRONG if agrees and _is_better(compared, believed, repaired) else _note(compared, kinks)
    note = note or (_FEW_DIGITS if agrees and has_few else None)
    error = torch.where(compared.contradicted & ~repaired, torch.maximum(apart, compared.error), apart)
    return Verdict(agrees, error, tolerance, off, kinks, believed, reason if agrees is None else None, note)


def _of_valued(compared: Compared, is_valued: Tensor) -> Compared:
    """With nothing to compare in rows that have no value: `is_valued` of shape [rows, 1…]."""
    ours, values, tolerance = (torch.where(is_valued, of, 0.0) for of in (compared.ours, compared.values, compared.tolerance))
    low, high, *steep = (torch.where(is_valued, of, torch.nan) for of in (compared.low, compared.high, *compared.steep))
    off, whole, jumps = compared.contradicted & is_valued, compared.whole, compared.slope_jumps
    agrees, steep_range = not bool(off.any()), (steep[0], steep[1])
    return Compared(
        ours, values, low, high, tolerance, off, agrees, False, whole, compared.exact, compared.note, jumps, steep_range
    )


def _difference(believed: Tensor, reference: Tensor) -> Tensor:
    """By element; zero where both are NaN or the same infinity, infinite where one is NaN."""
    same = (believed == reference) | (believed.isnan() & reference.isnan())
    return torch.nan_to_num(torch.where(same, 0.0, (believed - reference).abs()), torch.inf, torch.inf)


def _is_better(compared: Compared, believed: Tensor, repaired: Tensor) -> bool:
    """Whether the client's number is another than PyTorch's where that is not what differences give."""
    return bool((repaired & (_difference(believed, compared.ours) > RELATIVE * compared.ours.abs().nan_to_num(0, 0, 0))).any())


def _reference(compared: Compared) -> tuple[Tensor, Tensor]:
    """Where differences stand in for PyTorch's number, and what the client is compared with: shape [rows, *input] each."""
    repaired = compared.contradicted & ~torch.isnan(compared.values.abs())
    return repaired, torch.where(repaired, compared.values, compared.ours)


def _answer(compared: Compared, repaired: bool, off: bool, why: Reason | None) -> tuple[bool | None, Reason | None]:
    """Whether the client is right, and why that cannot be told.

    Arguments:
        repaired: differences stand in for PyTorch's number somewhere.
        off: the client's number is another somewhere.
        why: what leaves it open, where the client's number is within that.
    """
    if compared.agrees is None:
        return None, Reason.UNSETTLED
    if compared.broken or (compared.agrees is False and not repaired):
        # What is no derivative of the function is not confirmed by being PyTorch's number as well, and not refuted either.
        return (
            (False, None)
            if off or not compared.broken
            else (None, Reason.NO_NUMBER if why == Reason.NO_NUMBER else Reason.NO_DERIVATIVE)
        )
    if off:
        return False, None
    return (True, None) if why is None else (None, why)


def _lost(
    objective: Differentiated,
    name: str,
    ours: Tensor,
    believed: Tensor,
    reference: Tensor,
    amounts: tuple[Tensor, Tensor, Tensor],
    precision: ClientPrecision,
) -> tuple[Reason | None, bool]:
    """Why what rounding leaves of the derivative is too little to agree with; and whether as much is lost in its arithmetic anyway.

    Arguments:
        amounts: what `believed` and `reference` differ by, what they may, and what rounding and printed digits are of that.
    """
    apart, tolerance, doubt = amounts
    if is_nothing_left(believed, reference, tolerance, apart, precision):
        return Reason.NO_DIGITS, False
    written = 0.0 if precision.half is None else precision.half.reshape(apart.shape)
    unexplained = apart - (tolerance - doubt + written)
    is_lost = is_open(objective, name, ours, believed, reference, unexplained, doubt - written, precision)
    return Reason.ROUNDING if is_lost else None, is_lost is None


def _nearly_undecided(compared: Compared, believed: Tensor, doubt: Tensor, off: Tensor) -> Reason | None:
    """Why elements at which the client has PyTorch's number, and differences another, do not prove both wrong; None where they do.

    Arguments:
        doubt: what the client's precision leaves in doubt, shape of `believed`.
    """
    ours = compared.ours
    is_ours = compared.contradicted & ((believed - ours).abs() <= RELATIVE * ours.abs() + doubt)
    nearly = is_ours & ((compared.values - ours).abs() <= _FAR_OFF * compared.tolerance)
    return None if bool((off & ~nearly).any()) else Reason.TWO_AGAINST_ONE


def _undecided(
    objective: Differentiated,
    numeric: Numeric,
    name: str,
    compared: Compared,
    believed: Tensor,
    precision: ClientPrecision,
    doubt: Tensor,
    off: Tensor,
    apart: Tensor,
) -> Reason | None:
    """Why elements that are off do not prove the client's derivative wrong; None where they do."""
    if (why := _nearly_undecided(compared, believed, doubt, off)) is not None:
        return why
    if bool((off & torch.isinf(apart)).any()):
        return None  # no rounding, and no printing of digits, makes a number of infinity, or infinity of a number
    is_zero_anyway = not bool((compared.ours != 0).any())  # PyTorch's, and not for its arithmetic
    if precision.zeros and (
        bool((apart <= ZERO_AS_PRINTED).all())
        or (not is_zero_anyway and vanishes_in_float32(objective, name, compared.ours, precision))
    ):
        return Reason.ZEROS
    _, reference = _reference(compared)
    if precision.coarse is not None and bool((~off | (apart <= precision.coarse.reshape(apart.shape))).all()):
        return Reason.COARSE
    if reference.is_complex():
        return None
    are_rounded = precision.whole is not None and not bool((off & (reference == reference.round())).any())
    if are_rounded and precision.whole is not None and bool((~off | (apart <= precision.whole.reshape(apart.shape))).all()):
        return Reason.WHOLE
    size = _function_over_element(objective, numeric, name)
    reference_size, believed_size = reference.abs().nan_to_num(0, 0, 0), believed.abs()
    noise = (
        (believed_size >= torch.maximum(_LAST_BIT * size, _DROWNED * reference_size))
        & (believed_size <= _BENEATH_ALL * size)
        & (reference_size <= _NOT_SEEN * size)
    )
    nothing = (believed_size == 0) & (reference_size <= _NOT_MOVED * size)
    rows = (
        (reference_size <= _NOT_SEEN * size)
        .reshape(len(reference_size), -1)
        .all(1)
        .reshape(-1, *[1] * (reference_size.ndim - 1))
    )
    return Reason.BENEATH if bool((~off | (rows & (noise | nothing))).all()) else None


def _function_over_element(objective: Differentiated, numeric: Numeric, name: str) -> Tensor:
    """The size of each row's terms over that of each element: what a step's rounding is divided by, shape [rows, *input]."""
    leaf = objective.point.leaves[name]
    return numeric.size.reshape(-1, *[1] * leaf.ndim) / scale_of(leaf).clamp(min=1e-300)


def _rounding(
    objective: Differentiated, name: str, ours: Tensor, precision: ClientPrecision, around: tuple[Tensor, Tensor] | None
) -> Tensor:
    """What the precision of the client's numbers, and their printed digits, leave in doubt."""
    spread = rounding_spread(objective, name, ours, precision.eps, around) + precision.tiny
    return spread if precision.half is None else spread + precision.half.reshape(spread.shape)


def _note(compared: Compared, kinks: Tensor) -> str | None:
    return compared.note or (KINK if bool((kinks | (compared.slope_jumps > 0)).any()) else None)


def _noise(
    objective: Differentiated, numeric: Numeric, name: str, reference: Tensor, apart: Tensor, precision: ClientPrecision
) -> tuple[Tensor, bool]:
    """What finite differences made by the client may be off by: as much as shows where a wrong formula could not hide.

    And whether it shows anywhere: no element may be large enough.
    """
    leaf = objective.point.leaves[name]
    size = _function_over_element(objective, numeric, name)
    row = reference.abs().nan_to_num(0, 0, 0).reshape(len(reference), -1)
    largest_of_row = row.amax(1).reshape(-1, *[1] * leaf.ndim) if reference.numel() else size
    most = _NOISE_AT_MOST * torch.maximum(size, largest_of_row)
    agreeing = torch.isfinite(apart) & (apart <= RELATIVE * reference.abs())
    # What agrees far better than differences of this function could was computed by a formula, and so was what stands beside it.
    beneath = (reference != 0) & (RELATIVE * reference.abs() <= _BY_LUCK * _NO_ELEMENT * size)
    sure = agreeing & ((reference.abs() > _SURE * most) | beneath)
    if not bool(sure.any()):
        return torch.minimum(_NO_ELEMENT * size, _OF_THE_ROW * largest_of_row), False
    beyond_rounding = torch.where(apart > _ROUNDINGS * precision.eps * reference.abs(), apart, 0.0)
    seen = max(_NOISE_SLACK * float(beyond_rounding[sure].median()), _LARGEST_SLACK * float(beyond_rounding[sure].max()))
    return torch.clamp(most, max=seen), True


def tolerances_of_all(verdict: Verdict, ours: Tensor, eps: float) -> list[float]:
    """What two derivatives as a whole may differ by, relative to each element, strictest first: as rounding in the client's arithmetic,
    whose `eps` this is, as the most certain element, as the half of them, as all of them. What differences of the client's leave in doubt
    of small elements is no reason to doubt the larger ones.
    """
    size = largest(ours)
    levels = [4 * RELATIVE]
    large = ours.abs() > 1e-3 * size if size else torch.zeros_like(ours, dtype=torch.bool)
    if not verdict.tolerance.numel() or not bool(large.any()):
        return levels
    relative = verdict.tolerance[large] / ours.abs()[large]
    for level in sorted(
        (*(units * eps for units in _UNITS), *(float(of) for of in (relative.min(), relative.median(), relative.max())))
    ):
        if min(level, _NAMED) > _LEVELS * levels[-1]:
            levels.append(min(level, _NAMED))
    return levels
