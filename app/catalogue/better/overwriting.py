"""Writing to places of a tensor, where one place may be written twice: only what is written last has a derivative.

PyTorch's backward gives the cotangent of the place to each that was written there, also to those that nothing is left of
(measured on 2.13.0; its forward mode is right). `put` and `index_put` write in the order of memory, so that which one is last depends
on the strides of what is written and of the index; both are laid out row by row first, so that the values are the same whatever is
wanted of them. tests/catalogue/better/test_overwriting.py repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from app.catalogue.better.tracked import is_differentiated


def lasting(source: Tensor, targets: Tensor, size: int) -> Tensor:
    """`source` with a derivative only for those elements that are not overwritten by a later one.

    Arguments:
        targets: where its elements are written, numbers below `size`; of its shape.
    """
    order = torch.arange(targets.numel(), device=targets.device).view(targets.shape)
    last = torch.zeros(size, dtype=torch.int64, device=targets.device).scatter(0, targets.reshape(-1), order.reshape(-1))
    return _masked(source, last.take(targets) == order)


def row_major(tensor: Tensor) -> Tensor:
    """`tensor` with its elements in memory in the order of its indices, so that they are written in that order."""
    return tensor.contiguous()


def _masked(source: Tensor, stays: Tensor) -> Tensor:
    gradients_only: Tensor = torch.where(stays, source, source.detach())
    return gradients_only


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, **keywords: Any) -> Tensor:  # noqa: A002
    if isinstance(src, Tensor) and keywords.get("reduce") is None and is_differentiated(src) and index.numel():
        corner = src[tuple(slice(extent) for extent in index.shape)] if src.dim() else src
        targets = index.to(torch.int64)
        order = torch.arange(index.numel(), device=index.device).view(index.shape)
        last = torch.zeros(input.shape, dtype=torch.int64, device=index.device).scatter(dim, targets, order)
        src = _masked(corner, last.gather(dim, targets) == order)
    if src is not None:
        keywords["value" if isinstance(src, int | float | complex) else "src"] = src
    written: Tensor = torch.scatter(input, dim, index, **keywords)
    return written


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:  # noqa: A002
    if is_differentiated(source) and index.numel() and source.dim():
        targets = index.reshape(-1).to(torch.int64)
        order = torch.arange(targets.numel(), device=index.device)
        last = torch.zeros(input.shape[dim], dtype=torch.int64, device=index.device).scatter(0, targets, order)
        shape = [1] * source.dim()
        shape[dim] = targets.numel()
        source = _masked(source, (last.take(targets) == order).view(shape))
    copied: Tensor = torch.index_copy(input, dim, index, source)
    return copied


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:  # noqa: A002
    if not accumulate and is_differentiated(source) and index.numel() and index.numel() == source.numel():
        targets = torch.where(index < 0, index + input.numel(), index).to(torch.int64)
        source = lasting(source.reshape(targets.shape), targets, input.numel())
    written: Tensor = torch.put(input, row_major(index), row_major(source), accumulate)
    return written


def index_put(input: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool = False) -> Tensor:  # noqa: A002
    indices = tuple(indices)
    if not accumulate and is_differentiated(values) and not any(i is not None and i.dtype == torch.bool for i in indices):
        numbers = torch.arange(input.numel(), device=input.device).view(input.shape)
        targets = numbers[indices]
        if targets.numel():
            values = lasting(values.expand(targets.shape), targets, input.numel())
    indices = tuple(None if i is None else row_major(i) for i in indices)
    written: Tensor = torch.index_put(input, indices, row_major(values), accumulate)
    return written
