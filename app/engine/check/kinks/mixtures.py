"""Whether numbers at kinks are a subgradient: each in the range of its own kink, and all of them one mixture of what lies around."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from app.engine.check.agreement import RELATIVE, Compared
from app.engine.check.client_precision import ClientPrecision
from app.engine.check.finite_differences import DIRECTIONS, Numeric
from app.engine.check.kinks.subgradients import Subgradients, subgradients
from app.engine.check.objective import Differentiated
from app.engine.check.reasons import Reason
from app.engine.stepwise.point import REFUSALS
from app.program.differentiation.custom_functions import Custom

_BESIDE: Final = 2.0**-30  # a step that leaves a thousand tied elements apart, each by its own part of it
_FORWARD, _ABOUT = 2.0**-20, 1e-3  # a step whose differences hold three digits and more, and these
_ALONG: Final = 1e-5  # relative, of a directional derivative: ten times what an element may be off by
# Of what two sides along an axis differ by, how far a subgradient of a complex number may be from another: the disc of abs has its radius.
_OVER_A_SIDE: Final = 0.5
_CONTINUES: Final = 64.0  # roundings by which a function that does not jump may move


def may_be_of_a_tie(
    objective: Differentiated,
    numeric: Numeric,
    name: str,
    compared: Compared,
    search: Callable[[], Subgradients | None],
) -> bool | None:
    """Whether what differences contradict, or confirm nowhere, is a subgradient at a tie; None where too many are tied to tell."""
    if compared.agrees is False:
        return _is_of_a_tie(objective, numeric, name, compared, search())
    is_open = compared.agrees is None and _has_ties(objective, name)
    return is_open and bool(_is_of_a_tie(objective, numeric, name, compared, search()))


def _has_ties(objective: Differentiated, name: str) -> bool:
    """Whether some elements of the input are equal: of many tied order statistics no element moves anything by itself."""
    leaf = objective.point.leaves[name]
    return not leaf.is_complex() and bool((leaf.flatten().sort().values.diff() == 0).any())


def _is_of_a_tie(
    objective: Differentiated, numeric: Numeric, name: str, compared: Compared, around: Subgradients | None
) -> bool | None:
    """Whether PyTorch's number is one all the same where differences of single elements see another: of tied medians each moves nothing.

    None where so many are tied that it cannot be told.
    """
    if compared.ours.is_complex():
        return False
    if around is None or not bool((around.kinks | around.unsure | ~compared.contradicted).all()):
        return False
    rounding = _CONTINUES * torch.finfo(numeric.base.dtype).eps * numeric.size
    if not around.is_continuous(numeric.base, rounding) or not _is_right_beside(objective, numeric, name):
        return False
    if around.proves(compared.ours, with_ours=False):
        return True
    within = around.contains(compared.ours) | around.leaves_open(compared.ours) | ~compared.contradicted
    if not bool(within.all()) and around.is_range_known():
        return False
    # Eight tied medians have more corners than are ever seen: of a tie only what no mixture can be is called wrong.
    return False if around.off_the_plane(compared.ours, torch.zeros_like(compared.error)) else None


def _is_right_beside(objective: Differentiated, numeric: Numeric, name: str) -> bool:
    """Whether PyTorch's derivatives beside the point are what differences along random directions see: no path is cut, and ties do the rest."""
    leaf = objective.point.leaves[name]
    for number in range(DIRECTIONS):
        seen = numeric.along(name, number)
        if seen is None:
            continue
        direction, value, doubt = seen
        step = _BESIDE * (float(leaf.abs().nan_to_num(0, 0, 0).mean()) or 1.0)
        try:
            beside = objective.derivative({name: leaf + step * direction})[name]
        except REFUSALS:
            return False
        products = (beside * direction).reshape(len(beside), -1)
        if bool((((products.sum(1) - value).abs()) > _ALONG * products.square().sum(1).sqrt() + 3 * doubt).any()):
            return False
    return True


def is_of_own_backward(objective: Differentiated, kinks: Tensor) -> bool:
    """Whether what is taken at kinks may be what a program's own `backward` says: each element in its range is no proof then."""
    return bool(kinks.any()) and any(isinstance(node.target, Custom) for node in objective.point.nodes)


