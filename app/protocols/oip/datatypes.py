"""The datatypes of the Open Inference Protocol and ours, and the bytes of those that we do not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.errors import PullbackError
from app.protocols.elements import PART
from app.protocols.json_tensors import from_bytes
from app.protocols.unsigned import WIDER, as_signed
from app.query import TensorData


@dataclass(frozen=True, slots=True)
class Datatype:
    """`dtype`: what a tensor of it becomes; `wire`: the unsigned dtype of its bytes where that is another."""

    dtype: str
    wire: str | None = None


# BF16 is not in the REST table but in the gRPC one, and in tritonclient.
DATATYPES: Final = {
    "BOOL": Datatype("bool"), "UINT8": Datatype("uint8"), "INT8": Datatype("int8"), "INT16": Datatype("int16"),
    "INT32": Datatype("int32"), "INT64": Datatype("int64"), "FP16": Datatype("float16"), "BF16": Datatype("bfloat16"),
    "FP32": Datatype("float32"), "FP64": Datatype("float64"), **{name.upper(): Datatype(WIDER[name], name) for name in WIDER},
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
    return from_bytes(raw, kind.dtype, shape, at) if kind.wire is None else as_signed(raw, kind.wire, shape, at)


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
