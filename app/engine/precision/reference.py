"""What a computed derivative is compared with: numbers of 60 digits where they can be had, else float64, else an estimate of its doubt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from app.engine.precision.digits import ROUNDED_ZERO, full_digits, largest, right_digits
from app.engine.precision.exact_arithmetic.known_constants import with_known_constants
from app.engine.precision.exact_arithmetic.numbers import DIGITS, MP
from app.engine.precision.exact_arithmetic.tensor import ExactTensor, Ledger, TooLongError, exact
from app.engine.precision.random_rounding import RUNS, RandomRounding
from app.engine.precision.runs import Run, run_steps
from app.engine.stepwise.point import Ref
from app.engine.stepwise.trace import StepTrace

# Numbers of 60 digits that one answer may make: about 5 µs each, so about a second.
_BUDGET: Final = 200_000
_MOST_DIGITS: Final = 600  # 1e300 and 1e-300 in one sum
# What rounding leaves of a zero has 60 digits less in the finer run; half of that decides.
_SHRINKS: Final = 1e-30
_BINARY: Final = 1024  # a half is meant exactly; 0.1 is rounded
_LAST_BIT: Final = 2.0**-53  # of a float64
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
        wide_digits: how many digits of the worst number float64 gives.
    """

    name: str
    run: Run
    zero: float = ROUNDED_ZERO
    doubt: str | None = None
    wide_digits: float = 0.0


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
        # A digit more than the narrow dtype holds is enough to judge it by; what is small beside other numbers is then no zero either.
        digits = agreement(wide, ordinary, run[0], run[1])
        right = whole < full_digits(torch.float64) and digits > whole + 1 and not _hides_a_zero(wide, ordinary, run[0])
        return Reference(_WIDE if right else _EXACT, ordinary if right else run[0], run[1], wide_digits=digits)
    if not _all_finite(wide, ordinary):
        return Reference(
            _WIDE, ordinary, doubt="float64 gives no finite number here itself, so there is nothing to compare with"
        )
    mean = _mean([_moved(wide, seeds, number) for number in range(RUNS)])
    if _all_finite(wide, ordinary) and not _all_finite(wide, mean):
        return Reference(_WIDE, ordinary, doubt="float64's own digits could not be estimated here")
    if whole >= full_digits(torch.float64):
        return Reference(_ESTIMATE, mean)
    digits = agreement(wide, ordinary, mean)
    if digits > whole + 1:
        return Reference(_WIDE, ordinary, wide_digits=digits)
    return Reference(_WIDE, ordinary, doubt=f"float64 itself is right to about {digits:.0f} digits only")


def _hides_a_zero(trace: StepTrace, run: Run, other: Run) -> bool:
    """Whether what is exactly zero in the other run is some rounding error in this one: a narrow zero is not to be judged by that."""
    pairs = [(run.cotangents.get(ref), other.cotangents.get(ref)) for ref in trace.leaves.values()]
    pairs += [(run.values.get(ref), other.values.get(ref)) for ref in trace.outputs]
    return any(bool(((ours != 0) & (exact == 0)).any()) for ours, exact in pairs if ours is not None and exact is not None)


def agreement(trace: StepTrace, run: Run, other: Run, zero: float = ROUNDED_ZERO) -> float:
    """The digits in which two runs agree, in every derivative of an input and every output; the least of them.

    `zero`: the share of the largest number below which one of the other run's is zero.
    """
    least = full_digits(torch.float64)
    scale = largest_of(other)
    for cotangents, others, refs in (
        (run.cotangents, other.cotangents, trace.leaves.values()),
        (run.values, other.values, trace.outputs),
    ):
        for ref in refs:
            if ref in cotangents and ref in others and cotangents[ref].size:
                least = min(least, float(right_digits(cotangents[ref], others[ref], torch.float64, scale, zero).min()))
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
    run = _without_leftovers(first[0], second[0])
    if run is not None and _all_finite(wide, run) and not _vanishes(wide, run):
        return run, second[1]
    # 1 − (1 − e⁻¹⁰⁰⁰) needs 435 digits, and logits of 1000 are met: it is zero in 120, and its logarithm infinite.
    third = _with_digits(wide, seeds, _MOST_DIGITS)
    if third is None:
        return second
    return _without_leftovers(second[0], third[0]) or third[0], third[1]


