"""Queries with their tensors in base64, and answers compared as numbers that two devices give."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.catalogue.dtypes import dtype_name
from tests.server import Server

# Two libraries for the same function in float64: some units in the last place of a result, times what the function makes of its
# input's last place; samples of PyTorch are well conditioned, and a wrong kernel or TF32 (1e-3) is far from this.
RELATIVE = 1e-7


def sent(tensor: Tensor) -> dict[str, Any]:
    """As a query has it."""
    plain = tensor.detach().contiguous()
    data = b"" if not plain.numel() else plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    return {
        "data": base64.b64encode(data).decode(),
        "encoding": "base64",
        "dtype": dtype_name(tensor.dtype),
        "shape": list(tensor.shape),
    }


def tensors_of(answer: Any, path: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensors of an answer in base64, by their paths. bfloat16, which NumPy lacks, as its bits."""
    if isinstance(answer, Mapping) and {"shape", "dtype", "data"} <= answer.keys():
        dtype = {"bfloat16": "uint16"}.get(answer["dtype"], answer["dtype"])
        data: NDArray[Any] = np.frombuffer(base64.b64decode(answer["data"]), dtype=dtype)
        yield path, data.reshape(answer["shape"])
    elif isinstance(answer, Mapping):
        for key, value in answer.items():
            yield from tensors_of(value, f"{path}.{key}" if path else key)


def asked(server: Server, query: Mapping[str, Any]) -> tuple[int, dict[str, Any], dict[str, NDArray[Any]]]:
    """Status, answer, and its tensors."""
    reply = server.http.post("/v1/query", json={**query, "encoding": "base64"})
    answer = reply.json()
    return reply.status_code, answer, dict(tensors_of(answer)) if reply.status_code == 200 else {}


def differences(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]], relative: float = RELATIVE) -> list[str]:
    """What is not alike, by path; of each tensor the largest number sets the scale."""
    if one.keys() != other.keys():
        return [f"{sorted(one)} in the place of {sorted(other)}"]
    return [path for path in one if not are_alike(one[path], other[path], relative)]


def are_alike(one: NDArray[Any], other: NDArray[Any], relative: float = RELATIVE) -> bool:
    """Equal, or for floating numbers near; what is not finite stands in the same places."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    finite = np.isfinite(other)
    if not np.array_equal(np.isfinite(one), finite) or not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return False
    scale = float(np.abs(other[finite]).max(initial=0.0))
    narrow = {"float16": 4e-3, "float32": 1e-4, "complex64": 1e-4}.get(str(one.dtype), relative)
    return bool((np.abs(one[finite] - other[finite]) <= narrow * max(scale, 1e-12)).all())
