"""Tensors ↔ a safetensors file, without copying them: a strict reader and a writer in pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import orjson

from app.errors import PullbackError
from app.limits import HEADER_LIMIT_BYTES, NAME_LIMIT, TENSOR_COUNT_LIMIT
from app.protocols import strict_json
from app.protocols.describe import describe
from app.protocols.json_tensors import checked_shape, from_bytes
from app.query import DTYPE_BYTES, TensorData

# The format's name of a dtype ↔ ours. complex128, which it lacks, goes as pairs of F64.
_DTYPES: Final = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
_CODES: Final = {ours: code for code, ours in _DTYPES.items()}
_METADATA: Final = "__metadata__"
_FIELDS: Final = {"dtype", "shape", "data_offsets"}
LENGTH_BYTES: Final = 8  # a file begins with its header's length, a little-endian uint64
# How other binary files begin, for an error that helps.
_FOREIGN: Final = {
    b"PK\x03\x04": "a ZIP archive (.npz, or a file of torch.save)",
    b"\x93NUMPY": "a NumPy .npy file",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\x1f\x8b": "gzip data without a Content-Encoding",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file's tensors by name, in the order of their bytes, and its metadata."""

    tensors: Mapping[str, TensorData]
    metadata: Mapping[str, str]


def read(body: memoryview) -> File:
    """The file that `body` is; its tensors are views of `body`.

    Raises `bad_binary` for a file that breaks the format, `bad_tensor` for a dtype or boolean that is not read here,
    `duplicate_key`, and `unsupported_media_type` for another format's file.
    """
    header, data = _split(body)
    entries = strict_json.parse(header, name="the safetensors header", depth_limit=8)
    if type(entries) is not dict:
        _refuse("The header is not a JSON object.", describe(entries))
    metadata = _metadata(entries.pop(_METADATA, None))
    if len(entries) > TENSOR_COUNT_LIMIT:
        _refuse(f"The file has {len(entries)} tensors.", expected=f"at most {TENSOR_COUNT_LIMIT} tensors")
    spans = sorted(((*_span(name, entry, len(data)), name) for name, entry in entries.items()))
    reached = 0
    tensors: dict[str, TensorData] = {}
    for begin, end, name in spans:
        if begin != reached:
            _refuse(
                f"Tensor {name!r} begins at byte {begin}, but the one before it ends at byte {reached}.",
                expected="no holes, no overlap",
            )
        reached = end
        dtype, shape = _dtype_and_shape(name, entries[name])
        tensors[name] = from_bytes(data[begin:end], dtype, shape, name)
    if reached != len(data):
        _refuse(f"{len(data) - reached} bytes follow the last tensor.", expected="no byte that is no tensor's")
    return File(tensors, metadata)


def write(tensors: Mapping[str, TensorData], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """The file in pieces: its header, then each tensor's own bytes.

    complex128 is written as float64 with a trailing axis of 2; the caller lists those names in the metadata.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    pieces: list[bytes | memoryview] = []
    reached = 0
    # The widest first, so that every tensor begins at a multiple of its element's size.
    for name, tensor in sorted(tensors.items(), key=lambda item: -DTYPE_BYTES[item[1].dtype]):
        end = reached + tensor.data.nbytes
        code, shape = ("F64", (*tensor.shape, 2)) if tensor.dtype == "complex128" else (_CODES[tensor.dtype], tensor.shape)
        header[name] = {"dtype": code, "shape": shape, "data_offsets": (reached, end)}
        reached = end
        if tensor.data.nbytes:
            pieces.append(tensor.data)
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(LENGTH_BYTES, "little") + text, *pieces]


def _split(body: memoryview) -> tuple[memoryview, memoryview]:
    """(header, data)."""
    if len(body) < LENGTH_BYTES:
        _refuse(
            f"The body has {len(body)} bytes, less than a safetensors file can have.",
            fix="Send a safetensors file, or JSON as application/json.",
        )
    length = int.from_bytes(body[:LENGTH_BYTES], "little")
    if length > min(len(body) - LENGTH_BYTES, HEADER_LIMIT_BYTES):
        _refuse_length(length, body)
    return body[LENGTH_BYTES : LENGTH_BYTES + length], body[LENGTH_BYTES + length :]


def _refuse_length(length: int, body: memoryview) -> NoReturn:
    start = bytes(body[:LENGTH_BYTES])
    foreign = next((what for magic, what in _FOREIGN.items() if start.startswith(magic)), None)
    if foreign is None and start.lstrip()[:1] in (b"{", b"["):
        foreign = "JSON"
    if foreign is not None:
        raise PullbackError(
            "unsupported_media_type",
            f"The body is not a safetensors file but {foreign}.",
            expected="a safetensors file",
            given=foreign,
            fix="Send it as application/json." if foreign == "JSON" else "Write it with safetensors.",
        )
    _refuse(
        f"The first 8 bytes announce a header of {length} bytes.",
        expected=f"at most {HEADER_LIMIT_BYTES} bytes, within the {len(body)} bytes of the body",
    )


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if type(value) is not dict or not all(type(text) is str for text in value.values()):
        _refuse("The header's __metadata__ is not a map of strings.", describe(value), expected="an object of strings")
    return value


def _span(name: str, entry: Any, size: int) -> tuple[int, int]:
    if not name or len(name) > NAME_LIMIT or not name.isprintable():
        _refuse(f"A tensor's name is wrong: {describe(name)}.", expected=f"1 to {NAME_LIMIT} printable characters")
    if type(entry) is not dict or entry.keys() != _FIELDS:
        _refuse(f"The header's entry of {name!r} is wrong.", describe(entry), expected="the fields dtype, shape, data_offsets")
    offsets = entry["data_offsets"]
    pair = type(offsets) is list and [type(offset) for offset in offsets] == [int, int]
    if not (pair and 0 <= offsets[0] <= offsets[1] <= size):
        shown = f"[{describe(offsets[0])}, {describe(offsets[1])}]" if pair else describe(offsets)
        _refuse(f"The data_offsets of {name!r} are wrong.", shown, expected=f"[begin, end] within the {size} bytes of data")
    return offsets[0], offsets[1]


def _dtype_and_shape(name: str, entry: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    code = entry["dtype"]
    if type(code) is not str or code not in _DTYPES:
        raise PullbackError(
            "bad_tensor",
            f"The dtype of {name!r} is not read here.",
            at=f"{name}.dtype",
            expected=f"one of {', '.join(_DTYPES)}",
            given=describe(code),
            fix="Convert it before sending.",
        )
    return _DTYPES[code], checked_shape(entry["shape"], f"{name}.shape", _DTYPES[code])


def _refuse(detail: str, given: str | None = None, *, expected: str | None = None, fix: str | None = None) -> NoReturn:
    raise PullbackError("bad_binary", detail, expected=expected, given=given, fix=fix)
