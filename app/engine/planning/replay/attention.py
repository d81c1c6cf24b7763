"""PyTorch's own attention of a tensor to itself: which steps are that, and what its kernels make, by the geometries of its tensors."""

from __future__ import annotations

import functools
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from app.engine.planning.bounded_counter import BoundedCounter
from app.engine.planning.cost import call_facts
from app.engine.planning.replay.counted_kernels import SAME_DTYPES, Direct, counted
from app.engine.planning.replay.geometries import Geometry, geometry, row_major
from app.program.modules.layers import run_whole

_aten: Final = torch.ops.aten
_CALLED: Final = (
    _aten.addmm.default, _aten.bmm.default, _aten._unsafe_view.default, _aten.add.Tensor, _aten.clone.default, _aten.mul.Tensor,
    _aten._softmax.default, _aten.mean.dim,
)  # fmt: skip
_ADDMM, _BMM, _UNSAFE_VIEW, _ADD, _CLONE, _MUL, _SOFTMAX, _MEAN = map(call_facts, _CALLED)
_WEIGHTS: Final = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")


def is_self_attention(node: fx.Node) -> bool:
    """Without dropout; it asks whether two of its tensors are one, and they are."""
    target = node.target
    if not (
        isinstance(target, functools.partial) and target.func is run_whole and type(target.args[0]) is nn.MultiheadAttention
    ):
        return False
    values = node.args[1:]
    of_one = len({value for value in values if isinstance(value, fx.Node)}) == 1 and not node.kwargs and not target.keywords
    tensors = [source.meta["val"] for source in node.all_input_nodes]
    are_floating = all(isinstance(tensor, Tensor) and tensor.is_floating_point() for tensor in tensors)
    return of_one and are_floating and not target.args[0].dropout


def attention(node: fx.Node) -> Direct | None:
    """Of stacks of sequences, by weights of one size, and nothing asked besides."""
    target: Any = node.target
    if not is_self_attention(node) or len(node.args) != 4 or node.args[1].meta["val"].dim() != 3:  # type: ignore[union-attr]
        return None
    skeleton, names, _, keywords = target.args
    if names != _WEIGHTS or keywords or skeleton.add_zero_attn:
        return None
    return functools.partial(_attended, skeleton.num_heads, skeleton.batch_first)


def _attended(heads: int, batch_first: bool, counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """As `multi_head_attention_forward` has it (torch/nn/functional.py)."""
    (_, bias, weight_of_output, bias_of_output), data, *_ = args
    width, dtype = data.shape[-1], data.dtype
    shapes = [tensor.shape for tensor in args[0]]
    are_plain = all(tensor.is_row_major and tensor.dtype == dtype for tensor in (*args[0], data))
    are_fit = shapes == [(3 * width, width), (3 * width,), (width, width), (width,)] and width % heads == 0
    if not (are_plain and are_fit and data.elements and dtype in SAME_DTYPES):
        return NotImplemented

    def call(shape: tuple[int, ...], facts: Any, *sent: Any) -> Geometry:
        return counted(counter, facts, sent, row_major(shape, dtype))

    first, second = data.shape[:2]
    batch, length = (first, second) if batch_first else (second, first)
    rows, stack, size = length * batch, batch * heads, width // heads
    if batch_first and batch > 1 and length > 1:  # a stack that stands otherwise than one matrix
        stacks = row_major((length, batch, width), dtype), row_major((length, width, 3 * width), dtype)
        projected = call((length, batch, 3 * width), _BMM, *stacks)
        call(projected.shape, _UNSAFE_VIEW, projected)
        call(projected.shape, _ADD, projected, bias)
    else:
        call((rows, 3 * width), _ADDMM, bias, row_major((rows, width), dtype), row_major((width, 3 * width), dtype))
    if rows > 1:
        call((3, length, batch, width), _CLONE, row_major((3, length, batch, width), dtype))
    queries = row_major((stack, length, size), dtype)
    call(queries.shape, _MUL, queries, 0.5)
    scores = call((stack, length, length), _BMM, queries, row_major((stack, size, length), dtype))
    call(scores.shape, _SOFTMAX, scores)
    values = call(queries.shape, _BMM, scores, queries)
    flat = row_major((rows, width), dtype)
    if length > 1 and stack > 1:
        call(values.shape, _CLONE, values)
        call(flat.shape, _UNSAFE_VIEW, values)
    call(flat.shape, _ADDMM, bias_of_output, flat, weight_of_output)
    weights = call((batch, length, length), _MEAN, row_major((batch, heads, length, length), dtype))
    if batch_first:
        return geometry((batch, length, width), (width, batch * width, 1), dtype), weights
    return row_major((length, batch, width), dtype), weights
