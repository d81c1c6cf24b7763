"""The datatypes of the Open Inference Protocol and ours, and the bytes of those that we do not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from app.errors import PullbackError
from app.protocols.elements import PART
from app.protocols.json_tensors import from_bytes
from app.query import DTYPE_BYTES, TensorData


@dataclass(frozen=True, slots=True)
class Datatype:
    """`dtype`: what a tensor of it becomes; `wire`: numpy's type of its bytes where that is not the dtype's own."""

    dtype: str
    wire: str | None = None

    @property
    def bytes(self) -> int:
        return np.dtype(self.wire).itemsize if self.wire else DTYPE_BYTES[self.dtype]


# BF16 is not in the REST table but in the gRPC one, and in tritonclient. Unsigned integers of 16 bits and more are computed in the
# next wider signed type.
DATATYPES: Final = {
    "BOOL": Datatype("bool"), "UINT8": Datatype("uint8"), "INT8": Datatype("int8"), "INT16": Datatype("int16"),
    "INT32": Datatype("int32"), "INT64": Datatype("int64"), "FP16": Datatype("float16"), "BF16": Datatype("bfloat16"),
    "FP32": Datatype("float32"), "FP64": Datatype("float64"), "UINT16": Datatype("int32", "<u2"),
    "UINT32": Datatype("int64", "<u4"), "UINT64": Datatype("int64", "<u8"),
}  # fmt: skip
# Complex numbers, which the protocol lacks, go as pairs of their parts.
NAMES: Final = {ours.dtype: name for name, ours in DATATYPES.items() if ours.wire is None} | {
    "complex64": "FP32",
    "complex128": "FP64",
}
_COMPLEX_OF: Final = {part: whole for whole, part in PART.items()}


def from_wire(raw: memoryview, datatype: str, shape: tuple[int, ...], at: str) -> TensorData:
    """The tensor whose bytes are `raw`, not copied where the datatype is one of ours. Raises `bad_tensor`."""
    kind = DATATYPES[datatype]
    if kind.wire is None:
        return from_bytes(raw, kind.dtype, shape, at)
    if raw.nbytes % kind.bytes:
        raise _wrong_length(raw.nbytes, datatype, shape, at)
    values = np.frombuffer(raw, kind.wire)
    if kind.wire == "<u8" and values.size and values.max() >= 1 << 63:
        raise PullbackError(
            "bad_tensor",
            "An element is larger than the largest int64, in which UINT64 is computed.",
            at=at,
            expected="integers below 2^63",
        )
    wide = np.ascontiguousarray(values.astype(kind.dtype))
    if wide.size != _elements(shape):
        raise _wrong_length(raw.nbytes, datatype, shape, at)
    return TensorData(kind.dtype, shape, memoryview(wide.tobytes()))


def as_complex(tensor: TensorData, at: str) -> TensorData:
    """Pairs of parts along the trailing axis as complex numbers. Raises `bad_tensor`."""
    if tensor.dtype not in _COMPLEX_OF or tensor.shape[-1:] != (2,):
        raise PullbackError(
            "bad_tensor",
            "A complex input is pairs [re, im] along a trailing axis of 2.",
            at=at,
            expected="FP32 or FP64 of shape [..., 2]",
            given=f"{NAMES[tensor.dtype]} of shape {list(tensor.shape)}",
        )
    return TensorData(_COMPLEX_OF[tensor.dtype], tensor.shape[:-1], tensor.data)


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def _wrong_length(size: int, datatype: str, shape: tuple[int, ...], at: str) -> PullbackError:
    return PullbackError(
        "bad_tensor",
        f"The data has {size} bytes, which is not {datatype} of shape {list(shape)}.",
        at=at,
        expected=f"{_elements(shape) * DATATYPES[datatype].bytes} bytes",
        given=f"{size} bytes",
    )
