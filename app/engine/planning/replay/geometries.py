"""Shapes, strides and dtypes of small tensors, each kept once; and where a call needs a tensor, zeros that own no memory."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any, Final

import torch
from torch import Tensor

from app.engine.planning.bounded_counter import SMALL_BYTES, UnboundedError
from app.engine.planning.cost import Outline

# 4 MB, 256 plans of the median pasted program (16 steps), 30 of the largest 5% (135); beyond, all are forgotten: some µs a step.
_LIMIT: Final = 4096


class Geometry(Outline):
    """All of a tensor but its numbers and where they stand; equal ones are one object.

    Attributes:
        form: rank and dtype.
        is_row_major: its elements stand one behind the other, the last axis first.
        has_usual_strides: besides, axes with one member have the strides that a kernel gives them.
    """

    __slots__ = ("_zeros", "form", "has_usual_strides", "is_row_major", "strides")

    def __init__(
        self, shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, *, has_usual_strides: bool = False
    ) -> None:
        self.shape, self.dtype, self.strides = shape, dtype, strides
        self.elements = elements = prod(shape)
        self.bytes = elements * dtype.itemsize
        self.form = len(shape), dtype
        self.has_usual_strides = has_usual_strides
        self.is_row_major = has_usual_strides or _stands_row_by_row(shape, strides)
        self._zeros: Tensor | None = None

    def stride(self) -> tuple[int, ...]:
        return self.strides

    @property
    def tensor(self) -> Tensor:
        """Zeros with this geometry, which share their memory with those of all others: nobody may write into it.

        Raises UnboundedError where it spans more memory than small computations take.
        """
        if self._zeros is None:
            zeros = _zeros(self.dtype)
            last = sum([(extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True)])
            if self.elements and last >= zeros.numel():
                raise UnboundedError(f"a tensor over {last + 1} elements")
            self._zeros = zeros.as_strided(self.shape, self.strides)
        return self._zeros


_known: dict[Any, Geometry] = {}


def geometry(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Geometry:
    key = dtype, shape, strides
    known = _known.get(key)
    if known is None:
        has_usual_strides = strides == row_major_strides(shape)
        known = _keep(key, row_major(shape, dtype) if has_usual_strides else Geometry(shape, strides, dtype))
    return known


def row_major(shape: tuple[int, ...], dtype: torch.dtype) -> Geometry:
    """As an input comes, and as most kernels give their results."""
    key = dtype, shape
    known = _known.get(key)
    return _keep(key, Geometry(shape, row_major_strides(shape), dtype, has_usual_strides=True)) if known is None else known


def row_major_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    rank = len(shape)
    if rank < 3:
        return (shape[1] or 1, 1) if rank == 2 else (1,) * rank
    strides = [1] * rank
    for axis in range(rank - 1, 0, -1):
        strides[axis - 1] = strides[axis] * (shape[axis] or 1)
    return tuple(strides)


def geometries(value: Any) -> Any:
    """Of a tensor; of a tuple or list of tensors a tuple, with None for what is no tensor."""
    if isinstance(value, Tensor):
        return geometry(tuple(value.shape), value.stride(), value.dtype)
    return tuple(map(geometries, value)) if isinstance(value, list | tuple) else None


def sketched(arguments: Any) -> Any:
    """Arguments of a call, with geometries in the place of tensors."""
    return _replaced(arguments, Tensor, geometries)


def on_zeros(arguments: Any) -> Any:
    """Arguments of a call, with zeros in the place of geometries."""
    return _replaced(arguments, Geometry, lambda known: known.tensor)


def on_identities(arguments: Any) -> Any:
    """Arguments of a call, with matrices of ones on the diagonal, and zeros elsewhere, in the place of geometries."""
    return _replaced(arguments, Geometry, _identities)


def _identities(known: Geometry) -> Tensor:
    if len(known.shape) < 2:
        return known.tensor
    tensor = torch.empty_strided(known.shape, known.strides, dtype=known.dtype)
    return tensor.copy_(torch.eye(*known.shape[-2:], dtype=known.dtype).expand(known.shape))


def _replaced(value: Any, kind: type, replace: Any) -> Any:
    if isinstance(value, kind):
        return replace(value)
    if isinstance(value, tuple | list):
        return type(value)([_replaced(member, kind, replace) for member in value])
    if isinstance(value, dict):
        return {name: _replaced(member, kind, replace) for name, member in value.items()}
    return value


def forms(value: Any) -> Any:
    """Rank and dtype of each, in their tuple."""
    if isinstance(value, Geometry):
        return value.form
    return tuple(map(forms, value)) if isinstance(value, tuple) else None


def stand_as_one(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether axes of a tensor that is not empty can be seen as one, as `view` has it."""
    outer = None
    for extent, stride in zip(shape, strides, strict=True):
        if extent != 1:
            if outer is not None and outer != extent * stride:
                return False
            outer = stride
    return True


def _stands_row_by_row(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """As PyTorch has `is_contiguous`: the stride of an axis with one member says nothing. Of strides that no kernel gives."""
    if 0 in shape:
        return True
    if 1 not in shape:
        return False
    last = next((stride for extent, stride in zip(reversed(shape), reversed(strides), strict=True) if extent != 1), 1)
    return last == 1 and stand_as_one(shape, strides)


def _keep(key: Any, known: Geometry) -> Geometry:
    if len(_known) >= _LIMIT:
        _known.clear()
    _known[key] = known
    return known


@cache
def _zeros(dtype: torch.dtype) -> Tensor:
    return torch.zeros(SMALL_BYTES // dtype.itemsize, dtype=dtype)
