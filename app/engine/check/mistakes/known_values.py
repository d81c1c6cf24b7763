"""What two derivatives differ by where no mistake is known that makes it: a value of the program, as a factor or as a term."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from app.engine.check.mistakes.case import Case, Claim, place_of
from app.engine.explain.findings import operation_of
from app.engine.stepwise.point import Ref

# Elements that must show it, each to so many digits: of a hundred values one fits three elements to three digits by a chance of 1e-7.
_ELEMENTS: Final = 3
_RELATIVE: Final = 1e-3
_OF_ONE_NUMBER: Final = 1e-5  # one number that all elements are multiplied by is more easily another's by chance


def by_a_value(case: Case) -> Iterator[Claim]:
    """Ours times, or divided by, a value of the program, element by element; ours and a multiple of it."""
    if case.relative > _RELATIVE or case.ours.shape != case.expected.shape or case.ours.is_complex():
        return
    if case.elements(case.ours) < _ELEMENTS or case.expected.is_complex():
        return
    known = list(_values(case))
    for what, value in known:
        for by, word in ((value, "times"), (1 / value, "divided by")):
            if (_varies(value) or case.relative < _OF_ONE_NUMBER) and case.fits(case.ours * by):
                yield Claim("elementwise_factor", f"Yours is ours {word} {what}.")
                return
    apart = case.expected - case.ours
    for what, value in [*known, ("in every element", torch.ones_like(case.ours))]:
        c = _multiple(value, apart)
        is_number = not _varies(value)
        if not c or is_number != (what == "in every element") or case.factor(value, case.ours) is not None:
            continue
        if (is_number or case.elements(value) >= _ELEMENTS) and case.fits(case.ours + c * value):
            size = f"{abs(c):.6g} " if is_number else "" if abs(abs(c) - 1) <= case.relative else f"{abs(c):.6g} times "
            yield Claim("differs_by_term", f"Yours is ours {'plus' if c > 0 else 'minus'} {size}{what}.")
            return


def _values(case: Case) -> Iterator[tuple[str, Tensor]]:
    """What each value is that fits the shape of the derivative, and the value spread over it."""
    names: dict[Ref, str] = {ref: f"`{name}`" for name, ref in case.trace.leaves.items()}
    shape = case.ours.shape
    for ref, value in case.trace.values.items():
        if value.dtype != case.ours.dtype or not bool(torch.isfinite(value).all()):
            continue
        what = names.get(ref) or f"the value of `{operation_of(ref[0])}`{place_of(ref[0])}"
        for spread in (
            value,
            value.reshape(*value.shape, *[1] * (len(shape) - value.ndim)),
        ):  # along the last axes, or the first
            if spread.ndim <= len(shape) and all(n in (1, m) for n, m in zip(spread.shape[::-1], shape[::-1], strict=False)):
                yield what, spread.detach().expand(shape)


def _varies(value: Tensor) -> bool:
    return bool((value != value.reshape(-1)[0]).any())


def _multiple(value: Tensor, apart: Tensor) -> float:
    """The number that brings its multiple nearest to the difference."""
    size = float(value.abs().max())
    if not size:
        return 0.0
    scaled = value / size
    return float((scaled * apart).sum()) / float((scaled * scaled).sum()) / size
