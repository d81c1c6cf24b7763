"""Asks the engine in this process, with numpy arrays for tensors; what the engine's tests share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.engine import Engine
from app.limits import Limits
from app.program.functions import load
from app.query import Answer, Query, SparseData, TensorData

Array = NDArray[Any]
ENGINE = Engine(Limits(), "cpu", load(None))
_TENSORS = ("cotangent", "tangent", "expected")


def data(value: Any, *, bare: bool = True) -> TensorData:
    """A TensorData of anything numpy takes."""
    array = np.array(value, order="C")
    return TensorData(str(array.dtype), array.shape, memoryview(bytearray(array.tobytes())), bare)


def array(tensor: TensorData) -> Array:
    """The numpy array of a TensorData; of bfloat16, in float32."""
    if tensor.dtype == "bfloat16":
        return (np.frombuffer(tensor.data, dtype=np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)
    return np.frombuffer(tensor.data, dtype=tensor.dtype).reshape(tensor.shape)


def whole(result: TensorData | SparseData, form: str, shape: tuple[int, ...], rank: int | None = None) -> Array:
    """The matrix `[output…, input…]` of `shape` that a result in this form stands for; `rank`: of the output, else half of all."""
    if isinstance(result, SparseData):
        assert result.shape == shape
        indices = array(result.indices)
        flat = np.ravel_multi_index(tuple(indices), shape) if shape else np.zeros(indices.shape[1], int)
        assert (np.diff(flat) > 0).all(), "row-major, without duplicates"
        dense = np.zeros(shape, array(result.values).dtype)
        dense.reshape(-1)[flat] = array(result.values)
        return dense
    values = array(result)
    if form == "dense":
        return values.reshape(shape)
    half = len(shape) // 2
    if form == "diagonal":
        size = int(np.prod(shape[:half]))
        return np.asarray(np.diag(values.reshape(size))).reshape(shape)
    count = shape[0]
    dense = np.zeros(shape, values.dtype)
    outer = len(shape) // 2 if rank is None else rank
    for row in range(count):
        place: list[int | slice] = [slice(None)] * len(shape)
        place[0] = place[outer] = row
        dense[tuple(place)] = values[row]
    return dense


def ask(limits: Limits | None = None, **fields: Any) -> Answer:
    """The engine's answer to `Query(**fields)`; tensors are given as anything that numpy takes, lists of tensors as tuples."""
    inputs = {
        name: tuple(data(v) for v in value) if isinstance(value, tuple) else data(value)
        for name, value in fields.pop("inputs", {}).items()
    }
    for field in _TENSORS:
        if field in fields:
            fields[field] = {name: data(value) for name, value in fields[field].items()}
    if "want" in fields:
        fields["want"] = tuple(fields["want"])
    engine = ENGINE if limits is None else Engine(limits, "cpu", load(None))
    return engine.answer(Query(inputs=inputs, **fields))


def arrays(tree: Any) -> Any:
    """The answer's tree with numpy arrays at its leaves."""
    if isinstance(tree, TensorData):
        return array(tree)
    if isinstance(tree, Mapping):
        return {key: arrays(value) for key, value in tree.items()}
    return tree


def results(**fields: Any) -> Any:
    """`ask`, the answer's tree alone, as numpy arrays."""
    return arrays(ask(**fields).results)
