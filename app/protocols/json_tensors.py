"""A tensor in JSON → TensorData: bare numbers and lists, and the object form, each refusal with its place."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

from app.errors import PullbackError
from app.protocols.describe import describe, nearest
from app.protocols.elements import NONFINITE, PART, ElementError, check_booleans, inferred, packed
from app.protocols.strict_json import OutOfRange
from app.query import DTYPE_BYTES, RANK_LIMIT, TensorData

_FIELDS: Final = ("data", "dtype", "shape", "encoding")
# Zeros count as ones here: the strides of an empty tensor, and what a reduction makes of it, must stay small too.
_ELEMENTS_LIMIT: Final = 1 << 48
_FORMS: Final = 'Send a number, a nested list, or {"data": …, "dtype": …, "shape": …}.'


class RaggedError(PullbackError):
    """The lists of one level differ in length, or lists stand beside numbers: no tensor, though perhaps a list of tensors."""


def tensor(value: Any, at: str) -> TensorData:
    """The tensor that a parsed JSON value spells; one that is a tensor already passes through.

    Arguments:
        value: a number, a word of `NONFINITE`, nested lists, or an object with `data` and perhaps `dtype`, `shape`, `encoding`.
        at: its path in the query, for the errors.

    Raises `bad_tensor` with the path of the element (`inputs.weight.data[2][1]`).
    """
    if type(value) is list:
        return _listed(value, at, None, None)
    if type(value) is dict:
        return _object(value, at)
    if type(value) is TensorData:
        return value
    if type(value) in (int, float, bool) or (type(value) is str and value in NONFINITE):
        return _listed(value, at, None, None)
    if isinstance(value, OutOfRange):
        return _listed(value, at, None, None)  # refuses it as it refuses one among others
    fix = "Leave it out." if value is None else _FORMS
    raise PullbackError("bad_tensor", "This is not a tensor.", at=at, expected="a tensor", given=describe(value), fix=fix)


def place(position: int, shape: tuple[int, ...] | list[int]) -> str:
    """The index of the flat, row-major `position` in `shape`, as text: `[2][1]`."""
    index = []
    for extent in reversed(shape):
        position, here = divmod(position, extent)
        index.append(f"[{here}]")
    return "".join(reversed(index))


# --- the object form -------------------------------------------------------------------------------------------------


def _object(value: dict[str, Any], at: str) -> TensorData:
    for key in value:
        if key not in _FIELDS:
            _refuse_field(key, at)
    if "data" not in value:
        raise PullbackError(
            "bad_tensor", "The tensor has no `data`.", at=at, expected="the field `data`", given=describe(value), fix=_FORMS
        )
    dtype = _one_of("dtype", value.get("dtype"), tuple(DTYPE_BYTES), at)
    shape = None if value.get("shape") is None else checked_shape(value["shape"], f"{at}.shape", dtype)
    encoding = _one_of("encoding", value.get("encoding"), tuple(_READERS), at) or "list"
    return _READERS[encoding](value["data"], f"{at}.data", dtype, shape)


def _refuse_field(key: str, at: str) -> None:
    meant = nearest(key, _FIELDS)
    raise PullbackError(
        "bad_tensor",
        f"A tensor has no field {key[:64]!r}.",
        at=at,
        expected="the fields data, dtype, shape, encoding",
        given=repr(key[:64]),
        fix=f"Write `{meant}`." if meant else "Leave it out.",
    )


def _one_of(field: str, value: Any, allowed: tuple[str, ...], at: str) -> str | None:
    if value is None or (type(value) is str and value in allowed):
        return value
    meant = nearest(value.rpartition(".")[2], allowed) if type(value) is str else None
    raise PullbackError(
        "bad_tensor",
        f"The tensor's `{field}` is not known.",
        at=f"{at}.{field}",
        expected=f"one of {', '.join(allowed)}",
        given=describe(value),
        fix=f'Write "{meant}".' if meant else None,
    )


def checked_shape(value: Any, at: str, dtype: str | None) -> tuple[int, ...]:
    """A shape that a client claims: a list of at most `RANK_LIMIT` integers, not negative, whose product is a possible size.

    Raises `bad_tensor`.
    """
    if type(value) is not list or len(value) > RANK_LIMIT:
        raise PullbackError(
            "bad_tensor",
            f"The shape is {describe(value)}, not a list of at most {RANK_LIMIT} sizes.",
            at=at,
            expected=f"a list of at most {RANK_LIMIT} integers",
            given=describe(value),
        )
    count = 1
    for axis, extent in enumerate(value):
        if type(extent) is not int or extent < 0:
            raise PullbackError(
                "bad_tensor",
                f"Extent {axis} of the shape is {describe(extent)}, which is no size.",
                at=f"{at}[{axis}]",
                expected="an integer, 0 or more",
                given=describe(extent),
            )
        count *= extent or 1
        if count * DTYPE_BYTES.get(dtype or "", 1) > _ELEMENTS_LIMIT:
            raise PullbackError(
                "bad_tensor",
                "The shape claims more elements than any machine holds.",
                at=at,
                expected="a product of the extents (zeros counted as ones) of at most 2^48 bytes",
                given=describe(value) if len(value) > 8 else str([describe(v) for v in value]).replace("'", ""),
                fix="Send the shape that the data has.",
            )
    return tuple(value)


def _base64(data: Any, at: str, dtype: str | None, shape: tuple[int, ...] | None) -> TensorData:
    if dtype is None or shape is None:
        missing = "dtype" if dtype is None else "shape"
        raise PullbackError(
            "bad_tensor",
            f"A base64 tensor needs its `{missing}`.",
            at=at.removesuffix(".data"),
            expected="dtype and shape",
            given=f"no {missing}",
        )
    if type(data) is not str:
        raise PullbackError(
            "bad_tensor", "The data is not base64 text.", at=at, expected="a base64 string", given=describe(data)
        )
    try:
        raw = binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise PullbackError(
            "bad_tensor",
            f"The data is not base64: {error}.",
            at=at,
            expected="standard base64 with its padding, without line breaks",
            given=describe(data),
        ) from None
    return from_bytes(memoryview(raw), dtype, shape, at)


def from_bytes(raw: memoryview, dtype: str, shape: tuple[int, ...], at: str) -> TensorData:
    """The tensor whose little-endian, row-major bytes are `raw`, not copied.

    Raises `bad_tensor` when the length does not fit the shape, or a boolean's byte is neither 0 nor 1.
    """
    needed = _product(shape) * DTYPE_BYTES[dtype]
    if raw.nbytes != needed:
        raise PullbackError(
            "bad_tensor",
            f"The data has {raw.nbytes} bytes, but {dtype} of shape {list(shape)} has {needed}.",
            at=at,
            expected=f"{needed} bytes",
            given=f"{raw.nbytes} bytes",
            fix="Send the little-endian bytes in row-major order, or correct the shape or dtype.",
        )
    if dtype == "bool" and (position := check_booleans(raw)) is not None:
        raise PullbackError(
            "bad_tensor",
            f"Byte {position} of a bool tensor is neither 0 nor 1.",
            at=at,
            expected="bytes 0 and 1",
            given=str(raw[position]),
        )
    return TensorData(dtype, shape, raw)


# --- numbers in lists ------------------------------------------------------------------------------------------------


def _listed(data: Any, at: str, dtype: str | None, shape: tuple[int, ...] | None) -> TensorData:
    """Nested or flat numbers. `bare` says that the dtype is our guess."""
    if type(data) is str and data not in NONFINITE:
        raise PullbackError(
            "bad_tensor",
            "The data is a string.",
            at=at,
            expected="numbers, or base64",
            given=describe(data),
            fix='For base64 add "encoding": "base64".',
        )
    nested, flat, kinds = flattened(data, at)
    spelled = nested
    if dtype in PART:
        nested = _pairs(nested, dtype, at)
    if shape is None:
        if len(nested) > RANK_LIMIT:
            raise PullbackError(
                "bad_tensor",
                "The lists are nested too deeply for a tensor.",
                at=at,
                expected=f"at most {RANK_LIMIT} axes",
                given=f"{len(nested)} axes",
            )
        shape = nested
    elif nested != shape:
        _check_against(shape, nested, at)
    try:
        raw = packed(flat, kinds, dtype or inferred(flat, kinds))
    except ElementError as error:
        raise PullbackError(
            "bad_tensor",
            f"An element of the tensor is {describe(flat[error.position])}, where {error.expected} is needed.",
            at=at + place(error.position, spelled),
            expected=error.expected,
            given=describe(flat[error.position]),
            fix=error.fix,
        ) from None
    return TensorData(dtype or inferred(flat, kinds), shape, raw, bare=dtype is None)


def flattened(value: Any, at: str) -> tuple[tuple[int, ...], list[Any], set[type]]:
    """(shape, elements in row-major order, their types), level by level, so that each level is a few C loops."""
    if type(value) is not list:
        return (), [value], {type(value)}
    level: list[Any] = value
    shape = [len(level)]
    while True:
        kinds = set(map(type, level))
        if list not in kinds:
            return tuple(shape), level, kinds
        if len(kinds) > 1 or len(sizes := set(map(len, level))) > 1:
            raise _ragged(level, shape, at)
        shape.append(sizes.pop())
        level = list(chain.from_iterable(level))


def _ragged(level: list[Any], shape: list[int], at: str) -> RaggedError:
    first = level[0]
    if type(first) is list:
        position = next(i for i, v in enumerate(level) if type(v) is not list or len(v) != len(first))
        expected = f"a list of {len(first)}, as at {place(0, shape)}"
    else:
        position = next(i for i, v in enumerate(level) if type(v) is list)
        expected = f"a number, as at {place(0, shape)}"
    return RaggedError(
        "bad_tensor",
        "The lists are ragged: all lists of one level must have the same length.",
        at=at + place(position, shape),
        expected=expected,
        given=describe(level[position]),
    )


def _pairs(nested: tuple[int, ...], dtype: str | None, at: str) -> tuple[int, ...]:
    """The shape without the trailing axis of [re, im]."""
    if nested[-1:] == (2,):
        return nested[:-1]
    if 0 in nested:  # no number is there to be a pair
        return nested
    raise PullbackError(
        "bad_tensor",
        f"The numbers of a {dtype} tensor are [re, im] pairs.",
        at=at,
        expected="[re, im] in the place of every number",
        given=f"lists of shape {list(nested)}",
        fix="Write [1.5, 0] for a real 1.5.",
    )


def _check_against(shape: tuple[int, ...], nested: tuple[int, ...], at: str) -> None:
    """Refuses data that is neither nested like `shape` nor a flat list of as many elements."""
    flat = len(nested) == 1 or (not nested and not shape)
    if flat and nested[0] == _product(shape):
        return
    if 0 in nested and nested == shape[: len(nested)]:  # [[], []] is all that can be written of shape [2, 0, 3]
        return
    if flat:
        detail = f"The data has {nested[0]} elements, but the shape {list(shape)} has {_product(shape)}."
    else:
        detail = f"The data is nested as {list(nested)}, but the shape says {list(shape)}."
    raise PullbackError(
        "bad_tensor",
        detail,
        at=at,
        expected=f"nested lists of shape {list(shape)}, or a flat list of {_product(shape)} elements",
        given=f"lists of shape {list(nested)}",
        fix="Correct `shape`, or leave it out.",
    )


def _product(shape: tuple[int, ...]) -> int:
    count = 1  # Python's integers: a product that overflows 64 bits must not come out as something small
    for extent in shape:
        count *= extent
    return count


_READERS: Final[dict[str, Callable[[Any, str, str | None, tuple[int, ...] | None], TensorData]]] = {
    "list": _listed,
    "base64": _base64,
}
