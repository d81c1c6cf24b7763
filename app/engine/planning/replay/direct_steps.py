"""Steps that are known to be one call of one kernel: they are counted by the geometries of their tensors, and nothing is run.

A mode sees each operator by a call of Python, which takes 15 µs where the operator takes 2, or 20 where it has not run for a millisecond.
What a step calls must not hang on sizes: so only what PyTorch passes to one kernel as it stands is listed here, of real floating tensors.
That the counts are those that a mode makes is tested over random programs.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.nn import functional

from app.engine.planning.replay import counted_kernels, counted_windows, views
from app.engine.planning.replay.attention import attention
from app.engine.planning.replay.counted_kernels import Direct, alike, pointwise, reduced

_aten: Final = torch.ops.aten
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
_ALONG: Final[dict[Any, tuple[Any, Any]]] = {
    function: (func, kind)
    for name, func, kind in (
        ("softmax", _aten._softmax.default, alike), ("log_softmax", _aten._log_softmax.default, alike),
        ("sum", _aten.sum.dim_IntList, reduced), ("mean", _aten.mean.dim, reduced), ("logsumexp", _aten.logsumexp.default, reduced),
    )
    for function in (getattr(torch, name), getattr(Tensor, name))
}  # fmt: skip
_AXES: Final = frozenset({"dim", "keepdim"})
_COMPARISONS: Final[dict[Any, Any]] = {
    operator.eq: _aten.eq.Scalar, operator.ne: _aten.ne.Scalar, operator.lt: _aten.lt.Scalar, operator.le: _aten.le.Scalar,
    operator.gt: _aten.gt.Scalar, operator.ge: _aten.ge.Scalar,
}  # fmt: skip
_MATMULS: Final = (operator.matmul, torch.matmul, torch.Tensor.matmul)
_MASKING: Final = (torch.masked_fill, torch.Tensor.masked_fill)
_POWERS: Final = (operator.pow, torch.pow, torch.Tensor.pow)
_TRIANGLES: Final[dict[Any, Any]] = {
    torch.tril: _aten.tril.default, Tensor.tril: _aten.tril.default, torch.triu: _aten.triu.default, Tensor.triu: _aten.triu.default,
}  # fmt: skip
# Of tensors alone, and of how many.
_WHOLE: Final[dict[Any, tuple[int, Direct]]] = {
    Tensor.contiguous: (1, counted_kernels.contiguous), functional.mse_loss: (2, counted_kernels.mse_loss),
    torch.trace: (1, counted_kernels.trace), Tensor.trace: (1, counted_kernels.trace),
}  # fmt: skip
# What these are handed besides tensors is theirs to judge.
_OF_WINDOWS: Final[dict[Any, Callable[[fx.Node, list[int]], Direct | None]]] = {
    functional.conv2d: counted_windows.convolution, torch.conv2d: counted_windows.convolution, functional.max_pool2d: counted_windows.max_pool,
}  # fmt: skip


def direct(node: fx.Node) -> Direct | None:
    """How the step of `node` is counted, whatever the sizes of its tensors; None where a mode has to look on."""
    args, target = node.args, node.target
    tensors = [value.meta["val"] for value in args if isinstance(value, fx.Node)]
    if target is operator.getitem and tensors and not isinstance(tensors[0], Tensor):
        return views.MEMBER
    if isinstance(target, functools.partial):
        return attention(node)
    if target in _MASKING:
        return counted_kernels.masked if len(args) == 3 and not node.kwargs and _are_plain_mask_and_number(args) else None
    if not node.all_input_nodes:
        return counted_kernels.maker(node)
    if not tensors or not all(isinstance(tensor, Tensor) and tensor.is_floating_point() for tensor in tensors):
        return None
    if not isinstance(args[0], fx.Node):
        is_number = isinstance(args[0], int | float) and len(args) == 2 and not node.kwargs
        return pointwise(_AFTER_NUMBER[target], node.meta["val"].dtype) if is_number and target in _AFTER_NUMBER else None
    if len(node.all_input_nodes) == 1:
        if target in views.VIEWS:
            return views.VIEWS[target]
        if target is operator.getitem and _is_plain_index(args[1]):
            return views.INDEXED
    return _of_options(node, tensors) or (None if node.kwargs else _of_arguments(node, tensors))


def _of_options(node: fx.Node, tensors: list[Tensor]) -> Direct | None:
    """As `direct`, of a step that takes more than tensors."""
    args, kwargs, target = node.args, node.kwargs, node.target
    dtype: Any = getattr(node.meta["val"], "dtype", None)  # of tensors in a tuple there are more
    is_of_one = len(tensors) == 1 == len(node.all_input_nodes)
    if target in _ALONG and (len(args) > 1 or kwargs):
        is_plain = is_of_one and len(args) <= 3 and all(map(_is_axis, args[1:])) and kwargs.keys() <= _AXES
        func, kind = _ALONG[target]
        return kind(func, dtype) if is_plain else None
    if target in _TRIANGLES:
        return alike(_TRIANGLES[target], dtype) if is_of_one and not kwargs else None
    if target is functional.layer_norm:
        return counted_kernels.layer_norm if len(args) + len(kwargs) <= 5 else None
    if target is functional.gelu:
        return pointwise(_aten.gelu.default, dtype) if kwargs.keys() <= {"approximate"} else None
    if target in _OF_WINDOWS:
        return _OF_WINDOWS[target](node, [tensor.dim() for tensor in tensors])
    return None


def _of_arguments(node: fx.Node, tensors: list[Tensor]) -> Direct | None:
    """As `direct`, of a step without keywords whose first argument is a tensor."""
    args, target = node.args, node.target
    are_alone = len(args) == len(tensors)
    if target is functional.linear:
        return counted_kernels.LINEAR.get(tuple([tensor.dim() for tensor in tensors])) if are_alone else None
    if target in _MATMULS:
        return counted_kernels.product(tensors[0].dim(), tensors[1].dim()) if are_alone and len(tensors) == 2 else None
    if target in _WHOLE:
        count, rule = _WHOLE[target]
        return rule if are_alone and len(tensors) == count else None
    value = node.meta["val"]
    if target in _ALONE:
        kind = reduced if value.dim() == 0 else pointwise
        return kind(_ALONE[target], value.dtype) if len(args) == 1 else None
    if target in _POINTWISE and all(isinstance(value, fx.Node | int | float) for value in args):
        return pointwise(_POINTWISE[target], value.dtype)
    if len(args) == 2 and len(tensors) == 1 and isinstance(args[1], int | float):
        func = _aten.pow.Tensor_Scalar if target in _POWERS else _COMPARISONS.get(target)
        return None if func is None else pointwise(func, value.dtype)
    return None


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
