"""The safetensors reader and writer against the library's own, and a table of files that must be refused."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import PullbackError
from app.protocols.elements import NUMPY
from app.protocols.native.safetensors_format import read, write
from app.query import DTYPE_BYTES, TensorData

LIBRARY = [name for name in DTYPE_BYTES if name not in ("bfloat16", "complex128")]  # what the library's numpy half writes
NAMES = st.text("abcdefgxyz._0123456789é", min_size=1, max_size=12)


@st.composite
def data(draw: st.DrawFn, dtypes: list[str]) -> TensorData:
    dtype = draw(st.sampled_from(dtypes))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    count = math.prod(shape) * DTYPE_BYTES[dtype]
    raw = draw(st.binary(min_size=count, max_size=count))
    return TensorData(dtype, shape, memoryview(bytes(b & 1 for b in raw) if dtype == "bool" else raw))


def array(tensor: TensorData) -> np.ndarray[Any, Any]:
    return np.frombuffer(tensor.data, NUMPY[tensor.dtype]).reshape(tensor.shape)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, data(LIBRARY), max_size=6), st.none() | st.dictionaries(NAMES, st.text(max_size=9), max_size=3))
def test_reads_what_the_library_writes(tensors: dict[str, TensorData], metadata: dict[str, str] | None) -> None:
    body = safetensors.numpy.save({name: array(tensor) for name, tensor in tensors.items()}, metadata or None)
    file = read(memoryview(body))
    assert file.metadata == (metadata or {})
    assert {name: (t.dtype, t.shape, bytes(t.data)) for name, t in file.tensors.items()} == {
        name: (t.dtype, t.shape, bytes(t.data)) for name, t in tensors.items()
    }


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, data(list(DTYPE_BYTES)), max_size=6), st.dictionaries(NAMES, st.text(max_size=9), max_size=3))
def test_the_library_reads_what_is_written(tensors: dict[str, TensorData], metadata: dict[str, str]) -> None:
    body = b"".join(write(tensors, metadata))
    loaded = safetensors.torch.load(body)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        value = loaded[name].contiguous()
        if tensor.dtype == "complex128":
            assert value.dtype == torch.float64
            assert tuple(value.shape) == (*tensor.shape, 2)
        else:
            assert str(value.dtype) == f"torch.{tensor.dtype}"
            assert tuple(value.shape) == tensor.shape
        assert value.reshape(-1).view(torch.uint8).numpy().tobytes() == bytes(tensor.data)
    assert (int.from_bytes(body[:8], "little")) % 8 == 0
    back = read(memoryview(body))
    assert back.metadata == metadata


def test_numpy_reads_what_is_written() -> None:
    x = np.arange(6.0).reshape(2, 3)
    body = b"".join(write({"outputs.output": TensorData("float64", (2, 3), x.data.cast("B"))}, {"answer": "{}"}))
    assert np.array_equal(safetensors.numpy.load(body)["outputs.output"], x)


def test_nothing_is_copied() -> None:
    x = np.arange(4, dtype=np.float32)
    tensor = TensorData("float32", (4,), x.data.cast("B"))
    pieces = write({"a": tensor}, {})
    assert pieces[1] is tensor.data
    body = bytearray(b"".join(pieces))
    view = read(memoryview(body)).tensors["a"].data
    body[-4:] = np.float32(9).tobytes()
    assert np.frombuffer(view, np.float32)[3] == 9


def test_every_tensor_is_aligned() -> None:
    tensors = {
        name: TensorData(dtype, (3,), memoryview(bytes(3 * DTYPE_BYTES[dtype])))
        for name, dtype in [
            ("a", "bool"),
            ("b", "float64"),
            ("c", "int16"),
            ("d", "complex128"),
            ("e", "float32"),
            ("f", "complex64"),
        ]
    }
    body = b"".join(write(tensors, {}))
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    for name, tensor in tensors.items():
        assert (8 + length + header[name]["data_offsets"][0]) % min(DTYPE_BYTES[tensor.dtype], 8) == 0


# --- refused ---------------------------------------------------------------------------------------------------------


def file(header: Any, payload: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + payload


def entry(begin: Any = 0, end: Any = 4, dtype: Any = "F32", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [1] if shape is None else shape, "data_offsets": [begin, end]}


FOUR = b"\0\0\x80?"
REFUSED = {
    "empty": (b"", "bad_binary"),
    "seven bytes": (b"\0" * 7, "bad_binary"),
    "header beyond the body": (file({}, length=100), "bad_binary"),
    "header of 2^63": (file({}, length=1 << 63), "bad_binary"),
    "header of 2^64-1": (file({}, length=(1 << 64) - 1), "bad_binary"),
    "header over the cap": (file(b"{}" + b" " * (1 << 20)), "bad_binary"),
    "header not JSON": (file(b"{x}"), "bad_json"),
    "header not UTF-8": (file(b'{"\xff": 1}'), "bad_json"),
    "header empty": (file(b""), "bad_json"),
    "header a list": (file([]), "bad_binary"),
    "header deep": (file(b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"), "json_depth"),
    "twice the same name": (file(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), FOUR), "duplicate_key"),
    "hole": (file({"a": entry(0, 4), "b": entry(8, 12)}, FOUR * 3), "bad_binary"),
    "hole at the front": (file({"a": entry(4, 8)}, FOUR * 2), "bad_binary"),
    "overlap": (file({"a": entry(0, 4), "b": entry(0, 4)}, FOUR), "bad_binary"),
    "partial overlap": (file({"a": entry(0, 4), "b": entry(2, 6)}, FOUR * 2), "bad_binary"),
    "bytes after": (file({"a": entry()}, FOUR + b"x"), "bad_binary"),
    "bytes without tensors": (file({}, b"x"), "bad_binary"),
    "bytes missing": (file({"a": entry()}, FOUR[:3]), "bad_binary"),
    "offsets negative": (file({"a": entry(-4, 0)}, FOUR), "bad_binary"),
    "offsets backwards": (file({"a": entry(4, 0)}, FOUR), "bad_binary"),
    "offsets float": (file({"a": entry(0, 4.0)}, FOUR), "bad_binary"),
    "offsets bool": (file({"a": entry(False, 4)}, FOUR), "bad_binary"),
    "offsets 2^70": (file({"a": entry(0, 1 << 70)}, FOUR), "bad_binary"),
    "offsets three": (file({"a": {**entry(), "data_offsets": [0, 2, 4]}}, FOUR), "bad_binary"),
    "shape lies": (file({"a": entry(shape=[2])}, FOUR), "bad_tensor"),
    "shape negative": (file({"a": entry(shape=[-1])}, FOUR), "bad_tensor"),
    "shape float": (file({"a": entry(shape=[1.0])}, FOUR), "bad_tensor"),
    "shape overflows": (file({"a": entry(shape=[1 << 32, 1 << 32])}, FOUR), "bad_tensor"),
    "shape empty and huge": (file({"a": entry(0, 0, shape=[0, 1 << 62])}), "bad_tensor"),
    "shape of many ones": (file({"a": entry(shape=[1] * 65)}, FOUR), "bad_tensor"),
    "dtype F8": (file({"a": entry(0, 1, "F8_E4M3")}, b"x"), "bad_tensor"),
    "dtype F4": (file({"a": entry(0, 1, "F4", [2])}, b"x"), "bad_tensor"),
    "dtype U64": (file({"a": entry(0, 8, "U64")}, FOUR * 2), "bad_tensor"),
    "dtype ours": (file({"a": entry(dtype="float32")}, FOUR), "bad_tensor"),
    "dtype number": (file({"a": entry(dtype=32)}, FOUR), "bad_tensor"),
    "bool of 2": (file({"a": entry(0, 1, "BOOL")}, b"\2"), "bad_tensor"),
    "entry a number": (file({"a": 1}), "bad_binary"),
    "entry lacks a field": (file({"a": {"dtype": "F32", "shape": [1]}}, FOUR), "bad_binary"),
    "entry with more": (file({"a": {**entry(), "stride": [1]}}, FOUR), "bad_binary"),
    "name empty": (file({"": entry()}, FOUR), "bad_binary"),
    "name long": (file({"a" * 1000: entry()}, FOUR), "bad_binary"),
    "name with a newline": (file({"a\nb": entry()}, FOUR), "bad_binary"),
    "metadata a list": (file({"__metadata__": []}), "bad_binary"),
    "metadata of numbers": (file({"__metadata__": {"a": 1}}), "bad_binary"),
    "too many tensors": (file({f"t{i}": entry(0, 0, shape=[0]) for i in range(10_000)}), "bad_binary"),
    "zip": (b"PK\x03\x04" + bytes(60), "unsupported_media_type"),
    "npy": (b"\x93NUMPY\x01\x00" + bytes(60), "unsupported_media_type"),
    "pickle": (b"\x80\x04\x95\x0f\0\0\0\0\0\0\0" + bytes(60), "unsupported_media_type"),
    "pickle of torch": (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "unsupported_media_type"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0\xff" + bytes(60), "unsupported_media_type"),
    "json": (b'{"operation": "softmax"}', "unsupported_media_type"),
}


@pytest.mark.parametrize(("body", "code"), REFUSED.values(), ids=REFUSED)
def test_refused(body: bytes, code: str) -> None:
    with pytest.raises(PullbackError) as refused:
        read(memoryview(body))
    assert refused.value.code == code
    assert len(json.dumps(refused.value.problem())) < 2048


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 200), st.integers(0, 255), st.integers(0, 200))
def test_a_damaged_file_is_refused_or_read_but_never_breaks(position: int, byte: int, cut: int) -> None:
    body = bytearray(safetensors.numpy.save({"a": np.arange(3.0), "b": np.array([True])}, {"query": "{}"}))
    body[position % len(body)] = byte
    try:
        file = read(memoryview(bytes(body[: len(body) - cut % 3])))
    except PullbackError:
        return
    assert sum(t.data.nbytes for t in file.tensors.values()) == 25
