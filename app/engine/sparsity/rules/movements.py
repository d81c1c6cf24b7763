"""Rules for operators that move elements without computing: the same call on consecutive numbers says where each came from."""

from __future__ import annotations

import contextlib
import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.engine.sparsity.csr import Numbers, selection
from app.engine.sparsity.operator_call import Call, UnfitRuleError, carries, numbers_of
from app.engine.sparsity.pattern import Pattern
from app.program.errors import tensors_in


def _replaced(value: Any, numbered: list[Tensor]) -> Any:
    """`value` with `numbered` (in order) in place of its floating tensors."""
    if isinstance(value, Tensor):
        return numbered.pop(0) if carries(value) else value
    if isinstance(value, list | tuple):
        return type(value)(_replaced(member, numbered) for member in value)
    return value


def _filling(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with each number that is written into the result as an element made 0, and no dtype asked for."""
    names, numbers = _parameters(call.func)
    args = (
        tuple(0 if name in numbers else value for name, value in zip(names, call.args, strict=False)) if numbers else call.args
    )
    kwargs = {name: 0 if name in numbers else value for name, value in call.kwargs.items() if name != "dtype"}
    return args, kwargs


@cache
def _parameters(func: Any) -> tuple[tuple[str, ...], frozenset[str]]:
    """The names of an operator's arguments, and of those that are numbers."""
    arguments = func._schema.arguments
    return tuple(a.name for a in arguments), frozenset(a.name for a in arguments if str(a.type) == "number")


def move(call: Call) -> list[Pattern | None]:
    """Elements are numbered from 1, constants are 0; the result's numbers are the rows to take."""
    space = call.space
    numbered: list[Tensor] = []
    stacked: list[Pattern] = []
    total = 1
    for tensor, pattern in zip(call.tensors, call.patterns, strict=True):
        if not carries(tensor):
            call.reads(tensor)
        elif pattern is None:
            numbered.append(torch.zeros(tensor.shape, dtype=torch.int64))
        else:
            numbered.append(torch.from_numpy(np.arange(total, total + tensor.numel()).reshape(tuple(tensor.shape))))
            stacked.append(pattern)
            total += tensor.numel()
    moved = _moved(call, numbered)
    rows = [_rows(result, total) for result in ((moved,) if isinstance(moved, Tensor) else tensors_in(moved))]
    if len(stacked) == 1 and all(not len(r) or r.min() > 0 for r in rows):
        return [space.take(stacked[0], r - 1) for r in rows]
    every = space.stack([space.none(1), *stacked])
    return [space.take(every, r) for r in rows]


def _moved(call: Call, numbered: list[Tensor]) -> Any:
    """The call's result of `numbered` in the place of its floating tensors, as whole numbers where its kernel takes them."""
    args, kwargs = _filling(call)
    for dtype in (
        torch.int64,
        torch.float64,
    ):  # what pads by reflection, what magnifies and what lays windows out takes the latter alone
        left = [numbers.to(dtype) for numbers in numbered]
        with contextlib.suppress(RuntimeError):
            return call.func(*_replaced(args, left), **{name: _replaced(value, left) for name, value in kwargs.items()})
    raise UnfitRuleError(call.name)


def _rows(result: Tensor, total: int) -> Numbers:
    rows = result.reshape(-1).numpy()
    if rows.dtype != np.int64:
        with np.errstate(invalid="ignore"):  # what is NaN is no whole number
            whole = rows.astype(np.int64)
        if not (whole == rows).all():
            raise UnfitRuleError("the numbers did not come through")
        rows = whole
    if len(rows) and int(rows.view(np.uint64).max()) >= total:  # a negative one is among the largest there
        raise UnfitRuleError("the numbers did not come through")
    return rows


def slice_backward(call: Call) -> list[Pattern | None]:
    """`slice_backward(grad_output, input_sizes, dim, start, end, step)`: the gradient where the slice was, nothing elsewhere."""
    dim = int(call.argument("dim"))
    return _placed(call, dim, slice(call.argument("start"), call.argument("end"), call.argument("step")))


def select_backward(call: Call) -> list[Pattern | None]:
    """`select_backward(grad_output, input_sizes, dim, index)`."""
    return _placed(call, int(call.argument("dim")), int(call.argument("index")))


def _placed(call: Call, dim: int, where: slice | int) -> list[Pattern | None]:
    gradient, shape = call.tensor("grad_output"), tuple(call.argument("input_sizes"))
    pattern = call.pattern(gradient)
    if pattern is None:
        raise UnfitRuleError(call.name)
    at = (slice(None),) * (dim % len(shape)) + (where,)
    return [call.space.placed(pattern, tuple(gradient.shape), shape, at)]


def same(call: Call) -> list[Pattern | None]:
    """Each element is the argument's of the same place: copies, conversions."""
    return [call.pattern(call.tensors[0])]


def copied(call: Call) -> list[Pattern | None]:
    """`copy(self, src)`: the source's elements, broadcast."""
    (output,) = call.outputs
    source = call.tensor("src")
    pattern = call.pattern(source)
    return [None if pattern is None else call.space.take(pattern, broadcast(source, tuple(output.shape)))]


def broadcast(tensor: Tensor, shape: tuple[int, ...]) -> Numbers:
    """For each element of `shape` the element of `tensor` that PyTorch's broadcasting puts there."""
    numbers = np.arange(tensor.numel()).reshape(tuple(tensor.shape))
    return np.broadcast_to(numbers, shape).reshape(-1)


# --- sums into places ------------------------------------------------------------------------------------------------


def _added(call: Call, source: Tensor, to: Tensor, base: Tensor | None) -> list[Pattern | None]:
    """Element k of `source` is added to place `to[k]` of the result (negative: nowhere), which began as `base`."""
    space = call.space
    (output,) = call.outputs
    parts = []
    if base is not None and (pattern := call.pattern(base)) is not None:
        parts.append(pattern)
    pattern = call.pattern(source)
    if pattern is not None:
        targets = to.reshape(-1).to(torch.int64).numpy()
        there = targets >= 0
        chosen = selection(targets[there], np.flatnonzero(there), (output.numel(), source.numel()))
        parts.append(space.product(chosen, pattern))
    return [space.union(parts) if parts else None]


def _also_added(call: Call, source: Tensor, to: Tensor) -> list[Pattern | None]:
    """Overwriting is a movement; where two elements go to one place PyTorch's derivative is of both, though one value is kept."""
    (moved,), (added,) = move(call), _added(call, source, to, None)
    return [moved if added is None else added if moved is None else call.space.union([moved, added])]


def _scattered(base: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """The place of each element of `source`, of which only the corner of index's shape is used."""
    targets = torch.full(source.shape, -1.0, dtype=torch.float64)
    if index.numel():
        targets[tuple(slice(size) for size in index.shape)] = numbers_of(base).gather(dim, index)
    return targets


def scatter(call: Call) -> list[Pattern | None]:
    """`scatter(self, dim, index, src)`, or with a number in the place of `src`."""
    if "src" not in call.named:
        return move(call)
    base, index, source = call.tensor("self"), call.tensor("index"), call.tensor("src")
    return _also_added(call, source, _scattered(base, call.argument("dim"), index, source))


def scatter_add(call: Call) -> list[Pattern | None]:
    """`scatter_add(self, dim, index, src)` and `scatter_reduce`: the source's corner of index's shape, each element to its place."""
    base, index, source = call.tensor("self"), call.tensor("index"), call.tensor("src")
    call.reads(index)
    return _added(call, source, _scattered(base, call.argument("dim"), index, source), base)


def index_add(call: Call) -> list[Pattern | None]:
    """`index_add(self, dim, index, source)` and `index_reduce`."""
    base, index = call.tensor("self"), call.tensor("index")
    call.reads(index)
    return _added(call, call.tensor("source"), numbers_of(base).index_select(call.argument("dim"), index), base)


def index_copy(call: Call) -> list[Pattern | None]:
    """`index_copy(self, dim, index, source)`."""
    return _also_added(
        call, call.tensor("source"), numbers_of(call.tensor("self")).index_select(call.argument("dim"), call.tensor("index"))
    )


def index_put(call: Call) -> list[Pattern | None]:
    """`index_put(self, indices, values, accumulate)`: overwritten or added to."""
    base, values = call.tensor("self"), call.tensor("values")
    for index in tensors_in(call.argument("indices")):
        call.reads(index)
    at = numbers_of(base)[tuple(slice(None) if index is None else index for index in call.argument("indices"))]
    pattern = call.pattern(values)
    parts = [p for p in (call.pattern(base) if call.argument("accumulate") else None,) if p is not None]
    if pattern is not None:
        source = broadcast(values, tuple(at.shape))
        chosen = selection(at.reshape(-1).to(torch.int64).numpy(), source, (base.numel(), values.numel()))
        parts.append(call.space.product(chosen, pattern))
    if not call.argument("accumulate"):
        parts += [p for p in move(call) if p is not None]
    return [call.space.union(parts) if parts else None]


def put(call: Call) -> list[Pattern | None]:
    """`put(self, index, source, accumulate)`."""
    if call.argument("accumulate"):
        raise UnfitRuleError(call.name)
    return _also_added(call, call.tensor("source"), numbers_of(call.tensor("self")).take(call.tensor("index")))


def max_unpool(call: Call) -> list[Pattern | None]:
    """`max_unpool2d(self, indices, output_size)`, 3d: each plane's elements to the places that `indices` names."""
    source, indices, (output,) = call.tensor("self"), call.tensor("indices"), call.outputs
    spatial = len(call.argument("output_size"))
    planes = math.prod(output.shape[:-spatial])
    numbers = numbers_of(output).reshape(planes, -1)
    return _also_added(call, source, numbers.gather(1, indices.reshape(planes, -1)).reshape(source.shape))


def embedding_backward(call: Call) -> list[Pattern | None]:
    """`embedding_dense_backward(grad_output, indices, num_weights, …)`: rows of the gradient added into rows of the table."""
    gradient, indices = call.tensor("grad_output"), call.tensor("indices")
    call.reads(indices)
    (output,) = call.outputs
    return _added(call, gradient, numbers_of(output)[indices].reshape(gradient.shape), None)


def unfold_backward(call: Call) -> list[Pattern | None]:
    """The windows of `unfold`, added back."""
    gradient = call.tensor("grad_in")
    numbers = torch.arange(call.outputs[0].numel(), dtype=torch.float64).reshape(call.argument("input_sizes"))
    windows = numbers.unfold(call.argument("dim"), call.argument("size"), call.argument("step"))
    return _added(call, gradient, windows, None)


def fold(call: Call) -> list[Pattern | None]:
    """`col2im`: columns added into the picture; `im2col` of its numbers says where (0 is the padding)."""
    source = call.tensor("self")
    (output,) = call.outputs
    numbers = torch.arange(1, output.numel() + 1, dtype=torch.float64).reshape(output.shape)
    names = ("kernel_size", "dilation", "padding", "stride")
    at = torch.ops.aten.im2col(numbers, *(call.argument(name) for name in names))
    return _added(call, source, at.reshape(source.shape) - 1, None)