def is_mixture(objective: Differentiated, numeric: Numeric, name: str, derivative: Tensor, kinks: Tensor) -> bool | None:
    """Whether elements that are each in their range are a subgradient together, without what the program says itself at the point.

    Arguments:
        derivative: shape [rows, *input]; `kinks` of that shape.
    """
    around = subgradients(objective, name, derivative, numeric.size, kinks)
    if derivative.is_complex():
        return True
    if around is None:  # nothing bends in what the program says, though the function does
        return _is_slope(objective, numeric, name, derivative)
    doubt = RELATIVE * derivative.abs()
    # First: a search for mixtures may come to where all elements move together, and to what the program says of their tie again.
    if around.off_the_plane(derivative, doubt):
        return False
    if around.proves(derivative, with_ours=False):
        return True
    excluded = around.excludes(derivative, kinks, doubt)
    return None if excluded is None else not excluded


def _is_slope(objective: Differentiated, numeric: Numeric, name: str, derivative: Tensor) -> bool:
    """Whether `derivative` [rows, *input] is what the function grows by where all elements grow alike, if that is differentiable that way."""
    leaf = objective.point.leaves[name]
    step = _FORWARD * (float(leaf.abs().nan_to_num(0, 0, 0).mean()) or 1.0)
    try:
        ahead, behind = (objective.values({name: leaf + side * step}) for side in (1.0, -1.0))
    except REFUSALS:
        return True
    right, left, said = (ahead - numeric.base) / step, (numeric.base - behind) / step, derivative.reshape(len(ahead), -1).sum(1)
    size = torch.maximum(right.abs(), left.abs())
    settled = ((right - left).abs() <= _ABOUT * size) & (size * step > _FORWARD * _ABOUT * numeric.size)
    return not bool((settled & ((said - right).abs() > 10 * _ABOUT * size)).any())


def at_kinks(
    compared: Compared, believed: Tensor, around: Subgradients | None, precision: ClientPrecision
) -> tuple[Tensor, bool | None]:
    """Elements of `believed` that are subgradients; and whether together they are none (None: not to be told)."""
    if believed.is_complex():
        return torch.zeros(believed.shape, dtype=torch.bool, device=believed.device), False
    between = (believed >= compared.low) & (believed <= compared.high)
    if around is None:
        return between, False
    if around.proves(believed):
        return torch.ones_like(between), False
    inside = between | around.contains(believed)
    half = precision.coarse if precision.half is None else precision.half
    doubt = precision.eps * believed.abs() + (0.0 if half is None else half.reshape(believed.shape))
    return inside, around.excludes(believed, between, doubt) if bool(inside.any()) else False


def _between_steep(compared: Compared, believed: Tensor) -> Tensor:
    """Elements at which one side is infinitely steep, and which are not beyond both."""
    low, high = compared.steep
    if believed.is_complex():
        return torch.zeros_like(low, dtype=torch.bool)
    return ~torch.isnan(low) & (low != high) & (believed.isnan() | ((believed >= low) & (believed <= high)))


def without_unknown(compared: Compared) -> tuple[Compared, bool]:
    """Without contradictions where PyTorch gives NaN and differences nothing, so that any number may be right; whether there are such."""
    unknown = compared.ours.isnan() & compared.values.isnan() & torch.isnan(compared.steep[0])
    if compared.ours.is_complex() or not bool(unknown.any()):
        return compared, False
    low, high = (torch.where(unknown, end, side) for end, side in zip((-torch.inf, torch.inf), compared.steep, strict=True))
    contradicted = compared.contradicted & ~unknown
    agrees = not compared.broken and not bool(contradicted.any())
    return replace(compared, contradicted=contradicted, agrees=agrees, steep=(low, high)), True


def left_open(
    compared: Compared, believed: Tensor, around: Subgradients | None, apart: Tensor, off: Tensor
) -> tuple[Tensor, Reason | None]:
    """Of the elements that are `off`, those that may be right all the same, and why; subgradients by what was seen around the point."""
    steep = off & _between_steep(compared, believed)
    corners = (compared.slope_jumps > 0) & (apart <= _OVER_A_SIDE * compared.slope_jumps)
    if around is not None and bool(off.any()):
        corners = corners | around.leaves_open(believed)
    corners = off & ~steep & corners
    return steep | corners, Reason.CORNERS if bool(corners.any()) else Reason.NO_NUMBER if bool(steep.any()) else None