def _without_leftovers(rough: Run, fine: Run) -> Run | None:
    """The finer of two runs, its zeros exact: what shrinks with the last digits is what rounding left of nothing.

    None where the two differ in some number by more than the last bit of float64, so that more digits are needed.
    """
    try:
        values = {ref: _settled(rough.values[ref], numbers) for ref, numbers in fine.values.items()}
        cotangents = {ref: _settled(rough.cotangents[ref], numbers) for ref, numbers in fine.cotangents.items()}
        parts = {
            ref: [(record, _settled(rough.parts[ref][i][1], share)) for i, (record, share) in enumerate(shares)]
            for ref, shares in fine.parts.items()
        }
    except _UnsettledError:
        return None
    return Run(values, cotangents, parts)


class _UnsettledError(Exception):
    """Two runs differ where more digits would decide."""


def _settled(rough: Any, fine: Any) -> Any:
    if np.asarray(fine).dtype != object:
        return fine
    return np.asarray(np.frompyfunc(_number, 2, 1)(rough, fine), dtype=object)


def _number(rough: Any, fine: Any) -> Any:
    if not (MP.isfinite(rough) and MP.isfinite(fine)) or rough == fine:
        return fine
    if abs(fine) < abs(rough) * _SHRINKS or (fine == 0 and abs(rough) > 0):
        return MP.mpf(0)
    if abs(rough - fine) > abs(fine) * _LAST_BIT:
        raise _UnsettledError
    return fine


def _with_digits(wide: StepTrace, seeds: Mapping[Ref, Tensor], digits: int) -> tuple[Run, float] | None:
    return exactly(wide, seeds, digits, _BUDGET * DIGITS // digits)


def exactly(
    wide: StepTrace, seeds: Mapping[Ref, Tensor], digits: int, budget: int, move: Callable[[Any], Any] | None = None
) -> tuple[Run, float] | None:
    """A run in so many digits, and what is zero in it as of `Reference`; None where it is too long or some call has no exact meaning.

    Arguments:
        budget: of numbers.
        move: another number in the place of each that was sent, or is written with a fraction but for halves, quarters and the like.
    """
    ledger = Ledger(budget)

    def wrapped(tensor: Tensor) -> Tensor:
        whole = exact(tensor, ledger)
        if move is not None:
            whole.numbers = np.asarray(np.frompyfunc(move, 1, 1)(whole.numbers), dtype=object)
        return whole

    try:
        with MP.workdps(digits), np.errstate(all="ignore"):
            trace = with_known_constants(wide, ledger)
            if move is not None:
                ledger.constant = _moved_constants(ledger, move)
            run = run_steps(trace, seeds, wrapped)
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
    return None if ledger.unproved else (run, ROUNDED_ZERO if ledger.decomposed else 0.0)


def _moved_constants(ledger: Ledger, move: Callable[[Any], Any]) -> Callable[[float], Any]:
    known = ledger.constant

    def constant(value: float) -> Any:
        number = value if known is None else known(value)
        if not isinstance(number, float) or (number * _BINARY).is_integer():
            return number
        return ExactTensor(torch.tensor(number, dtype=torch.float64), np.array(move(MP.mpf(number)), dtype=object), ledger)

    return constant


def _all_finite(trace: StepTrace, run: Run) -> bool:
    numbers = [run.cotangents.get(ref) for ref in trace.leaves.values()] + [run.values.get(ref) for ref in trace.outputs]
    return all(each is None or _is_finite(np.asarray(each)) for each in numbers)


def _vanishes(trace: StepTrace, run: Run) -> bool:
    """An output has a zero, or the derivative with respect to an input is nothing but zeros."""
    outputs = [np.asarray(run.values[ref]) for ref in trace.outputs if ref in run.values]
    derivatives = [np.asarray(run.cotangents[ref]) for ref in trace.leaves.values() if ref in run.cotangents]
    return any((each == 0).any() for each in outputs) or any(each.size > 0 and not each.any() for each in derivatives)


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
