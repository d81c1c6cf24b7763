"""Rules for operators that compute within slices: along dimensions, matrix products, factorisations batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.engine.sparsity import csr
from app.engine.sparsity.csr import Csr, Numbers, selection
from app.engine.sparsity.operator_call import Call, UnfitRuleError, carries, numbers_of
from app.engine.sparsity.pattern import Pattern
from app.engine.sparsity.rules.movements import broadcast

Rule = Callable[[Call], list[Pattern | None]]


def pointwise(call: Call) -> list[Pattern | None]:
    """Each element depends on the elements of its place in the arguments, broadcast."""
    shape = call.outputs[0].shape
    if True in [tensor.shape != shape for tensor in call.tensors]:
        if np.broadcast_shapes(*(tuple(tensor.shape) for tensor in call.tensors)) != tuple(shape):
            raise UnfitRuleError(call.name)
        parts = [
            pattern if tensor.shape == shape else call.space.take(pattern, broadcast(tensor, tuple(shape)))
            for tensor, pattern in call.tracked()
        ]
    else:
        parts = [pattern for pattern in call.patterns if pattern is not None]
    union = parts[0] if len(parts) == 1 else call.space.union(parts)
    return [union] * len(call.outputs)


def switch(call: Call) -> list[Pattern | None]:
    """Pointwise, where a condition picks: both sides are held."""
    if any(call.memories.values(tensor).vary for tensor in call.tensors if tensor.dtype == torch.bool):
        call.values.switched = True
    return pointwise(call)


# --- along dimensions ------------------------------------------------------------------------------------------------


def _dims(value: Any, rank: int) -> tuple[int, ...]:
    if value is None or value == [] or value == ():
        return tuple(range(rank))
    listed = value if isinstance(value, list | tuple) else [value]
    return tuple(sorted({int(dim) % max(rank, 1) for dim in listed}))


def _slice_numbers(shape: Sequence[int], dims: tuple[int, ...]) -> Numbers:
    """For each element of `shape` the number of its slice along `dims`: slices are counted row-major over the other dimensions."""
    rest = [1 if dim in dims else size for dim, size in enumerate(shape)]
    numbers = np.arange(math.prod(rest)).reshape(rest)
    return np.broadcast_to(numbers, tuple(shape)).reshape(-1)


def along(argument: str | None) -> Rule:
    """Everything within a slice along the dimensions that `argument` names (None: all of them) depends on all of the slice."""

    def rule(call: Call) -> list[Pattern | None]:
        shape = tuple(call.tensors[0].shape)
        dims = _dims(call.argument(argument) if argument is not None else None, len(shape))
        count = math.prod(size for dim, size in enumerate(shape) if dim not in dims)
        grouped = csr.slices(shape, dims)
        parts = []
        for tensor, pattern in call.tracked():
            if tuple(tensor.shape) != shape:
                raise UnfitRuleError(call.name)
            parts.append(call.space.product(grouped, pattern))
        slices = call.space.union(parts)
        return [_spread(call, slices, output, len(shape), dims, count) for output in call.outputs]

    return rule


def _spread(call: Call, slices: Pattern, output: Tensor, rank: int, dims: tuple[int, ...], count: int) -> Pattern | None:
    if not carries(output):
        return None
    if output.numel() == count:
        return slices
    if output.dim() != rank:
        raise UnfitRuleError(call.name)
    numbers = _slice_numbers(tuple(output.shape), dims)
    if len(numbers) and int(numbers.max()) >= count:
        raise UnfitRuleError(call.name)
    return call.space.take(slices, numbers)


def chosen_along(call: Call) -> list[Pattern | None]:
    """`sort`, `topk`, `max` along a dimension…: (values, indices); each value is the element that its index names."""
    source = call.tensor("self")
    values, indices = call.outputs[0], call.outputs[1]
    pattern = call.pattern(source)
    if pattern is None:
        raise UnfitRuleError(call.name)
    call.reads(source)
    if source.dim() == 0:
        return [pattern, None]
    dim = int(call.argument("dim")) % source.dim()
    at = indices if indices.dim() == source.dim() else indices.unsqueeze(dim)
    rows = numbers_of(source).gather(dim, at).reshape(-1).to(torch.int64).numpy()
    if len(rows) != values.numel():
        raise UnfitRuleError(call.name)
    return [call.space.take(pattern, rows), None]


def equal_along(call: Call) -> list[Pattern | None]:
    """`amax`, `max` of everything…: a result depends on the elements of its slice that equal it (PyTorch shares the derivative out)."""
    source = call.tensor("self")
    dims = _dims(call.named.get("dim"), source.dim())
    shape = tuple(source.shape)
    numbers = _slice_numbers(shape, dims)
    count = math.prod(size for dim, size in enumerate(shape) if dim not in dims)
    pattern = call.pattern(source)
    if pattern is None:
        raise UnfitRuleError(call.name)
    call.reads(source)
    flat = source.detach().reshape(-1)
    patterns: list[Pattern | None] = []
    for output in call.outputs:
        if output.numel() != count:
            raise UnfitRuleError(call.name)
        result = output.detach().reshape(-1)[torch.from_numpy(np.ascontiguousarray(numbers))]
        equal = (flat == result) | (flat.isnan() & result.isnan())
        at = np.flatnonzero(equal.numpy())
        patterns.append(call.space.product(selection(numbers[at], at, (count, len(numbers))), pattern))
    return patterns


def pooled_maximum(call: Call) -> list[Pattern | None]:
    """`max_pool2d_with_indices` and its kin: (values, indices into the picture's last dimensions)."""
    source = call.tensor("self")
    indices = call.outputs[1]
    pattern = call.pattern(source)
    if pattern is None:
        raise UnfitRuleError(call.name)
    call.reads(source)
    spatial = 3 if "3d" in call.name else 2
    planes = math.prod(source.shape[:-spatial])
    numbers = numbers_of(source).reshape(planes, -1)
    rows = numbers.gather(1, indices.reshape(planes, -1)).reshape(-1).to(torch.int64).numpy()
    return [call.space.take(pattern, rows), None]


# --- products of matrices --------------------------------------------------------------------------------------------

# A constant factor's zeros are used only where they are most of it: they bind the pattern to its values.
_ZEROS_AT_LEAST = 0.5


def _product(call: Call, left: Tensor, right: Tensor) -> Pattern | None:
    """`[b, m, k] @ [b, k, n]` → the pattern of the b·m·n results: row i of the left, column j of the right."""
    batch, m, k = left.shape
    n = right.shape[2]
    parts = []
    for tensor, other, is_left in ((left, right, True), (right, left, False)):
        pattern = call.memories.pattern(tensor)
        if pattern is None:
            continue
        nonzero = _nonzero(call, other)
        if nonzero is not None:
            parts.append(call.space.product(_through(nonzero, m, k, n, batch, is_left, call), pattern))
            continue
        axis = 2 if is_left else 1  # the summed one
        shape = (batch, m, k) if is_left else (batch, k, n)
        lines = call.space.product(csr.slices(shape, (axis,)), pattern)
        line = np.arange(batch * m).reshape(batch, m, 1) if is_left else np.arange(batch * n).reshape(batch, 1, n)
        parts.append(call.space.take(lines, np.broadcast_to(line, (batch, m, n)).reshape(-1)))
    return call.space.union(parts) if parts else None


def _nonzero(call: Call, factor: Tensor) -> Tensor | None:
    """Where a constant factor that is mostly zeros is not zero; None where that is not worth knowing."""
    if call.memories.pattern(factor) is not None:
        return None
    nonzero = factor.detach() != 0
    if int(nonzero.sum()) > (1 - _ZEROS_AT_LEAST) * factor.numel():
        return None
    call.reads(factor)
    return nonzero


def _through(nonzero: Tensor, m: int, k: int, n: int, batch: int, is_left: bool, call: Call) -> Csr:
    """The elements of one factor that reach each result past the other's zeros: boolean `[b·m·n, elements]`."""
    b, first, second = (axis.numpy() for axis in nonzero.nonzero(as_tuple=True))
    free = m if is_left else n
    if len(b) * free > call.space.entries_at_most:
        raise UnfitRuleError(call.name)
    i = np.arange(free)[None, :]
    b, first, second = b[:, None], first[:, None], second[:, None]
    if is_left:  # kept[b, k, j] of the right: result (b, i, j) ← left (b, i, k)
        rows, columns = (b * m + i) * n + second, (b * m + i) * k + first
        shape = (batch * m * n, batch * m * k)
    else:  # kept[b, i, k] of the left: result (b, i, j) ← right (b, k, j)
        rows, columns = (b * m + first) * n + i, (b * k + second) * n + i
        shape = (batch * m * n, batch * k * n)
    return selection(rows.reshape(-1), columns.reshape(-1), shape)


def product(left: str, right: str, added: str | None = None) -> Rule:
    """`mm`, `bmm`, `mv`, `dot`, and with `added` the forms that add the product to something (`addmm`)."""

    def rule(call: Call) -> list[Pattern | None]:
        (output,) = call.outputs
        a, b = call.tensor(left), call.tensor(right)
        a3 = a.reshape(1, 1, -1) if a.dim() == 1 else a if a.dim() == 3 else a.unsqueeze(0)
        b3 = b.reshape(1, -1, 1) if b.dim() == 1 else b if b.dim() == 3 else b.unsqueeze(0)
        parts = [p for p in (_product(call, a3, b3),) if p is not None]
        if added is not None:
            base = call.tensor(added)
            pattern = call.pattern(base)
            if pattern is not None:
                parts.append(call.space.take(pattern, broadcast(base, tuple(output.shape))))
        return [call.space.union(parts) if parts else None]

    return rule


def distances(call: Call) -> list[Pattern | None]:
    """`_cdist_forward(x1[…, m, k], x2[…, n, k])`: row i of one, row j of the other."""
    a, b = call.tensor("x1"), call.tensor("x2")
    if a.shape[:-2] != b.shape[:-2]:
        raise UnfitRuleError(call.name)
    space, batch = call.space, math.prod(a.shape[:-2])
    parts = []
    for tensor, is_first in ((a, True), (b, False)):
        pattern = call.pattern(tensor)
        if pattern is None:
            continue
        lines = space.product(csr.slices(tuple(tensor.shape), (tensor.dim() - 1,)), pattern)
        m, n = a.shape[-2], b.shape[-2]
        line = np.arange(batch * m).reshape(batch, m, 1) if is_first else np.arange(batch * n).reshape(batch, 1, n)
        parts.append(space.take(lines, np.broadcast_to(line, (batch, m, n)).reshape(-1)))
    return [space.union(parts)]


# --- factorisations --------------------------------------------------------------------------------------------------


def by_batch(call: Call) -> list[Pattern | None]:
    """Dense within each matrix, apart by the leading dimensions, which all matrices and results share."""
    matrices = [tensor for tensor in call.tensors if tensor.dim() >= 2]
    if not matrices or any(tensor.dim() < 2 for tensor in call.tensors):
        raise UnfitRuleError(call.name)
    batch = tuple(matrices[0].shape[:-2])
    if not batch or any(tuple(t.shape[:-2]) != batch for t in matrices):
        raise UnfitRuleError(call.name)
    if any(carries(o) and tuple(o.shape[: len(batch)]) != batch for o in call.outputs):
        raise UnfitRuleError(call.name)
    count = math.prod(batch)
    parts = []
    for tensor, pattern in call.tracked():
        parts.append(call.space.product(csr.slices((count, tensor.numel() // max(count, 1)), (1,)), pattern))
    together = call.space.union(parts)
    return [
        call.space.take(together, np.repeat(np.arange(count), o.numel() // max(count, 1))) if carries(o) else None
        for o in call.outputs
    ]


def crossed(call: Call) -> list[Pattern | None]:
    """`linalg_cross(self, other, dim)`: everything in the slices of three of both."""
    (output,) = call.outputs
    shape = tuple(output.shape)
    dims = _dims(call.argument("dim"), output.dim())
    numbers = _slice_numbers(shape, dims)
    parts = []
    for tensor, pattern in call.tracked():
        whole = call.space.take(pattern, broadcast(tensor, shape))
        parts.append(call.space.take(call.space.product(csr.slices(shape, dims), whole), numbers))
    return [call.space.union(parts)]
