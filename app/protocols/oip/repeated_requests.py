"""A small inference request taken apart for repetition: its signature, which is all but its tensors' numbers, and these numbers."""

from __future__ import annotations

import math
from array import array
from functools import partial
from typing import Any, Final

import numpy as np

from app.errors import PullbackError
from app.protocols.json_tensors import flattened
from app.protocols.message import SIZE_LIMIT_BYTES, BodyTakenApart, Buffer, Message, Numbers, Repetition, is_within_magnitude
from app.protocols.oip.envelope import JSON_LENGTH
from app.protocols.strict_json import plain_object

_CODES: Final = {"FP64": "d", "FP32": "f", "INT64": "q"}
_TYPES: Final = {"d": frozenset({int, float}), "f": frozenset({int, float}), "q": frozenset({int})}
_KEYS: Final = frozenset({"name", "shape", "datatype", "data", "parameters"})
_COTANGENT: Final = "cotangent."
_FEW: Final = 200  # numbers that Python adds sooner than NumPy is called
# Those of lists and of tangents are read by the whole road.
_TANGENT: Final = "tangent."


def taking_apart(message: Message) -> BodyTakenApart | None:
    """What takes apart the bodies of requests that come as this one; None for those that the whole road reads."""
    asked = message.parameters
    length = asked.get(JSON_LENGTH)
    if message.content_encoding is not None:
        return None
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 6):
        return None
    head = (message.endpoint, asked.get("model"), asked.get("version"), asked.get("accept-encoding"))
    return partial(_taken_apart, head, None if length is None else int(length))


def _taken_apart(head: tuple[str | None, ...], length: int | None, sent: Buffer) -> Repetition | None:
    """None for anything unusual or wrong. `length`: of the JSON text, where numbers stand behind it as their bytes."""
    body = bytes(sent)
    if len(body) > SIZE_LIMIT_BYTES:
        return None
    text, tail = (body, b"") if length is None else (body[:length], body[length:])
    value = plain_object(text)
    try:
        return None if value is None else _of_object(value, tail, head)
    except (ValueError, OverflowError, TypeError, PullbackError):
        return None


def _of_object(value: dict[str, Any], tail: bytes, head: tuple[str | None, ...]) -> Repetition | None:
    signature: list[Any] = [*head]
    inputs: list[Numbers] = []
    cotangents: list[Numbers] = []
    for field, member in value.items():
        if field != "inputs":
            signature.append((field, repr(member)))  # tells 1, 1.0 and true apart, which are equal
            continue
        for tensor in member:
            name = tensor["name"] if type(tensor) is dict and tensor.keys() <= _KEYS and "name" in tensor else None
            if type(name) is not str or name.startswith(_TANGENT) or ("." in name and name[-1:].isdigit()):
                return None
            numbers, sign, tail = _numbers(tensor, tail)
            if numbers is None:
                return None
            (cotangents if name.startswith(_COTANGENT) else inputs).append(numbers)
            signature += (name, repr(tensor.get("shape")), sign)
    return None if tail else Repetition(tuple(signature), (*inputs, *cotangents), value=value)


def _numbers(tensor: dict[str, Any], tail: bytes) -> tuple[Numbers | None, Any, bytes]:
    """(its numbers or None, what else tells it from others, the bytes that are left)."""
    code = _CODES.get(tensor.get("datatype"), "")  # type: ignore[arg-type]
    parameters = tensor.get("parameters")
    if not code or not (parameters is None or type(parameters) is dict):
        return None, None, tail
    numbers: array[float] | array[int] = array(code)
    if parameters:
        if (
            parameters.keys() != {"binary_data_size"}
            or "data" in tensor
            or type(size := parameters["binary_data_size"]) is not int
        ):
            return None, None, tail
        chunk, tail = tail[: max(size, 0)], tail[max(size, 0) :]
        numbers.frombytes(chunk)
        sign: Any = (code, size, len(chunk))
        if code != "q" and not _are_finite(numbers):
            return None, None, tail
    elif "data" not in tensor:
        return None, None, tail
    else:
        shape, flat, kinds = flattened(tensor["data"], "")
        if not kinds <= _TYPES[code]:
            return None, None, tail
        numbers, sign = array(code, flat), (code, shape)
    return (numbers, sign, tail) if is_within_magnitude(code, numbers) else (None, None, tail)


def _are_finite(numbers: array[float] | array[int]) -> bool:
    """Whether the sum is: then all of them are. A sum that overflows counts as one that is not."""
    # Of few numbers NumPy takes ten times as long, of many Python (measured: alike at some 200).
    return math.isfinite(sum(numbers) if len(numbers) < _FEW else float(np.sum(np.frombuffer(numbers, numbers.typecode))))
