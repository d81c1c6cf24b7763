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

from app.engine.planning.bounded_counter import BoundedCounter

# Runs a step: (counter, its arguments, its keywords) → its result. Raises UnboundedError before it makes much.
Direct = Callable[[BoundedCounter, Any, Any], Any]

_aten: Final = torch.ops.aten
_VIEWS: Final = frozenset(
    {
        *(torch.t, torch.transpose, torch.permute, torch.unsqueeze),
        *(torch.Tensor.t, torch.Tensor.transpose, torch.Tensor.permute, torch.Tensor.unsqueeze, torch.Tensor.view),
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
    functional.gelu: _aten.gelu.default,
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
_POWERS: Final = (operator.pow, torch.pow, torch.Tensor.pow)
# By the ranks of the two tensors.
_PRODUCTS: Final[dict[tuple[int, int], Any]] = {(2, 2): _aten.mm.default, (2, 1): _aten.mv.default, (1, 1): _aten.dot.default}


def direct(node: fx.Node) -> Direct | None:
    """How the step of `node` is run directly, whatever the sizes of its tensors; None where a mode has to look on."""
    args, target = node.args, node.target
    tensors = [value.meta["val"] for value in args if isinstance(value, fx.Node)]
    if target is operator.getitem and tensors and not isinstance(tensors[0], Tensor):
        return lambda _, args, kwargs: args[0][args[1]]
    if not tensors or not all(isinstance(tensor, Tensor) and tensor.is_floating_point() for tensor in tensors):
        return None
    if not isinstance(args[0], fx.Node):
        is_number = isinstance(args[0], int | float) and len(args) == 2 and not node.kwargs
        return _counted(target, _AFTER_NUMBER[target]) if is_number and target in _AFTER_NUMBER else None
    if (target in _VIEWS and len(tensors) == 1) or (target is operator.getitem and _is_plain_index(args[1])):
        return lambda _, args, kwargs: target(*args, **kwargs)
    if target in _ALONG and (len(args) > 1 or node.kwargs):
        plain = len(tensors) == 1 and len(args) <= 3 and all(map(_is_axis, args[1:])) and node.kwargs.keys() <= _AXES
        return _counted(target, _ALONG[target]) if plain else None
    if node.kwargs:
        return None
    if target is functional.linear:
        return _linear if [tensor.dim() for tensor in tensors] == [2, 2, 1] else None
    if target is operator.matmul or target is torch.matmul:
        return _product(target, tensors[0].dim(), tensors[1].dim()) if len(tensors) == 2 else None
    if target in _POWERS and len(args) == 2 and len(tensors) == 1 and isinstance(args[1], int | float):
        return _counted(target, _aten.pow.Tensor_Scalar)
    if target in _POINTWISE and all(isinstance(value, fx.Node | int | float) for value in args):
        return _counted(target, _POINTWISE[target])
    return _counted(target, _ALONE[target]) if target in _ALONE and len(args) == 1 else None


def _is_plain_index(index: Any) -> bool:
    """It shows a part of the memory, and copies nothing."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or _is_whole(part) or isinstance(part, slice) for part in parts)


def _is_axis(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, list | tuple) and all(map(_is_whole, value)))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _counted(target: Any, func: Any) -> Direct:
    def run(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
        counter.check_broadcast(args[:2])
        result = target(*args, **kwargs)
        counter.count(func, args, {}, result)
        return result

    return run


def _linear(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    data, weight, bias = args
    product = bias, data, weight.t()
    counter.check_product(_aten.addmm.default, product)
    result = functional.linear(data, weight, bias)
    counter.count(_aten.addmm.default, product, {}, result)
    return result


def _product(target: Any, left_rank: int, right_rank: int) -> Direct | None:
    func = _PRODUCTS.get((left_rank, right_rank))

    def run(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
        counter.check_product(func, args)
        result = target(*args)
        counter.count(func, args, {}, result)
        return result

    def run_row(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
        """`v @ m` is a row times a matrix, its first axis taken off in place."""
        row = args[0].unsqueeze(0), args[1]
        counter.check_product(_aten.mm.default, row)
        result = target(*args)
        counter.count(_aten.mm.default, row, {}, result.unsqueeze(0))
        counter.count(_aten.squeeze_.dim, (result, 0), {}, result)
        return result

    if func is not None:
        return run
    return run_row if (left_rank, right_rank) == (1, 2) else None
