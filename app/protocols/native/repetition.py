"""A small query in JSON taken apart for repetition: its signature, which is all but its tensors' numbers, and these numbers."""

from __future__ import annotations

from array import array
from itertools import chain
from typing import Any, Final, TypeAlias

from app.errors import PullbackError
from app.protocols.content import JSON
from app.protocols.json_tensors import flattened
from app.protocols.message import (
    MIXED,
    SIZE_LIMIT_BYTES,
    BodyTakenApart,
    Buffer,
    Message,
    Numbers,
    Repetition,
    is_within_magnitude,
)
from app.protocols.native import repeated_files
from app.protocols.strict_json import plain_object
from app.query import RANK_LIMIT

_ACCEPTED: Final = (None, "", "*/*", JSON)
# In this order their numbers are given, whatever that of the body is.
_TENSOR_FIELDS: Final = ("inputs", "cotangent", "tangent")
# Queries with these are not repeated: their numbers are no operands, or they change what is done besides computing.
_NEVER: Final = frozenset({"expected", "batched", "seed", "timeout_s"})
_NEVER_WRITTEN: Final = tuple(f'"{name}"'.encode() for name in sorted(_NEVER))
_OBJECT: Final = {"data", "dtype"}
_INTEGERS, _FLOATS, _BOTH = frozenset({int}), frozenset({float}), frozenset({int, float})
# Types of the numbers and the dtype that is named → the sign of a tensor in a signature: the type code of its array, and what else tells
# it from others: a list of tensors whose numbers are of both types is not of one dtype, and a bare one's dtype is our guess.
_SIGNS: Final[dict[tuple[frozenset[type], str | None], str]] = {
    (_INTEGERS, None): "q", (_FLOATS, None): "d", (_BOTH, None): MIXED,
    (_INTEGERS, "int64"): "q int64",
    **dict.fromkeys([(_INTEGERS, "float64"), (_FLOATS, "float64"), (_BOTH, "float64")], "d float64"),
    **dict.fromkeys([(_INTEGERS, "float32"), (_FLOATS, "float32"), (_BOTH, "float32")], "f float32"),
}  # fmt: skip
_DTYPES: Final = {"d": "float64", "f": "float32", "q": "int64"}

_Taken: TypeAlias = tuple[tuple[str, str, tuple[int, ...], bool], Numbers]


def taking_apart(message: Message) -> BodyTakenApart | None:
    """What takes apart the bodies of queries that come as this one; None for another format."""
    if message.content_type in repeated_files.MEDIA_TYPES:
        return repeated_files.taking_apart(message)
    if message.content_encoding is not None or message.content_type not in (None, JSON) or message.accept not in _ACCEPTED:
        return None
    return _taken_apart


def _taken_apart(body: Buffer) -> Repetition | None:
    """None for anything unusual or wrong."""
    text = bytes(body) if len(body) <= SIZE_LIMIT_BYTES else b""
    # A name that stands in a string or deeper makes the whole road answer, which is never wrong.
    value = None if not text or any(name in text for name in _NEVER_WRITTEN) else plain_object(text)
    try:
        return None if value is None else _of_object(value)
    except (ValueError, OverflowError, PullbackError):
        return None


def _of_object(value: dict[str, Any]) -> Repetition | None:
    signature: list[Any] = []
    taken: dict[str, list[_Taken]] = {field: [] for field in _TENSOR_FIELDS}
    for field, member in value.items():
        if field in _NEVER:
            return None
        signature.append(field)
        if type(member) is str:
            signature.append(member)
        elif field not in _TENSOR_FIELDS:
            signature.append((repr(member),))  # tells 1, 1.0 and true apart, which are equal
        elif type(member) is not dict or not _take(field, member, signature, taken[field]):
            return None
    tensors = list(chain.from_iterable(taken.values()))
    heads, numbers = tuple([head for head, _ in tensors]), tuple([numbers for _, numbers in tensors])
    return Repetition(tuple(signature), numbers, value=value, heads=heads)


def _take(field: str, tensors: dict[str, Any], signature: list[Any], taken: list[_Taken]) -> bool:
    """Append names, shapes and signs of the tensors to `signature`, and their heads and numbers to `taken`; False where one has another form."""
    for name, value in tensors.items():
        if "." in name and name[-1:].isdigit():  # a member of a list, which may stand anywhere
            return False
        dtype = None
        if type(value) is dict:
            # Of the object form: flat data of a given shape is rare, and base64 is no list.
            if value.keys() != _OBJECT:
                return False
            value, dtype = value["data"], value["dtype"]
            if type(dtype) is not str:
                return False
        shape, flat, kinds = flattened(value, "")
        sign = _SIGNS.get((frozenset(kinds), dtype))
        if sign is None:
            return False
        if not is_within_magnitude(sign[0], flat) or len(shape) > RANK_LIMIT:
            return False
        taken.append(((f"{field}.{name}", _DTYPES[sign[0]], shape, dtype is None), array(sign[0], flat)))
        signature += (name, shape, sign)
    signature.append(len(tensors))
    return True
