"""How many decimal digits of computed numbers are right, element by element."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from app.engine.precision.exact_arithmetic.numbers import MP

Floats = npt.NDArray[np.float64]

# Below this share of the largest number a result is a zero, left over by float64's last bits, where the reference has no more
# (64 roundings: what a sum of some thousand terms leaves).
ROUNDED_ZERO: Final = 64 * 2.0**-52
# What is this small beside the numbers of the computation, and too small for the dtype to hold, is right as a zero.
_NEGLIGIBLE: Final = ROUNDED_ZERO
# A zero that is computed as a few roundings of what cancelled is as right as a rounded zero can be.
_ROUNDINGS: Final = 32


def full_digits(dtype: torch.dtype) -> float:
    """The digits that correct rounding leaves in `dtype`: 15.9 in float64, 7.2 in float32, 3.3 in float16, 2.4 in bfloat16."""
    return -math.log10(torch.finfo(dtype).eps / 2)


def right_digits(values: Floats, reference: Any, dtype: torch.dtype, scale: float, zero: float) -> Floats:
    """−log₁₀ of each element's relative error, between 0 and what `dtype` can hold.

    Arguments:
        values: what was computed, any shape.
        reference: the right numbers, of the same shape; floats or numbers of 60 digits.
        scale: how large the numbers are that may have cancelled; what an exact zero is judged by.
        zero: the share of the largest number below which a reference is zero.
    """
    if np.asarray(reference).dtype != object:
        return _right_digits_of_floats(values, np.asarray(reference), dtype, scale, zero)
    whole, info = full_digits(dtype), torch.finfo(dtype)
    numbers = np.asarray(reference, dtype=object).ravel()
    finite = [abs(number) for number in map(MP.mpmathify, numbers) if MP.isfinite(number)]
    largest = max(finite, default=MP.mpf(0))
    # What is too small for the dtype and does not count beside the largest is right as a zero.
    harmless = max(
        min(MP.mpf(info.tiny), largest * info.eps**2),
        min(MP.mpf(info.tiny * info.eps / 2), MP.mpf(min(scale, 1e300)) * _NEGLIGIBLE),
    )
    limit = max(largest, MP.mpf(scale) if math.isfinite(scale) else MP.mpf(0)) * MP.mpf(zero)
    out = [
        _digits(
            MP.mpmathify(value),
            MP.mpmathify(number),
            whole,
            harmless,
            limit,
            max(scale, float(min(largest, MP.mpf(1e300)))),
            info.eps,
        )
        for value, number in zip(values.ravel().tolist(), numbers, strict=True)
    ]
    return np.array(out, dtype=np.float64).reshape(values.shape)


def _right_digits_of_floats(values: Floats, right: Any, dtype: torch.dtype, scale: float, zero: float) -> Floats:
    """The same where the reference is float64 or complex128: all elements at once."""
    whole, info = full_digits(dtype), torch.finfo(dtype)
    finite = np.isfinite(values) & np.isfinite(right)
    with np.errstate(all="ignore"):
        size = np.abs(right)
        top = float(np.max(np.where(np.isfinite(size), size, 0.0), initial=0.0))
        harmless = max(min(info.tiny, top * info.eps**2), min(info.tiny * info.eps / 2, min(scale, 1e300) * _NEGLIGIBLE))
        reach = max(scale, top)
        limit = max(top, scale if math.isfinite(scale) else 0.0) * zero
        error = np.abs(values - right)
        digits = np.clip(-np.log10(error / size), 0.0, whole)
        of_zero = np.where(error <= _ROUNDINGS * info.eps * reach, whole, np.clip(-np.log10(error / reach), 0.0, whole))
        digits = np.where(size <= limit, of_zero if reach > 0 else 0.0, digits)
        digits = np.where((error == 0) | ((size <= harmless) & (error <= harmless)), whole, digits)
        same = (np.isnan(values) & np.isnan(right)) | (values == right)
    return np.asarray(np.where(finite, digits, np.where(same, whole, 0.0)), dtype=np.float64) + 0.0  # no -0.0


def _digits(value: Any, right: Any, whole: float, harmless: Any, zero: Any, scale: float, eps: float) -> float:
    if not MP.isfinite(value) or not MP.isfinite(right):
        same = (MP.isnan(value) and MP.isnan(right)) or value == right
        return whole if same else 0.0
    error = abs(value - right)
    if error == 0 or (abs(right) <= harmless and error <= harmless):
        return whole
    if abs(right) <= zero:
        if scale <= 0:
            return 0.0
        return whole if error <= _ROUNDINGS * eps * scale else _bounded(-math.log10(float(error / MP.mpf(scale))), whole)
    return _bounded(-float(MP.log10(error / abs(right))), whole)


def _bounded(digits: float, whole: float) -> float:
    return min(digits, whole) if digits > 0 else 0.0


def magnitudes(numbers: Any) -> list[Any]:
    """|n| of every element."""
    if np.asarray(numbers).dtype != object:
        sizes: list[Any] = np.abs(np.asarray(numbers)).reshape(-1).tolist()
        return sizes
    return [abs(number) for number in np.asarray(numbers, dtype=object).reshape(-1)]


def largest(numbers: Any) -> float:
    """The largest finite magnitude, at most 10³⁰⁰; zero where there is none."""
    array = np.asarray(numbers)
    if array.dtype != object:
        sizes = np.abs(array)
        return float(np.max(np.where(np.isfinite(sizes), sizes, 0.0), initial=0.0))
    return max((float(min(size, 1e300)) for size in magnitudes(numbers) if size < MP.inf), default=0.0)


def smallest(numbers: Any) -> float:
    """The smallest magnitude that is not zero; zero where there is none."""
    return min((float(size) for size in magnitudes(numbers) if size > 0), default=0.0)
