"""What a computed derivative is compared with: numbers of 60 digits where they can be had, else float64, else an estimate of its doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from app.engine.precision.digits import EXACT_ZERO, ROUNDED_ZERO, full_digits, largest, right_digits
from app.engine.precision.exact_arithmetic.numbers import DIGITS, MP
from app.engine.precision.exact_arithmetic.tensor import Ledger, TooLongError, exact
from app.engine.precision.random_rounding import RUNS, RandomRounding
from app.engine.precision.runs import Run, run_steps
from app.engine.stepwise.point import Ref
from app.engine.stepwise.trace import StepTrace

# Numbers of 60 digits that one answer may make: about 5 µs each, so about a second.
_BUDGET: Final = 200_000
_MOST_DIGITS: Final = 600  # 1e300 and 1e-300 in one sum
_EXACT: Final = "mpmath"
_WIDE: Final = "float64"
_ESTIMATE: Final = "float64 with random rounding"


@dataclass(frozen=True, slots=True)
class Reference:
    """The right numbers of a run.

    Attributes:
        name: how they were computed: `float64`, `mpmath` (60 to 600 digits), or `float64 with random rounding`.
        run: every tensor and cotangent.
        zero: the share of the largest number below which one of these is zero.
        doubt: why they may not be right themselves; None where nothing is in question.
    """

    name: str
    run: Run
    zero: float = ROUNDED_ZERO
    doubt: str | None = None


def reference(wide: StepTrace, seeds: Mapping[Ref, Tensor], dtypes: Sequence[torch.dtype]) -> Reference:
    """The reference for derivatives that were computed in `dtypes`.

    Arguments:
        wide: the Function taken apart in float64.
        seeds: the cotangents of its outputs, in float64.
    """
    ordinary = run_steps(wide, seeds, lambda tensor: tensor)
    whole = max(full_digits(dtype) for dtype in dtypes)
    run = _exactly(wide, seeds)
    if run is not None:
        # A digit more than the narrow dtype holds is enough to judge it by.
        right = whole < full_digits(torch.float64) and agreement(wide, ordinary, run[0]) > whole + 1
        return Reference(_WIDE, ordinary) if right else Reference(_EXACT, run[0], run[1])
    mean = _mean([_moved(wide, seeds, number) for number in range(RUNS)])
    if _all_finite(wide, ordinary) and not _all_finite(wide, mean):
        return Reference(_WIDE, ordinary, doubt="float64's own digits could not be estimated here")
    if whole >= full_digits(torch.float64):
        return Reference(_ESTIMATE, mean)
    digits = agreement(wide, ordinary, mean)
    if digits > whole + 1:
        return Reference(_WIDE, ordinary)
    return Reference(_WIDE, ordinary, doubt=f"float64 itself is right to about {digits:.0f} digits only")


def agreement(trace: StepTrace, run: Run, other: Run) -> float:
    """The digits in which two runs agree, in every derivative of an input and every output; the least of them."""
    least = full_digits(torch.float64)
    scale = largest_of(other)
    for cotangents, others, refs in (
        (run.cotangents, other.cotangents, trace.leaves.values()),
        (run.values, other.values, trace.outputs),
    ):
        for ref in refs:
            if ref in cotangents and ref in others and cotangents[ref].size:
                least = min(least, float(right_digits(cotangents[ref], others[ref], torch.float64, scale, ROUNDED_ZERO).min()))
    return least


def largest_of(run: Run) -> float:
    """The largest cotangent that passes anywhere: what may have cancelled where a derivative is zero."""
    return max((largest(cotangent) for cotangent in run.cotangents.values()), default=1.0)


def _exactly(wide: StepTrace, seeds: Mapping[Ref, Tensor]) -> tuple[Run, float] | None:
    """The run in as many digits as it needs, and what is zero in it; None where it is too long or some call has no exact meaning."""
    if wide.point.function.random or any(tensor.dtype.is_complex for tensor in wide.values.values()):
        return None
    first = _with_digits(wide, seeds, DIGITS)
    if first is None:
        return None
    second = _with_digits(wide, seeds, 2 * DIGITS)
    if second is None:
        return first
    if _all_finite(wide, first[0]) and agreement(wide, first[0], second[0]) >= full_digits(torch.float64):
        return first
    # 1 − (1 − e⁻¹⁰⁰⁰) needs 435 digits, and logits of 1000 are met.
    return _with_digits(wide, seeds, _MOST_DIGITS) or second


def _with_digits(wide: StepTrace, seeds: Mapping[Ref, Tensor], digits: int) -> tuple[Run, float] | None:
    ledger = Ledger(_BUDGET * DIGITS // digits)
    try:
        with MP.workdps(digits), np.errstate(all="ignore"):
            run = run_steps(wide, seeds, lambda tensor: exact(tensor, ledger))
    except (
        TooLongError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
        IndexError,
        ArithmeticError,
        AttributeError,
    ):
        # Some call cannot be made on tensors that carry more than PyTorch knows of: another reference serves.
        return None
    return None if ledger.unproved else (run, ROUNDED_ZERO if ledger.decomposed else EXACT_ZERO)


def _all_finite(trace: StepTrace, run: Run) -> bool:
    numbers = [run.cotangents.get(ref) for ref in trace.leaves.values()] + [run.values.get(ref) for ref in trace.outputs]
    return all(each is None or _is_finite(np.asarray(each)) for each in numbers)


def _is_finite(array: Any) -> bool:
    return bool(np.isfinite(array).all()) if array.dtype != object else all(MP.isfinite(number) for number in array.reshape(-1))


def _moved(wide: StepTrace, seeds: Mapping[Ref, Tensor], number: int) -> Run:
    with RandomRounding(number):
        return run_steps(wide, seeds, lambda tensor: tensor)


def _mean(runs: Sequence[Run]) -> Run:
    first = runs[0]
    parts = {
        ref: [(record, np.mean([run.parts[ref][i][1] for run in runs], axis=0)) for i, (record, _) in enumerate(shares)]
        for ref, shares in first.parts.items()
    }
    return Run(_means([run.values for run in runs]), _means([run.cotangents for run in runs]), parts)


def _means(runs: Sequence[Mapping[Ref, Any]]) -> dict[Ref, Any]:
    return {ref: np.mean([run[ref] for run in runs], axis=0) for ref in runs[0]}
