"""Rules for operators that compute within windows of the last dimensions: convolutions and pools.

A window is a product of one interval a dimension, so the map from results to elements is a Kronecker product of small ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix, identity, kron
from torch import Tensor

from app.engine.sparsity.csr import Csr, Numbers, selection
from app.engine.sparsity.operator_call import Call, UnfitRuleError
from app.engine.sparsity.pattern import Pattern
from app.engine.sparsity.rules.slices import Rule


def _per_dimension(value: int | Sequence[int], rank: int) -> list[int]:
    listed = [value] if isinstance(value, int) else list(value)
    return listed * rank if len(listed) == 1 else listed


def _line(results: int, elements: int, tap: int, stride: int, padding: int, dilation: int) -> tuple[Numbers, Numbers]:
    """(result, element) for one tap of a window in one dimension."""
    result = np.arange(results)
    element = result * stride - padding + tap * dilation
    there = (element >= 0) & (element < elements)
    return result[there], element[there]


def _interval(results: int, elements: int, first: Numbers, last: Numbers) -> Csr:
    """Result r depends on elements first[r] ≤ e < last[r], cut at the borders."""
    first, last = np.clip(first, 0, elements), np.clip(last, 0, elements)
    width = int(max((last - first).max(initial=0), 0))
    element = first[:, None] + np.arange(width)[None, :]
    row = np.broadcast_to(np.arange(results)[:, None], element.shape)
    there = element < last[:, None]
    return selection(row[there], element[there], (results, elements))


def _crossed(matrices: Sequence[Csr]) -> Csr:
    total = csr_matrix(np.ones((1, 1), dtype=bool))
    for matrix in matrices:
        total = csr_matrix(kron(total, matrix, format="csr").astype(bool))
    return total


def _grid(shape: Sequence[int], coordinates: Sequence[Numbers]) -> Numbers:
    """Flat numbers of the grid that the coordinates of each dimension span."""
    if not shape:
        return np.zeros(1, np.int64)
    return np.ravel_multi_index(np.meshgrid(*coordinates, indexing="ij"), tuple(shape)).reshape(-1)


def _convolution_map(call: Call, result: Sequence[int], element: Sequence[int], weight: Tensor) -> Csr:
    """`[result places, element places]` over the spatial dimensions; taps that a constant kernel has at zero are left out."""
    rank = len(result)
    strides, paddings, dilations = (_per_dimension(call.argument(n), rank) for n in ("stride", "padding", "dilation"))
    constant = call.memories.pattern(weight) is None
    live = (weight.detach() != 0).flatten(0, 1).any(0).numpy() if constant else np.ones(tuple(weight.shape[2:]), dtype=bool)
    if not live.all():
        call.reads(weight)
    rows, columns = [], []
    for tap in zip(*np.nonzero(live), strict=True):
        lines = [_line(result[d], element[d], int(tap[d]), strides[d], paddings[d], dilations[d]) for d in range(rank)]
        rows.append(_grid(result, [line[0] for line in lines]))
        columns.append(_grid(element, [line[1] for line in lines]))
    if not rows:
        return csr_matrix((math.prod(result), math.prod(element)), dtype=bool)
    return selection(np.concatenate(rows), np.concatenate(columns), (math.prod(result), math.prod(element)))


def _with_channels(call: Call, batch: int, groups: int, out: int, into: int, spatial: Csr) -> Csr:
    """`[batch·out·places, batch·into·places]`: every channel of a group with every other of it."""
    if batch * out * into // max(groups, 1) * spatial.nnz > call.space.entries_at_most:
        raise UnfitRuleError(call.name)
    channels = _crossed(
        [identity(groups, dtype=bool, format="csr"), csr_matrix(np.ones((out // groups, into // groups), bool))]
    )
    return _crossed([identity(batch, dtype=bool, format="csr"), channels, spatial])


def convolution(call: Call) -> list[Pattern | None]:
    """`convolution(input [b, c, …], weight, bias, stride, padding, dilation, transposed, output_padding, groups)`."""
    (output,) = call.outputs
    source, weight, bias = call.tensor("input"), call.tensor("weight"), call.argument("bias")
    if source.dim() != output.dim() or source.dim() < 3:
        raise UnfitRuleError(call.name)
    space, groups, transposed = call.space, int(call.argument("groups")), bool(call.argument("transposed"))
    parts = []
    pattern = call.pattern(source)
    if pattern is not None:
        here, there = list(output.shape[2:]), list(source.shape[2:])
        spatial = (
            _convolution_map(call, there, here, weight).T.tocsr() if transposed else _convolution_map(call, here, there, weight)
        )
        whole = _with_channels(call, source.shape[0], groups, output.shape[1], source.shape[1], spatial)
        parts.append(space.product(whole, pattern))
    pattern = call.pattern(weight)
    if pattern is not None:  # an output channel depends on its own kernels; of a transposed one, on those of its group
        channel = np.broadcast_to(
            np.arange(output.shape[1])[None, :, None], (output.shape[0], output.shape[1], math.prod(output.shape[2:]))
        )
        if transposed:
            group = np.repeat(np.arange(groups), weight.numel() // groups)
            kernels = space.product(selection(group, np.arange(weight.numel()), (groups, weight.numel())), pattern)
            channel = channel // (output.shape[1] // groups)
        else:
            kernel = np.repeat(np.arange(weight.shape[0]), weight[0].numel())
            kernels = space.product(selection(kernel, np.arange(weight.numel()), (weight.shape[0], weight.numel())), pattern)
        parts.append(space.take(kernels, channel.reshape(-1)))
    if isinstance(bias, Tensor) and (pattern := call.pattern(bias)) is not None:
        channel = np.broadcast_to(
            np.arange(output.shape[1])[None, :, None], (output.shape[0], output.shape[1], math.prod(output.shape[2:]))
        )
        parts.append(space.take(pattern, channel.reshape(-1)))
    return [space.union(parts) if parts else None]


def convolution_backward(call: Call) -> list[Pattern | None]:
    """(∂input, ∂weight, ∂bias): with a constant kernel and no gradient of it wanted, ∂input is the transposed map of the gradient."""
    gradient, source, weight = call.tensor("grad_output"), call.tensor("input"), call.tensor("weight")
    wanted = call.argument("output_mask")
    if list(wanted) != [True, False, False] or call.pattern(weight) is not None or call.argument("transposed"):
        raise UnfitRuleError(call.name)
    pattern = call.pattern(gradient)
    if pattern is None:
        return [None] * len(call.outputs)
    spatial = _convolution_map(call, list(gradient.shape[2:]), list(source.shape[2:]), weight)
    whole = _with_channels(call, source.shape[0], int(call.argument("groups")), gradient.shape[1], source.shape[1], spatial)
    return [call.space.product(whole.T.tocsr(), pattern)] * len(call.outputs)


def pool(rank: int) -> Rule:
    """Averages over windows of the last `rank` dimensions, each plane for itself."""

    def rule(call: Call) -> list[Pattern | None]:
        source, (output,) = call.tensor("self"), call.outputs
        maps = []
        kernel = _per_dimension(call.argument("kernel_size"), rank)
        stride = _per_dimension(call.argument("stride") or kernel, rank)
        padding = _per_dimension(call.argument("padding"), rank)
        for d in range(rank):
            results, elements = output.shape[d - rank], source.shape[d - rank]
            first = np.arange(results) * stride[d] - padding[d]
            maps.append(_interval(results, elements, first, first + kernel[d]))
        return _pooled(call, source, maps)

    return rule


def adaptive_pool(rank: int) -> Rule:
    """Windows from ⌊r·n/m⌋ to ⌈(r+1)·n/m⌉ (https://pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool2d.html)."""

    def rule(call: Call) -> list[Pattern | None]:
        source, (output,) = call.tensor("self"), call.outputs
        maps = []
        for d in range(rank):
            results, elements = output.shape[d - rank], source.shape[d - rank]
            r = np.arange(results)
            maps.append(_interval(results, elements, r * elements // results, -(-(r + 1) * elements // results)))
        return _pooled(call, source, maps)

    return rule


def _pooled(call: Call, source: Tensor, maps: Sequence[Csr]) -> list[Pattern | None]:
    pattern = call.pattern(source)
    if pattern is None:
        raise UnfitRuleError(call.name)
    planes = math.prod(source.shape[: -len(maps)])
    return [call.space.product(_crossed([identity(planes, dtype=bool, format="csr"), *maps]), pattern)]
