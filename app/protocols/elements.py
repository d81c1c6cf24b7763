"""Numbers → the bytes of a tensor's elements and back: rounding, range and non-finite words of every dtype."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.query import INTEGER_DTYPES

# The type in which numpy holds a dtype's bytes; bfloat16, which numpy lacks, as its bits.
NUMPY: Final[dict[str, np.dtype[Any]]] = {
    "bool": np.dtype("?"), "uint8": np.dtype("u1"), "int8": np.dtype("i1"), "int16": np.dtype("<i2"), "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2"), "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"), "complex64": np.dtype("<c8"), "complex128": np.dtype("<c16"),
}  # fmt: skip
# The dtype of a complex number's two parts.
PART: Final = {"complex64": "float32", "complex128": "float64"}
NONFINITE: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_RANGE: Final = {name: (int(np.iinfo(NUMPY[name]).min), int(np.iinfo(NUMPY[name]).max)) for name in INTEGER_DTYPES}
_LARGEST: Final = {"float16": "65504", "bfloat16": "3.3895e38", "float32": "3.4028e38", "float64": "1.7977e308"}
_EXACT_INTEGER: Final = float(1 << 53)  # from here on a float64 may already be another integer than the one that was written

Array = npt.NDArray[Any]


class ElementError(Exception):
    """Element `position` of the flat list is wrong: what should stand there, and perhaps what to do."""

    def __init__(self, position: int, expected: str, fix: str | None = None) -> None:
        super().__init__(position, expected)
        self.position = position
        self.expected = expected
        self.fix = fix


def inferred(flat: Sequence[Any], kinds: set[type]) -> str:
    """The dtype of a bare list: all-integer → int64, all booleans → bool, else float64 (docs/contract.md, section 2)."""
    if kinds == {bool}:
        return "bool"
    return "int64" if kinds == {int} else "float64"


def packed(flat: Sequence[Any], kinds: set[type], dtype: str) -> memoryview:
    """The elements' bytes in `dtype`, rounded to nearest even; for a complex dtype `flat` holds the parts, re and im in turn.

    Arguments:
        flat: Python values, row-major.
        kinds: the set of their types.

    Raises `ElementError` for the first element that is no number of that kind or out of the dtype's range.
    """
    if not flat:
        return memoryview(b"")  # a view of no elements cannot be cast to bytes
    if str in kinds:
        flat, kinds = _with_nonfinite_words(flat)
    if dtype == "bool":
        return _booleans(flat, kinds)
    if not kinds <= {int, float}:
        _refuse_kind(flat, (int, float), 'a number, "NaN", "Infinity" or "-Infinity"' if dtype not in _RANGE else "an integer")
    if dtype in _RANGE:
        return _integers(flat, kinds, dtype)
    wide = _doubles(flat)
    part = PART.get(dtype, dtype)
    if part == "float64":
        return memoryview(wide).cast("B")
    return _narrowed(np.frombuffer(wide, np.float64), part).data.cast("B")


def check_booleans(data: memoryview) -> int | None:
    """The position of the first byte that is neither 0 nor 1, or None. Such a byte reads as true and sums as itself."""
    codes = np.frombuffer(data, np.uint8)
    if not codes.size or codes.max() <= 1:
        return None
    return int(np.argmax(codes > 1))


def as_array(data: memoryview, dtype: str) -> Array:
    """The elements as a flat numpy array that prints their exact values: bfloat16 and float16 as float32, complex as pairs in a row."""
    if dtype == "bfloat16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype == "float16":
        return np.frombuffer(data, np.float16).astype(np.float32)
    flat = np.frombuffer(data, NUMPY[PART.get(dtype, dtype)])
    return flat if flat.flags.aligned else flat.copy()


def _with_nonfinite_words(flat: Sequence[Any]) -> tuple[list[Any], set[type]]:
    replaced = [NONFINITE.get(value, value) if type(value) is str else value for value in flat]
    return replaced, set(map(type, replaced))


def _refuse_kind(flat: Sequence[Any], allowed: tuple[type, ...], expected: str) -> None:
    raise ElementError(next(i for i, value in enumerate(flat) if type(value) not in allowed), expected)


def _booleans(flat: Sequence[Any], kinds: set[type]) -> memoryview:
    if kinds - {bool}:
        _refuse_kind(flat, (bool,), "true or false")
    return memoryview(bytearray(flat))


def _integers(flat: Sequence[Any], kinds: set[type], dtype: str) -> memoryview:
    if float in kinds:
        flat = [_integral(position, value) for position, value in enumerate(flat)]
    low, high = _RANGE[dtype]
    try:
        wide = np.frombuffer(array("q", flat), np.int64)
    except OverflowError:
        wide = None
    if wide is None or wide.min() < low or wide.max() > high:
        position = next(i for i, value in enumerate(flat) if not low <= value <= high)
        raise ElementError(
            position, f"an integer from {low} to {high} ({dtype})", "Send a wider dtype, or the value within its range."
        )
    return (wide if dtype == "int64" else wide.astype(NUMPY[dtype])).data.cast("B")


def _integral(position: int, value: float) -> int:
    """An integer written as a float (`3.0`), where it is certainly the one that was written."""
    if type(value) is int:
        return value
    if not (value.is_integer() and abs(value) < _EXACT_INTEGER):
        raise ElementError(position, "an integer", "Round it, or send a floating dtype.")
    return int(value)


def _doubles(flat: Sequence[Any]) -> array[float]:
    try:
        return array("d", flat)
    except OverflowError:
        position = next(i for i, value in enumerate(flat) if _overflows(value))
        raise ElementError(position, f"a number of at most {_LARGEST['float64']} in magnitude (float64)") from None


def _overflows(value: float) -> bool:
    try:
        float(value)
    except OverflowError:
        return True
    return False


def _narrowed(wide: npt.NDArray[np.float64], dtype: str) -> Array:
    """float64 → float32, float16 or bfloat16 (as bits), to nearest even; a finite number never becomes an infinity."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrow = _bfloat16(wide) if dtype == "bfloat16" else wide.astype(NUMPY[dtype])
    infinite = (narrow & 0x7FFF) == 0x7F80 if dtype == "bfloat16" else np.isinf(narrow)
    if infinite.any() and (lost := infinite & np.isfinite(wide)).any():
        raise ElementError(
            int(np.argmax(lost)), f"a number of at most {_LARGEST[dtype]} in magnitude ({dtype})", "Send a wider dtype."
        )
    return narrow


def _bfloat16(wide: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """float64 → the bits of bfloat16, rounded once.

    Two roundings to nearest are not one. So the first, to float32, is to odd (of the two neighbours the one whose last bit is 1):
    it keeps on which side of a midpoint the number lies (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    near = wide.astype(np.float32)
    back = near.astype(np.float64)
    to_odd = (back != wide) & np.isfinite(wide) & ((near.view(np.uint32) & 1) == 0)
    if to_odd.any():
        near = np.where(to_odd, np.nextafter(near, np.where(wide > back, np.inf, -np.inf).astype(np.float32)), near)
    bits = near.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(wide), np.uint16(0x7FC0), rounded)
