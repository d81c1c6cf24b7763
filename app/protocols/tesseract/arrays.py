"""An encoded array of Tesseract Core ↔ a tensor.

https://docs.pasteurlabs.ai/projects/tesseract-core, "Array encodings"; `tesseract_core/runtime/array_encoding.py` is the specification.
"""

from __future__ import annotations

import binascii
from typing import Any, Final, Literal

import orjson

from app.errors import PullbackError
from app.protocols.describe import describe
from app.protocols.elements import as_array
from app.protocols.json_numbers import numbers
from app.protocols.json_tensors import checked_shape, from_bytes, tensor
from app.protocols.unsigned import WIDER, as_signed
from app.query import COMPLEX_DTYPES, DTYPE_BYTES, TensorData

Encoding = Literal["base64", "json"]
# bfloat16 is not among them; the unsigned ones are computed in wider signed types.
DTYPES: Final = tuple(name for name in DTYPE_BYTES if name != "bfloat16") + tuple(WIDER)
_FIELDS: Final = ("object_type", "shape", "dtype", "data")
_DATA_FIELDS: Final = ("buffer", "encoding", "compression")


def read(value: Any, at: str) -> TensorData:
    """The tensor of an encoded array, or of a bare number or list. Raises PullbackError: `bad_tensor`."""
    if type(value) is not dict:
        return tensor(value, at)
    _check_keys(value, _FIELDS, at)
    data = value.get("data")
    if type(data) is not dict or value.get("object_type", "array") != "array":
        raise PullbackError(
            "bad_tensor",
            "This is not an encoded array.",
            at=at,
            expected='{"object_type": "array", "shape", "dtype", "data": {"buffer", "encoding"}}',
            given=describe(value),
        )
    _check_keys(data, _DATA_FIELDS, f"{at}.data")
    dtype = value.get("dtype")
    if type(dtype) is not str or dtype not in DTYPES:
        raise PullbackError(
            "bad_tensor",
            "The dtype is not known.",
            at=f"{at}.dtype",
            expected=f"one of {', '.join(DTYPES)}",
            given=describe(dtype),
        )
    shape = checked_shape(value.get("shape"), f"{at}.shape", WIDER.get(dtype, dtype))
    if data.get("compression") is not None:
        raise PullbackError(
            "bad_tensor",
            "Compressed buffers are not read here.",
            at=f"{at}.data.compression",
            expected="none",
            given=describe(data["compression"]),
            fix="Send the buffer as it is; the whole body may be compressed by gzip.",
        )
    return _read_buffer(data.get("buffer"), data.get("encoding"), dtype, shape, f"{at}.data")


def _read_buffer(buffer: Any, encoding: Any, dtype: str, shape: tuple[int, ...], at: str) -> TensorData:
    if encoding in ("json", "raw"):  # `raw` is the older name
        return tensor({"data": buffer, "dtype": WIDER.get(dtype, dtype), "shape": list(shape)}, at)
    if encoding != "base64":
        raise PullbackError(
            "bad_tensor",
            "The encoding is not read here.",
            at=f"{at}.encoding",
            expected="base64 or json: buffers by reference would need this server's disk or its GPU's memory",
            given=describe(encoding),
        )
    if type(buffer) is not str:
        raise PullbackError("bad_tensor", "The buffer is not base64 text.", at=f"{at}.buffer", given=describe(buffer))
    try:
        raw = memoryview(binascii.a2b_base64(buffer, strict_mode=True))
    except (binascii.Error, ValueError) as error:
        raise PullbackError(
            "bad_tensor", f"The buffer is not base64: {error}.", at=f"{at}.buffer", given=describe(buffer)
        ) from None
    return as_signed(raw, dtype, shape, f"{at}.buffer") if dtype in WIDER else from_bytes(raw, dtype, shape, f"{at}.buffer")


def _check_keys(value: dict[str, Any], known: tuple[str, ...], at: str) -> None:
    for key in value:
        if key not in known:
            raise PullbackError(
                "bad_tensor",
                f"An encoded array has no field {key[:64]!r}.",
                at=at,
                expected=", ".join(known),
                given=describe(key),
                fix="Leave it out.",
            )


def write(result: TensorData, encoding: Encoding) -> dict[str, Any]:
    """The encoded array, ready for `dumps`.

    In JSON, non-finite numbers are words, which numpy reads back as what they are; complex numbers, which JSON lacks, stay base64.
    """
    dtype, data = result.dtype, result.data
    if dtype == "bfloat16":  # which the protocol lacks; float32 holds each of its numbers
        dtype, data = "float32", memoryview(as_array(data, dtype).tobytes())
    shaped = TensorData(dtype, result.shape, data)
    if encoding == "json" and dtype not in COMPLEX_DTYPES:
        return _envelope(shaped, {"buffer": numbers(shaped), "encoding": "json"})
    text = orjson.Fragment(b'"%b"' % binascii.b2a_base64(data, newline=False))
    return _envelope(shaped, {"buffer": text, "encoding": "base64"})


def _envelope(result: TensorData, data: dict[str, Any]) -> dict[str, Any]:
    return {"object_type": "array", "shape": result.shape, "dtype": result.dtype, "data": data}


def name_of(dtype: str) -> str:
    """The dtype that a result of `dtype` is written in."""
    return "float32" if dtype == "bfloat16" else dtype
