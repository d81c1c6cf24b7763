"""What shows a tensor in another way, and copies nothing: the geometry of a view, by that of what it shows."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from app.engine.planning.replay.counted_kernels import Direct
from app.engine.planning.replay.geometries import Geometry, geometry, row_major


def shown(rule: Callable[..., Any]) -> Direct:
    """A step that gives what `rule` says; what it has no answer to, or refuses, PyTorch tells."""

    def run(_: Any, args: Any, kwargs: Any) -> Any:
        try:
            return rule(*args, **kwargs)
        except (TypeError, ValueError, LookupError, ArithmeticError):
            return NotImplemented

    return run


def _axis(axis: int, rank: int) -> int:
    """From 0. Raises IndexError where there is none."""
    return range(rank)[axis]


def _permuted(data: Geometry, axes: Sequence[int]) -> Geometry:
    return geometry(tuple([data.shape[axis] for axis in axes]), tuple([data.strides[axis] for axis in axes]), data.dtype)


def _t(data: Geometry) -> Geometry:
    return geometry(data.shape[::-1], data.strides[::-1], data.dtype)


def _transpose(data: Geometry, dim0: int, dim1: int) -> Geometry:
    axes = list(range(len(data.shape)))
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return _permuted(data, axes)


def _permute(data: Geometry, *dims: Any) -> Geometry:
    rank = len(data.shape)
    axes = [_axis(axis, rank) for axis in _extents(dims)]
    if sorted(axes) != list(range(rank)):
        raise ValueError(dims)
    return _permuted(data, axes)


def _unsqueeze(data: Geometry, dim: int) -> Geometry:
    axis = _axis(dim, len(data.shape) + 1)
    shape, strides = data.shape, data.strides
    stride = shape[axis] * strides[axis] if axis < len(shape) else 1
    return geometry((*shape[:axis], 1, *shape[axis:]), (*strides[:axis], stride, *strides[axis:]), data.dtype)


def _extents(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """`(2, 3)` and `((2, 3),)`. Raises TypeError where they are no whole numbers."""
    extents = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
    if not all(type(extent) is int for extent in extents):
        raise TypeError(extents)
    return extents


def _whole_shape(elements: int, extents: tuple[int, ...]) -> tuple[int, ...]:
    """With a number in the place of -1. Raises ValueError where it has not so many elements."""
    if -1 in extents:
        others = -math.prod(extents)
        extents = tuple([elements // others if extent == -1 else extent for extent in extents])
    if math.prod(extents) != elements or (extents and min(extents) < 0) or not elements:
        raise ValueError(extents)
    return extents


def _view(data: Geometry, *sizes: Any) -> Geometry:
    shape = _whole_shape(data.elements, _extents(sizes))
    if data.is_row_major:
        return row_major(shape, data.dtype)
    return geometry(shape, _strides_of_view(data, shape), data.dtype)


def _strides_of_view(data: Geometry, shape: tuple[int, ...]) -> tuple[int, ...]:
    """As PyTorch's `computeStride` has them (aten/src/ATen/TensorUtils.cpp). Raises ValueError where no view has this shape."""
    strides, position = [0] * len(shape), len(shape) - 1
    for count, stride in _chunks(data):
        viewed = 1
        while position >= 0 and (viewed < count or shape[position] == 1):
            strides[position] = viewed * stride
            viewed *= shape[position]
            position -= 1
        if viewed != count:
            raise ValueError(shape)
    if position != -1:
        raise ValueError(shape)
    return tuple(strides)


def _chunks(data: Geometry) -> Iterator[tuple[int, int]]:
    """From the last: axes that stand one behind the other, as the number of their elements and the stride of the last of them."""
    count, stride = 1, data.strides[-1]
    for axis in reversed(range(len(data.shape))):
        count *= data.shape[axis]
        if axis == 0 or (data.shape[axis - 1] != 1 and data.strides[axis - 1] != count * stride):
            yield count, stride
            count, stride = 1, data.strides[axis - 1]


def _reshape(data: Geometry, *shape: Any) -> Geometry:
    if not data.is_row_major:
        raise ValueError(shape)
    return row_major(_whole_shape(data.elements, _extents(shape)), data.dtype)


def _flatten(data: Geometry, start_dim: int = 0, end_dim: int = -1) -> Geometry:
    first, last = _axis(start_dim, len(data.shape)), _axis(end_dim, len(data.shape))
    if first > last:
        raise ValueError(start_dim)
    return _reshape(data, (*data.shape[:first], math.prod(data.shape[first : last + 1]), *data.shape[last + 1 :]))


def _split(data: Geometry, split_size: Any, dim: int = 0) -> tuple[Geometry, ...]:
    axis = _axis(dim, len(data.shape))
    extent = data.shape[axis]
    sizes = split_size if isinstance(split_size, list | tuple) else [split_size] * (extent // split_size)
    if not isinstance(split_size, list | tuple) and extent % split_size:
        sizes = [*sizes, extent % split_size]
    if not data.elements or sum(sizes) != extent or min(sizes) <= 0:
        raise ValueError(split_size)
    before, after = data.shape[:axis], data.shape[axis + 1 :]
    return tuple([geometry((*before, size, *after), data.strides, data.dtype) for size in sizes])


def _chunk(data: Geometry, chunks: int, dim: int = 0) -> tuple[Geometry, ...]:
    extent = data.shape[_axis(dim, len(data.shape))]
    if chunks <= 0:
        raise ValueError(chunks)
    return _split(data, -(-extent // chunks), dim)


def _unbind(data: Geometry, dim: int = 0) -> tuple[Geometry, ...]:
    axis = _axis(dim, len(data.shape))
    row = geometry((*data.shape[:axis], *data.shape[axis + 1 :]), (*data.strides[:axis], *data.strides[axis + 1 :]), data.dtype)
    return (row,) * data.shape[axis]


def indexed(data: Geometry, index: Any) -> Geometry:
    """By whole numbers, slices, None and an ellipsis."""
    parts = index if isinstance(index, tuple) else (index,)
    missing = len(data.shape) - sum([part is not None and part is not Ellipsis for part in parts])
    if missing < 0 or sum([part is Ellipsis for part in parts]) > 1:
        raise IndexError(index)
    if True not in [part is Ellipsis for part in parts]:
        parts = (*parts, ...)
    shape: list[int] = []
    strides: list[int] = []
    axis = 0
    for part in parts:
        if part is Ellipsis:
            shape += data.shape[axis : axis + missing]
            strides += data.strides[axis : axis + missing]
            axis += missing
        elif part is None:
            shape.append(1)
            strides.append(data.shape[axis] * data.strides[axis] if axis < len(data.shape) else 1)
        else:
            if isinstance(part, slice):
                taken = range(data.shape[axis])[part]
                if taken.step <= 0:
                    raise ValueError(index)
                shape.append(len(taken))
                strides.append(data.strides[axis] * taken.step)
            else:
                _axis(part, data.shape[axis])
            axis += 1
    return geometry(tuple(shape), tuple(strides), data.dtype)


_RULES: Final[dict[str, Callable[..., Any]]] = {
    "t": _t, "transpose": _transpose, "permute": _permute, "unsqueeze": _unsqueeze, "unbind": _unbind, "split": _split, "chunk": _chunk,
    "reshape": _reshape, "flatten": _flatten,
}  # fmt: skip
VIEWS: Final[dict[Any, Direct]] = {
    function: shown(rule) for name, rule in _RULES.items() for function in (getattr(torch, name), getattr(Tensor, name))
} | {Tensor.view: shown(_view)}
INDEXED: Final = shown(indexed)
MEMBER: Final = shown(operator.getitem)
