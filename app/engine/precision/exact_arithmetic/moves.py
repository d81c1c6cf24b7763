"""Exact views and moves of elements: nothing is computed but sums where several elements meet."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from app.engine.precision.exact_arithmetic.numbers import MP, Numbers, Rule, as_numbers, numbers_of, scalar


def _moved(func: Any, result: Any, *args: Any, **kwargs: Any) -> Any:
    """Views and moves: the same call on consecutive numbers says which element stands where; 0 is a new zero."""
    pool: list[Any] = [MP.mpf(0)]

    def numbered(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return type(x)(numbered(member) for member in x)
        if not (isinstance(x, Tensor) and x.dtype.is_floating_point):
            return x
        numbers = as_numbers(x)
        start = len(pool)
        pool.extend(numbers.ravel())
        return torch.arange(start, len(pool), dtype=torch.float64).reshape(x.shape)

    positions = func(*numbered(args), **{key: numbered(value) for key, value in kwargs.items() if key != "dtype"})
    values = np.array(pool, dtype=object)

    def at(position: Tensor) -> Numbers:
        return np.asarray(values[position.to(torch.int64).cpu().numpy()], dtype=object)

    return tuple(at(p) for p in positions) if isinstance(positions, tuple | list) else at(positions)


def _unchanged(func: Any, result: Any, x: Any, *_: Any, **__: Any) -> Numbers:
    numbers: Numbers = as_numbers(x)
    return numbers


def _accumulated(target: Numbers, positions: Tensor, source: Numbers) -> Numbers:
    """`target` with `source` added at `positions`, the places in row-major order."""
    flat = target.astype(object).ravel().copy()
    np.add.at(flat, positions.to(torch.int64).cpu().numpy().ravel(), np.broadcast_to(source, tuple(positions.shape)).ravel())
    return flat.reshape(target.shape)


def _elements(shape: torch.Size) -> Tensor:
    return torch.arange(shape.numel(), dtype=torch.int64).reshape(shape)


def _index_put(func: Any, result: Any, x: Any, indices: Any, values: Any, accumulate: bool = False, *_: Any) -> Numbers:
    elements = _elements(x.shape)[tuple(slice(None) if i is None else i for i in indices)]
    target = as_numbers(x)
    source = np.broadcast_to(as_numbers(values), tuple(elements.shape))
    if accumulate:
        return _accumulated(target, elements, source)
    flat = target.astype(object).ravel().copy()
    flat[elements.cpu().numpy().ravel()] = source.ravel()
    return np.asarray(flat.reshape(target.shape), dtype=object)


def _scatter_add(func: Any, result: Any, x: Any, dim: int, index: Tensor, source: Any) -> Numbers:
    elements = _elements(x.shape).gather(dim, index) if x.dim() else _elements(x.shape)
    part = as_numbers(source)[tuple(slice(0, n) for n in index.shape)]
    return _accumulated(as_numbers(x), elements, part)


def _index_add(func: Any, result: Any, x: Any, dim: int, index: Tensor, source: Any, alpha: Any = 1) -> Numbers:
    return _accumulated(as_numbers(x), _elements(x.shape).index_select(dim, index), as_numbers(source) * scalar(alpha))


def _scatter(func: Any, result: Any, x: Any, dim: int, index: Tensor, source: Any, **_: Any) -> Numbers:
    elements = _elements(x.shape).gather(dim, index) if x.dim() else _elements(x.shape)
    part = as_numbers(source)[tuple(slice(0, n) for n in index.shape)] if isinstance(source, Tensor) else as_numbers(source)
    flat = as_numbers(x).astype(object).ravel().copy()
    flat[elements.cpu().numpy().ravel()] = np.broadcast_to(part, tuple(elements.shape)).ravel()
    return np.asarray(flat.reshape(tuple(x.shape)), dtype=object)


def _constant(func: Any, result: Any, *_: Any, **__: Any) -> Numbers:
    return numbers_of(result)


_CONSTANTS: Final = (
    "full_like", "zeros_like", "ones_like", "new_zeros", "new_ones", "new_full", "full", "zeros", "ones", "empty_like", "new_empty",
    "scalar_tensor", "arange",
)  # fmt: skip


_MOVES: Final = (
    "view", "_unsafe_view", "_reshape_alias", "reshape", "transpose", "t", "permute", "expand", "squeeze", "unsqueeze", "slice", "select",
    "index", "index_select", "gather", "cat", "stack", "flip", "roll", "repeat", "tril", "triu", "diagonal", "unbind", "split",
    "split_with_sizes", "chunk", "unfold", "as_strided", "diag_embed", "take", "narrow", "movedim", "masked_select", "rot90",
    "select_backward", "slice_backward", "diagonal_backward", "diag", "hstack", "vstack", "tile", "take_along_dim", "unsafe_split",
    "slice_scatter", "select_scatter", "diagonal_scatter", "value_selecting_reduction_backward", "unsafe_chunk",
    "repeat_interleave", "masked_scatter", "trace_backward",
)  # fmt: skip


_SAME: Final = (
    "detach", "clone", "alias", "_to_copy", "contiguous", "lift_fresh", "to", "view_as", "copy", "positive", "_conj", "real",
)  # fmt: skip


MOVES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_MOVES, _moved), **dict.fromkeys(_SAME, _unchanged), **dict.fromkeys(_CONSTANTS, _constant),
    **dict.fromkeys(("index_put", "_index_put_impl", "_unsafe_index_put"), _index_put), "scatter_add": _scatter_add, "scatter": _scatter,
    "index_add": _index_add,
}  # fmt: skip
