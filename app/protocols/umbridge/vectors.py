"""The vectors of a UM-Bridge model: the shape of each input, and flat float64 lists ↔ tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from app.errors import PullbackError
from app.protocols.describe import describe, nearest
from app.protocols.elements import NUMPY
from app.protocols.json_tensors import checked_shape, tensor
from app.protocols.models import Model, ModelInput
from app.query import COMPLEX_DTYPES, DTYPE_BYTES, INTEGER_DTYPES, TensorData

# The extent of a free axis where `config` says none.
DEFAULT_EXTENT: Final = 2
# Of the package's own functions one with a single small vector, and finite everywhere.
_FIRST: Final = "banana_log_density"
Shapes = Mapping[str, tuple[int, ...]]


class InvalidOutputError(PullbackError):
    """The model gave what the protocol cannot carry."""


def is_spoken(model: Model) -> bool:
    """Whether a model's inputs are real, as the protocol's are."""
    return all(spec.dtype not in COMPLEX_DTYPES for spec in model.inputs)


def rank(model: Model) -> tuple[bool, bool, bool, str]:
    """By which models are listed: tools try the first with zeros and no config, so first one that is known to take them."""
    fixed = all(spec.shape is not None and all(isinstance(axis, int) for axis in spec.shape) for spec in model.inputs)
    return model.name != _FIRST, len(model.inputs) != 1, not fixed, model.name


def shapes(model: Model, asked: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each input, in order.

    Arguments:
        asked: `config["shapes"]`: name → shape, or a list of shapes in the inputs' order; None where there is none.

    Raises:
        PullbackError: `bad_parameter`, `bad_tensor`, `shape_mismatch`.
    """
    sent = _sent_shapes(model, asked)
    extents: dict[str, int] = {}
    for spec in model.inputs:
        if spec.name in sent:
            _check_fit(spec, sent[spec.name], extents)
    return {spec.name: sent[spec.name] if spec.name in sent else _default(spec, extents) for spec in model.inputs}


def _sent_shapes(model: Model, asked: Any) -> dict[str, tuple[int, ...]]:
    names = [spec.name for spec in model.inputs]
    if asked is None:
        return {}
    if type(asked) is list and len(asked) == len(names):
        asked = dict(zip(names, asked, strict=True))
    if type(asked) is not dict:
        raise PullbackError(
            "bad_parameter",
            "`shapes` gives each input its shape.",
            at="config.shapes",
            expected=f'{{"{names[0]}": [2, 3]}}, or a list of {len(names)} shapes',
            given=describe(asked),
        )
    for name in asked:
        if name not in names:
            meant = nearest(name, names)
            raise PullbackError(
                "bad_parameter",
                f"`{model.name}` has no input {name[:64]!r}.",
                at="config.shapes",
                expected=", ".join(names),
                fix=f"Write `{meant}`." if meant else None,
            )
    return {
        name: checked_shape(shape if type(shape) is list else [shape], f"config.shapes.{name}", "float64")
        for name, shape in asked.items()
    }


def _check_fit(spec: ModelInput, shape: tuple[int, ...], extents: dict[str, int]) -> None:
    if spec.shape is None:
        return
    fits = len(shape) == len(spec.shape)
    for axis, extent in zip(spec.shape, shape, strict=False):
        fits = fits and extent == (axis if isinstance(axis, int) else extents.setdefault(axis, extent))
    if not fits:
        wanted = [extents.get(axis, axis) if isinstance(axis, str) else axis for axis in spec.shape]
        raise PullbackError(
            "shape_mismatch",
            f"The shape of `{spec.name}` does not fit its annotation.",
            at=f"config.shapes.{spec.name}",
            expected=str(wanted),
            given=str(list(shape)),
        )


def _default(spec: ModelInput, extents: Mapping[str, int]) -> tuple[int, ...]:
    if spec.shape is None:
        return (DEFAULT_EXTENT,)
    return tuple(extents.get(axis, DEFAULT_EXTENT) if isinstance(axis, str) else axis for axis in spec.shape)


def size(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def listed(value: Any) -> list[Any]:
    """A vector; MATLAB writes one of a single element as a bare number. Raises PullbackError: `bad_tensor`."""
    if type(value) is list:
        return value
    if type(value) in (int, float):
        return [value]
    raise PullbackError("bad_tensor", "A vector is a list of numbers.", expected="a list of numbers", given=describe(value))


def read(vector: list[Any], shape: tuple[int, ...], dtype: str, at: str) -> TensorData:
    """The tensor of a flat vector, float64 unless the input holds whole numbers. Raises PullbackError: `bad_tensor`."""
    whole = dtype in INTEGER_DTYPES
    if dtype == "bool":
        flat = tensor({"data": vector, "dtype": "uint8", "shape": [len(vector)]}, at)
        truth = (np.frombuffer(flat.data, np.uint8) != 0).astype(np.uint8).tobytes()
        return TensorData("bool", shape, memoryview(truth))
    flat = tensor({"data": vector, "dtype": dtype if whole else "float64", "shape": [len(vector)]}, at)
    return TensorData(flat.dtype, shape, flat.data)


def zeros(shape: tuple[int, ...], dtype: str, limit_bytes: int) -> TensorData:
    """A tensor of zeros, as what has a shape and no values yet. Raises PullbackError: `body_too_large` where no body could carry it."""
    needed = size(shape) * DTYPE_BYTES[dtype]
    if needed > limit_bytes:
        raise PullbackError(
            "body_too_large",
            f"A tensor of shape {list(shape)} has {needed} bytes, more than a body may.",
            at="config.shapes",
            expected=f"at most {limit_bytes} bytes",
        )
    return TensorData(dtype, shape, memoryview(bytes(needed)))


def write(result: TensorData, at: str, *, nonfinite: bool) -> list[float]:
    """The flat vector of a result. Raises InvalidOutputError for complex numbers, and for non-finite ones unless they are let through."""
    if result.dtype in COMPLEX_DTYPES:
        raise InvalidOutputError(
            "operation_failed", "The output is complex, which this protocol has no numbers for.", at=at, fix="Ask /v1/query."
        )
    if result.dtype == "bfloat16":
        values = (np.frombuffer(result.data, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    else:
        values = np.frombuffer(result.data, NUMPY[result.dtype]).astype(np.float64)
    if not nonfinite and not np.isfinite(values).all():
        raise InvalidOutputError(
            "operation_failed",
            "The result is infinite or not a number, for which JSON has no number.",
            at=at,
            given=describe(float(values[~np.isfinite(values)][0])),
            fix='Send "config": {"allow_nan": true} to get NaN and Infinity as Python writes them.',
        )
    return values.tolist()  # type: ignore[no-any-return]
