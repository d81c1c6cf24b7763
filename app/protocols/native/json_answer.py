"""Answer → JSON bytes: tensors in the object form, exact shortest numbers, non-finite numbers as words, never null.

Knows the forms of sections 2 and 3 of the contract. Refuses to know HTTP, and what the results mean.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson

from app.protocols.elements import PART, Array, as_array
from app.query import Answer, Encoding, Note, TensorData

_WORDS: Final = {0: b'"NaN"', 1: b'"Infinity"', -1: b'"-Infinity"'}
_PLAIN: Final = {str, int, bool, type(None)}
_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY


def write(answer: Answer, encoding: Encoding = "list") -> bytes:
    """The JSON body of an answer: its kinds, then `notes` and `plan`."""
    tree = {kind: json_value(value, encoding) for kind, value in answer.results.items()}
    tree["notes"] = notes(answer.notes)
    tree["plan"] = json_value(answer.plan, encoding)
    return dumps(tree)


def notes(taken: tuple[Note, ...]) -> list[dict[str, str]]:
    return [{"code": note.code, "at": note.at, "message": note.message} for note in taken]


def dumps(value: Any) -> bytes:
    """JSON text of what `json_value` and `tensor_object` return."""
    return orjson.dumps(value, option=_OPTIONS)


def json_value(value: Any, encoding: Encoding = "list") -> Any:
    """`value` with its tensors in the object form and its non-finite floats as words, ready for `dumps`."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, TensorData):
        return tensor_object(value, encoding)
    if isinstance(value, Mapping):
        return {key: json_value(member, encoding) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(member, encoding) for member in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def tensor_object(tensor: TensorData, encoding: Encoding = "list") -> dict[str, Any]:
    """`{"shape", "dtype", "data"}`, with `"encoding": "base64"` where asked; for `dumps` only."""
    made: dict[str, Any] = {"shape": tensor.shape, "dtype": tensor.dtype}
    if encoding == "base64":
        made["encoding"] = "base64"
        made["data"] = orjson.Fragment(b'"%b"' % binascii.b2a_base64(tensor.data, newline=False))
    else:
        made["data"] = _numbers(tensor)
    return made


def _numbers(tensor: TensorData) -> Any:
    flat = as_array(tensor.data, tensor.dtype)
    shape = (*tensor.shape, 2) if tensor.dtype in PART else tensor.shape
    shaped: Any = flat.reshape(shape) if shape else flat[0]
    if flat.dtype.kind == "f" and not (finite := np.isfinite(flat)).all():
        return orjson.Fragment(_with_words(dumps(shaped), flat[~finite]))
    return shaped


def _with_words(text: bytes, strange: Array) -> bytes:
    """`text`, where each null (there is one for each of `strange`, in order) gives way to its word."""
    signs = (strange > 0).astype(np.int8) - (strange < 0)  # 0 for NaN
    kinds = np.unique(signs)
    if len(kinds) == 1:
        return text.replace(b"null", _WORDS[int(kinds[0])])
    words = [_WORDS[sign] for sign in signs.tolist()]
    parts = text.split(b"null")
    return b"".join(chain.from_iterable(zip(parts, words, strict=False))) + parts[-1]
