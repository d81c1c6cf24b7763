"""Unsigned integers of 16 bits and more, which are no dtypes of ours: computed in the next wider signed one."""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np

from app.errors import PullbackError
from app.query import TensorData

WIDER: Final = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}
_TYPES: Final[dict[str, np.dtype[Any]]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4"), "uint64": np.dtype("<u8")}


def as_signed(raw: memoryview, dtype: str, shape: tuple[int, ...], at: str) -> TensorData:
    """The tensor whose little-endian bytes of `dtype`, a key of `WIDER`, are `raw`. Raises PullbackError: `bad_tensor`."""
    kind = _TYPES[dtype]
    if raw.nbytes != prod(shape) * kind.itemsize:
        raise PullbackError(
            "bad_tensor",
            f"The data has {raw.nbytes} bytes, which is not {dtype} of shape {list(shape)}.",
            at=at,
            expected=f"{prod(shape) * kind.itemsize} bytes",
            given=f"{raw.nbytes} bytes",
        )
    values = np.frombuffer(raw, kind)
    if dtype == "uint64" and values.size and values.max() >= 1 << 63:
        raise PullbackError(
            "bad_tensor",
            "An element is larger than the largest int64, in which uint64 is computed.",
            at=at,
            expected="integers below 2^63",
        )
    return TensorData(WIDER[dtype], shape, memoryview(values.astype(WIDER[dtype]).tobytes()))
