"""Asks the engine in this process, with numpy arrays for tensors; what the engine's tests share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.engine import Engine
from app.limits import Limits
from app.program.functions import load
from app.query import Answer, Query, TensorData

Array = NDArray[Any]
ENGINE = Engine(Limits(), "cpu", load(None))
_TENSORS = ("cotangent", "tangent", "expected")


def data(value: Any, *, bare: bool = True) -> TensorData:
    """A TensorData of anything numpy takes."""
    array = np.array(value, order="C")
    return TensorData(str(array.dtype), array.shape, memoryview(bytearray(array.tobytes())), bare)


def array(tensor: TensorData) -> Array:
    """The numpy array of a TensorData (bfloat16 excepted)."""
    return np.frombuffer(tensor.data, dtype=tensor.dtype).reshape(tensor.shape)


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
