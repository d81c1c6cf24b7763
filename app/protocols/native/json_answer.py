"""Answer → JSON bytes: tensors in the object form, exact shortest numbers, non-finite numbers as words, never null."""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from typing import Any, Final

import orjson

from app.protocols.content import JSON
from app.protocols.json_numbers import dumps, numbers
from app.protocols.message import Cut
from app.query import Answer, Encoding, Note, SparseData, TensorData

_PLAIN: Final = {str, int, bool, type(None)}


def write(answer: Answer, encoding: Encoding = "list") -> bytes:
    """The JSON body of an answer: its kinds, then `notes` and `plan`."""
    tree = {kind: json_value(value, encoding) for kind, value in answer.results.items()}
    tree["notes"] = notes(answer.notes)
    tree["plan"] = json_value(answer.plan, encoding)
    return dumps(tree)


def cut(answer: Answer) -> Cut:
    """The JSON body of an answer cut at its tensors' numbers.

    Arguments:
        answer: its results are kinds of tensors, which are written as lists.
    """
    tree: dict[str, Any] = {kind: _with_holes(tensors) for kind, tensors in answer.results.items()}
    tree["notes"] = notes(answer.notes)
    tree["plan"] = json_value(answer.plan)
    pieces = dumps(tree).split(b"\0")
    return Cut(pieces, tuple(range(len(pieces) - 1)), JSON)


def _with_holes(tree: Any) -> Any:
    """Tensors in the object form, with a byte in place of their numbers that no JSON text has: RFC 8259, section 7, escapes it."""
    if isinstance(tree, TensorData):
        return {"shape": tree.shape, "dtype": tree.dtype, "data": orjson.Fragment(b"\0")}
    return {name: _with_holes(member) for name, member in tree.items()}


def notes(taken: tuple[Note, ...]) -> list[dict[str, str]]:
    return [{"code": note.code, "at": note.at, "message": note.message} for note in taken]


def json_value(value: Any, encoding: Encoding = "list") -> Any:
    """`value` with its tensors in the object form and its non-finite floats as words, ready for `dumps`."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, TensorData):
        return tensor_object(value, encoding)
    if isinstance(value, SparseData):
        return sparse_head(value) | {
            "indices": tensor_object(value.indices, encoding),
            "values": tensor_object(value.values, encoding),
        }
    if isinstance(value, Mapping):
        return {key: json_value(member, encoding) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(member, encoding) for member in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def sparse_head(tensor: SparseData) -> dict[str, Any]:
    """What a sparse result says of itself besides its indices and values."""
    return {"layout": "coo", "shape": tensor.shape, "dtype": tensor.dtype, "holds": tensor.holds}


def tensor_object(tensor: TensorData, encoding: Encoding = "list") -> dict[str, Any]:
    """`{"shape", "dtype", "data"}`, with `"encoding": "base64"` where asked; for `dumps` only."""
    entry: dict[str, Any] = {"shape": tensor.shape, "dtype": tensor.dtype}
    if encoding == "base64":
        entry["encoding"] = "base64"
        entry["data"] = orjson.Fragment(b'"%b"' % binascii.b2a_base64(tensor.data, newline=False))
    else:
        entry["data"] = numbers(tensor)
    return entry
