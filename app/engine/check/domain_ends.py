"""The derivative at the end of a domain, where a function is defined on one side only: the limit of that side's quotients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from app.engine.check.finite_differences import Coordinate, Differences, Numeric
from app.engine.stepwise.one_sided import NEAREST, scale_of
from app.engine.stepwise.quotients import CLEAN, settled, unbounded

# Steps relative to the element's scale, 0.75 decades apart: the last leaves six digits to a quotient in float64.
_STEPS: Final = tuple(10.0 ** -(1 + 0.75 * k) for k in range(1, 13))
_SETTLES: Final = 0.9  # what settles like h^(1/16) or faster; its limit is extrapolated


_DOUBTS: Final = 4  # the limit of h·log(h) is off by four times what neighbouring levels differ by
# Last bits of an element, where autodiff's derivative is not finite: the rounding within a step, as of sqrt in asin(sqrt(x)), may hide
# the end from the nearest number.
_REACH: Final = 4


def look_at_ends(
    numeric: Numeric, name: str, ours: Tensor, coordinates: Sequence[Coordinate], differences: Differences
) -> None:
    """Writes the one-sided derivative of the rows whose domain ends at the point, infinite ones as such, into `differences`.

    Arguments:
        ours: autodiff's derivative, shape [rows, elements].

    Rows that are not finite at the point itself, that settle already, or whose one side does not settle are left alone.
    So are elements that are infinite or NaN themselves: they have no neighbours.
    """
    for coordinate in coordinates:
        known = differences.value.get(coordinate)
        open_rows = torch.isfinite(numeric.base) if known is None else torch.isfinite(numeric.base) & ~torch.isfinite(known)
        if not bool(open_rows.any()):
            continue
        is_finite = bool(torch.isfinite(ours[:, coordinate[0]]).all())
        ended = _one_sided(numeric, name, coordinate, 1 if is_finite else _REACH)
        if ended is None:
            continue
        value, doubt = ended
        replaced = open_rows & ~torch.isnan(value)
        before = torch.full_like(value, torch.nan) if known is None else known
        own_doubt = differences.doubt.get(coordinate, 0.0)
        spread = own_doubt if isinstance(own_doubt, Tensor) else torch.full_like(value, own_doubt)
        differences.value[coordinate] = torch.where(replaced, value, before)
        differences.doubt[coordinate] = torch.where(replaced, doubt, spread.expand_as(value))


def _one_sided(numeric: Numeric, name: str, coordinate: Coordinate, reach: int) -> tuple[Tensor, Tensor] | None:
    """Value and doubt of every row, shape [rows], NaN where the domain does not end or the quotients do not settle.

    Arguments:
        reach: last bits of the element within which the domain must end.
    """
    leaf = numeric.leaf(name)
    if leaf.is_complex():
        return None
    scale = float(scale_of(leaf).reshape(-1)[coordinate[0]])
    own = float(leaf.reshape(-1)[coordinate[0]])
    if not math.isfinite(own):
        return None
    value = torch.full_like(numeric.base, torch.nan)
    doubt = torch.zeros_like(numeric.base)
    for sign in (-1.0, 1.0):
        outside = numeric.moved(name, coordinate, sign * (reach * numeric.last_bit(own) if own else NEAREST * scale))
        ends = torch.ones_like(value, dtype=torch.bool) if outside is None else ~torch.isfinite(outside[0])
        if not bool(ends.any()):
            continue
        inner = [numeric.moved(name, coordinate, -sign * step * scale) for step in _STEPS]
        if any(side is None for side in inner):
            continue
        rows = torch.stack([side[0] for side in inner if side])
        at = torch.tensor([side[1] for side in inner if side], dtype=rows.dtype, device=rows.device)
        quotients, noise = (rows - numeric.base) / at[:, None], numeric.noise / at.abs()[:, None]
        for row in (ends & torch.isfinite(quotients).all(0)).nonzero().reshape(-1).tolist():
            limit, spread = _limit(quotients[:, row], noise[:, row], at.abs())
            value[row], doubt[row] = limit, spread
    return value, doubt


def _limit(quotients: Tensor, noise: Tensor, steps: Tensor) -> tuple[float, float]:
    """The limit of one row's quotients over shrinking steps, and its doubt; NaN where they do neither settle nor grow without bound."""
    if (infinite := unbounded(quotients.tolist(), noise.tolist())) is not None:
        return infinite, 0.0
    value, doubt, _ = (float(of[0]) for of in settled(quotients[:, None], noise[:, None], steps, 1))
    candidates = [(doubt, value), *_extrapolated(quotients.tolist(), noise.tolist())]
    doubt, value = min(candidates)
    return (value, _DOUBTS * doubt) if math.isfinite(doubt) else (math.nan, 0.0)


def _extrapolated(quotients: Sequence[float], noise: Sequence[float]) -> list[tuple[float, float]]:
    """Doubts and limits of what settles like a power of the step, c + a·h^p (Aitken's delta-squared), by neighbouring triples."""
    limits: list[tuple[float, float] | None] = []
    for a, b, c, rounding in zip(quotients, quotients[1:], quotients[2:], noise[2:], strict=False):
        ratio = (c - b) / (b - a) if b != a else 0.0
        is_settling = 0 < ratio <= _SETTLES and rounding <= CLEAN * abs(c - b)
        limits.append((c + (c - b) * ratio / (1 - ratio), 4 * rounding / (1 - ratio) ** 2) if is_settling else None)
    return [
        (abs(here[0] - before[0]) + here[1], here[0])
        for before, here in itertools.pairwise(limits)
        if before is not None and here is not None
    ]
