"""Steps that are known to be one call of one kernel: they are counted by their tensors, with no mode that looks on.

A mode sees each operator by a call of Python, which takes 15 µs where the operator takes 2. What a step calls must not hang on sizes:
so only what PyTorch passes to one kernel as it stands is listed here, of real floating tensors. That the counts are those that a mode
makes is tested over random programs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.nn import functional

from app.engine.planning.replay import counted_kernels
from app.engine.planning.replay.counted_kernels import Direct, counted

_aten: Final = torch.ops.aten
_VIEWS: Final = frozenset(
    {
        *(torch.t, torch.transpose, torch.permute, torch.unsqueeze, torch.unbind),
        *(
            torch.Tensor.t,
            torch.Tensor.transpose,
            torch.Tensor.permute,
            torch.Tensor.unsqueeze,
            torch.Tensor.view,
            torch.Tensor.unbind,
        ),
        *(torch.split, torch.chunk, torch.Tensor.split, torch.Tensor.chunk),
    }
)
# Of one kernel each, of two tensors, or of a tensor and a number.
_POINTWISE: Final[dict[Any, Any]] = {
    operator.add: _aten.add.Tensor, operator.sub: _aten.sub.Tensor, operator.mul: _aten.mul.Tensor, operator.truediv: _aten.div.Tensor,
}  # fmt: skip
# Of a number and a tensor; `2 / x` is two calls.
_AFTER_NUMBER: Final[dict[Any, Any]] = {
    operator.add: _aten.add.Tensor, operator.sub: _aten.rsub.Scalar, operator.mul: _aten.mul.Tensor,
}  # fmt: skip
# Of one tensor and nothing else; what they give is no larger.
_ALONE: Final[dict[Any, Any]] = {
    operator.neg: _aten.neg.default,
    functional.relu: _aten.relu.default,
    **{
        function: getattr(_aten, name).default
        for name in ("tanh", "exp", "log", "sin", "cos", "sqrt", "sigmoid", "relu", "sum", "mean", "abs", "neg", "log1p", "expm1", "erf")
        for function in (getattr(torch, name), getattr(torch.Tensor, name))
    },
    torch.Tensor.norm: _aten.linalg_vector_norm.default,
}  # fmt: skip
# Of one tensor, along an axis.
_ALONG: Final[dict[Any, Any]] = {
    torch.softmax: _aten._softmax.default, torch.Tensor.softmax: _aten._softmax.default, torch.log_softmax: _aten._log_softmax.default,
    torch.Tensor.log_softmax: _aten._log_softmax.default, torch.sum: _aten.sum.dim_IntList, torch.Tensor.sum: _aten.sum.dim_IntList,
    torch.mean: _aten.mean.dim, torch.Tensor.mean: _aten.mean.dim,
}  # fmt: skip
_AXES: Final = frozenset({"dim", "keepdim"})
_COMPARISONS: Final[dict[Any, Any]] = {
    operator.eq: _aten.eq.Scalar, operator.ne: _aten.ne.Scalar, operator.lt: _aten.lt.Scalar, operator.le: _aten.le.Scalar,
    operator.gt: _aten.gt.Scalar, operator.ge: _aten.ge.Scalar,
}  # fmt: skip
_MATMULS: Final = (operator.matmul, torch.matmul, torch.Tensor.matmul)
_MASKING: Final = (torch.masked_fill, torch.Tensor.masked_fill)
_POWERS: Final = (operator.pow, torch.pow, torch.Tensor.pow)
# What these are handed besides tensors is theirs to judge.
_WITH_OPTIONS: Final[dict[Any, Callable[[fx.Node, list[Tensor]], Direct | None]]] = {
    functional.layer_norm: lambda node, tensors: counted_kernels.layer_norm if len(node.args) + len(node.kwargs) <= 5 else None,
    functional.gelu: lambda node, tensors: counted(node.target, _aten.gelu.default) if node.kwargs.keys() <= {"approximate"} else None,
    functional.conv2d: counted_kernels.convolution,
    torch.conv2d: counted_kernels.convolution,
    functional.max_pool2d: counted_kernels.max_pool,
    functional.mse_loss: lambda node, tensors: counted_kernels.mse_loss if len(node.args) == 2 and not node.kwargs else None,
    torch.logsumexp: counted_kernels.log_sum_exp,
    Tensor.logsumexp: counted_kernels.log_sum_exp,
    **dict.fromkeys((torch.flatten, torch.reshape, Tensor.flatten, Tensor.reshape), counted_kernels.reshaped),
    **dict.fromkeys((torch.tril, torch.triu, Tensor.tril, Tensor.triu), counted_kernels.triangle),
    Tensor.contiguous: lambda node, tensors: counted_kernels.contiguous if len(node.args) == 1 and not node.kwargs else None,
    torch.trace: counted_kernels.trace,
    Tensor.trace: counted_kernels.trace,
}  # fmt: skip


def direct(node: fx.Node) -> Direct | None:
    """How the step of `node` is run directly, whatever the sizes of its tensors; None where a mode has to look on."""
    args, target = node.args, node.target
    tensors = [value.meta["val"] for value in args if isinstance(value, fx.Node)]
    if target is operator.getitem and tensors and not isinstance(tensors[0], Tensor):
        return lambda _, args, kwargs: args[0][args[1]]
    if target in _MASKING:
        return counted_kernels.masked if len(args) == 3 and not node.kwargs and _are_plain_mask_and_number(args) else None
    if not node.all_input_nodes:
        return counted_kernels.maker(node)
    if not tensors or not all(isinstance(tensor, Tensor) and tensor.is_floating_point() for tensor in tensors):
        return None
    if not isinstance(args[0], fx.Node):
        is_number = isinstance(args[0], int | float) and len(args) == 2 and not node.kwargs
        return counted(target, _AFTER_NUMBER[target]) if is_number and target in _AFTER_NUMBER else None
    if (target in _VIEWS and len(tensors) == 1) or (target is operator.getitem and _is_plain_index(args[1])):
        return lambda _, args, kwargs: target(*args, **kwargs)
    if target in _ALONG and (len(args) > 1 or node.kwargs):
        plain = len(tensors) == 1 and len(args) <= 3 and all(map(_is_axis, args[1:])) and node.kwargs.keys() <= _AXES
        return counted(target, _ALONG[target]) if plain else None
    if target in _WITH_OPTIONS:
        return _WITH_OPTIONS[target](node, tensors)
    return None if node.kwargs else _of_arguments(target, args, tensors)


def _of_arguments(target: Any, args: tuple[Any, ...], tensors: list[Tensor]) -> Direct | None:
    """As `direct`, of a step without keywords whose first argument is a tensor."""
    if target is functional.linear:
        return counted_kernels.LINEAR.get(tuple([tensor.dim() for tensor in tensors])) if len(args) == len(tensors) else None
    if target in _MATMULS:
        return counted_kernels.product(target, tensors[0].dim(), tensors[1].dim()) if len(tensors) == 2 else None
    if target in _POWERS and len(args) == 2 and len(tensors) == 1 and isinstance(args[1], int | float):
        return counted(target, _aten.pow.Tensor_Scalar)
    if target in _COMPARISONS and len(args) == 2 and len(tensors) == 1 and isinstance(args[1], int | float):
        return counted(target, _COMPARISONS[target])
    if target in _POINTWISE and all(isinstance(value, fx.Node | int | float) for value in args):
        return counted(target, _POINTWISE[target])
    return counted(target, _ALONE[target]) if target in _ALONE and len(args) == 1 else None


def _is_plain_index(index: Any) -> bool:
    """It shows a part of the memory, and copies nothing."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or _is_whole(part) or isinstance(part, slice) for part in parts)


def _is_axis(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, list | tuple) and all(map(_is_whole, value)))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_plain_mask_and_number(args: tuple[Any, ...]) -> bool:
    data, mask, value = args
    tensors = isinstance(data, fx.Node) and isinstance(mask, fx.Node)
    return (
        tensors
        and isinstance(value, int | float)
        and data.meta["val"].is_floating_point()
        and mask.meta["val"].dtype is torch.bool
    )
