"""How steps of one kernel each are run and counted as a mode would count them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.nn import functional

from app.engine.planning.bounded_counter import BoundedCounter

# Runs a step: (counter, its arguments, its keywords) → its result, or NotImplemented where a mode has to look on this time. Raises
# UnboundedError before it makes much.
Direct = Callable[[BoundedCounter, Any, Any], Any]

_aten: Final = torch.ops.aten
# By the ranks of the two tensors.
_PRODUCTS: Final[dict[tuple[int, int], Any]] = {(2, 2): _aten.mm.default, (2, 1): _aten.mv.default, (1, 1): _aten.dot.default}

_MAKERS: Final[dict[Any, Any]] = {
    torch.ones: _aten.ones.default, torch.zeros: _aten.zeros.default, torch.eye: _aten.eye.default,
}  # fmt: skip
# What `conv2d` takes behind its tensors, and what it takes where that is left out.
_CONVOLUTION: Final[dict[str, Any]] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}


def counted(target: Any, func: Any) -> Direct:
    """Of a kernel whose result is no larger than its first two arguments broadcast together."""

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


def _linear_of_stack(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """A stack of matrices that stand one behind the other is multiplied as one matrix."""
    data, weight, bias = args
    if not (data.is_contiguous() and bias.is_contiguous() and data.numel()):
        return NotImplemented
    flat = data.view(-1, data.shape[-1])
    product = bias, flat, weight.t()
    counter.check_product(_aten.addmm.default, product)
    result = functional.linear(data, weight, bias)
    counter.count(_aten.addmm.default, product, {}, result.view(-1, result.shape[-1]))
    return result


def _product_of_stack(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """As above, without a bias: the flat product is shown as a stack by what a mode counts as a tensor of its own."""
    data, matrix = args
    if not data.is_contiguous() or not data.numel():
        return NotImplemented
    product = data.view(-1, data.shape[-1]), matrix
    counter.check_product(_aten.mm.default, product)
    result = torch.matmul(data, matrix)
    flat = result.view(-1, result.shape[-1])
    counter.count(_aten.mm.default, product, {}, flat)
    _count_unsafe_view(counter, flat, result)
    return result


def _product_of_stacks(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """Two stacks of as many matrices, each shown with one axis for the stack."""
    left, right = args
    if left.shape[:-2] != right.shape[:-2] or not (left.numel() and right.numel()):
        return NotImplemented
    product = _flat_stack(counter, left), _flat_stack(counter, right)
    counter.check_product(_aten.bmm.default, product)
    result = torch.matmul(left, right)
    flat = result.view(-1, *result.shape[-2:])
    counter.count(_aten.bmm.default, product, {}, flat)
    _count_unsafe_view(counter, flat, result)
    return result


def _flat_stack(counter: BoundedCounter, stack: Tensor) -> Tensor:
    if _stands_as_one(stack):
        return stack.view(-1, *stack.shape[-2:])
    counter.check_broadcast((stack,))
    copied = stack.contiguous()
    counter.count(_aten.clone.default, (stack,), {}, copied)
    flat = copied.view(-1, *stack.shape[-2:])
    _count_unsafe_view(counter, copied, flat)
    return flat


def _stands_as_one(stack: Tensor) -> bool:
    """Whether the axes of a stack that is not empty can be seen as one, as `view` has it; its refusal would take 0.1 ms."""
    axes = [axis for axis in zip(stack.shape[:-2], stack.stride()[:-2], strict=True) if axis[0] != 1]
    return all(outer[1] == inner[0] * inner[1] for outer, inner in itertools.pairwise(axes))


def _count_unsafe_view(counter: BoundedCounter, flat: Tensor, result: Tensor) -> None:
    counter.check_elements(flat.numel())
    counter.count(_aten._unsafe_view.default, (flat, result.shape), {}, result)


def product(target: Any, left_rank: int, right_rank: int) -> Direct | None:
    """Of matrices or stacks of them, by their ranks."""
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
    if left_rank == right_rank >= 3:
        return _product_of_stacks
    return _product_of_stack if (left_rank, right_rank) == (3, 2) else run_row if (left_rank, right_rank) == (1, 2) else None


LINEAR: Final[dict[tuple[int, ...], Direct]] = {(2, 2, 1): _linear, (3, 2, 1): _linear_of_stack}


def layer_norm(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """`layer_norm(x, shape, weight, bias, eps)`, of which each of the last three may be missing."""
    data, shape, weight, bias, eps = _layer_norm_arguments(*args, **kwargs)
    counter.check_broadcast([tensor for tensor in (data, weight, bias) if tensor is not None], 3)
    result = torch.native_layer_norm(data, shape, weight, bias, eps)
    counter.count(_aten.native_layer_norm.default, (data, shape, weight, bias, eps), {}, result)
    return result[0]


def _layer_norm_arguments(
    input: Tensor,  # noqa: A002  # PyTorch's name
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, list[int], Tensor | None, Tensor | None, float]:
    return input, normalized_shape, weight, bias, eps


def masked(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """`masked_fill(x, mask, number)`."""
    counter.check_broadcast(args[:2])
    result = torch.masked_fill(*args)
    counter.count(_aten.masked_fill.Scalar, args, {}, result)
    return result


def contiguous(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """`x.contiguous()`."""
    (data,) = args
    if data.is_contiguous():
        return data
    counter.check_broadcast(args)
    result = data.contiguous()
    counter.count(_aten.clone.default, args, {}, result)
    return result


def mse_loss(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """The mean of squared differences of two tensors of one shape."""
    if args[0].shape != args[1].shape or not counter.fits_by_shapes(args):
        return NotImplemented
    result = functional.mse_loss(*args)
    counter.count(_aten.mse_loss.default, args, {}, result)
    return result


def log_sum_exp(node: fx.Node, tensors: list[Tensor]) -> Direct | None:
    """Along axes."""
    return counted(node.target, _aten.logsumexp.default) if _has_one_of(node, 1, "dim", ("dim", "keepdim")) else None


def triangle(node: fx.Node, tensors: list[Tensor]) -> Direct | None:
    """`tril` and `triu`."""
    is_plain = len(tensors) == 1 and not node.kwargs
    lower = node.target in (torch.tril, Tensor.tril)
    return counted(node.target, _aten.tril.default if lower else _aten.triu.default) if is_plain else None


def trace(node: fx.Node, tensors: list[Tensor]) -> Direct | None:
    """Of a matrix."""

    def run(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
        if not counter.fits_by_shapes(args):
            return NotImplemented
        result = torch.trace(*args)
        counter.count(_aten.trace.default, args, {}, result)
        return result

    return run if len(node.args) == 1 and not node.kwargs else None


def reshaped(node: fx.Node, tensors: list[Tensor]) -> Direct | None:
    """`flatten` and `reshape` show what stands row by row in another shape."""
    target: Any = node.target

    def run(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
        return target(*args) if args[0].is_contiguous() else NotImplemented

    return run if len(tensors) == 1 and not node.kwargs else None


def maker(node: fx.Node) -> Direct | None:
    """`ones`, `zeros` and `eye` of sizes that they are handed."""
    target: Any = node.target
    func = _MAKERS.get(target)

    def run(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
        extents = args[0] if isinstance(args[0], list | tuple) else args
        if not all(type(extent) is int and extent >= 0 for extent in extents):
            return NotImplemented
        counter.check_elements(extents[0] ** 2 if target is torch.eye and len(extents) == 1 else math.prod(extents))
        result = target(*args, **kwargs)
        counter.count(func, (extents,), {}, result)
        return result

    return run if func is not None and node.args and node.kwargs.keys() <= {"dtype"} else None


def convolution(node: fx.Node, tensors: list[Tensor]) -> Direct | None:
    """`conv2d` of a batch."""
    ranks = [tensor.dim() for tensor in tensors]
    plain = node.args[len(tensors) :]
    are_plain = ranks in ([4, 4], [4, 4, 1]) and all(map(_is_pair, (*plain, *node.kwargs.values())))
    return _convolution if are_plain and len(plain) <= len(_CONVOLUTION) and node.kwargs.keys() <= _CONVOLUTION.keys() else None


def _convolution(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    data, weight, *rest = args
    bias = rest.pop(0) if rest and isinstance(rest[0], Tensor) else None
    options = _CONVOLUTION | dict(zip(_CONVOLUTION, rest, strict=False)) | kwargs
    stride, padding, dilation = [_pair(options[name]) for name in ("stride", "padding", "dilation")]
    around = [extent + 2 * added for extent, added in zip(data.shape[2:], padding, strict=True)]
    if not (counter.fits(data.shape[0] * weight.shape[0] * math.prod(around)) and counter.fits(_elements(args))):
        return NotImplemented  # no result is larger; PyTorch says how large it is
    result = functional.conv2d(*args, **kwargs)
    sent = data, weight, bias, stride, padding, dilation, False, [0, 0], options["groups"]
    counter.count(_aten.convolution.default, sent, {}, result)
    return result


def max_pool(node: fx.Node, tensors: list[Tensor]) -> Direct | None:
    """`max_pool2d` with a window and steps."""
    is_plain = len(tensors) == 1 and tensors[0].dim() in (3, 4) and 1 < len(node.args) <= 3 and not node.kwargs
    return _max_pool if is_plain and all(map(_is_pair, node.args[1:])) else None


def _max_pool(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    if not counter.fits(2 * args[0].numel()):  # the largest, and where they stand
        return NotImplemented
    data, window, *stride = args
    sent = (data, _pair(window), *map(_pair, stride))
    result = torch._C._nn.max_pool2d_with_indices(*sent)
    counter.count(_aten.max_pool2d_with_indices.default, sent, {}, result)
    return result[0]


def _elements(args: Any) -> int:
    return sum([value.numel() for value in args if isinstance(value, Tensor)])


def _is_pair(value: Any) -> bool:
    """A whole number, or two."""
    parts = value if isinstance(value, list | tuple) else (value,)
    return len(parts) in (1, 2) and all(type(part) is int for part in parts)


def _pair(value: Any) -> list[int]:
    parts = list(value) if isinstance(value, list | tuple) else [value]
    return parts * 2 if len(parts) == 1 else parts


def _has_one_of(node: fx.Node, position: int, name: str, names: tuple[str, ...]) -> bool:
    """It has an argument of whole numbers at a position or by a name, and no keywords but `names`."""
    value = node.args[position] if position < len(node.args) else node.kwargs.get(name)
    parts = value if isinstance(value, list | tuple) else (value,)
    is_one = len(parts) > 0 and all(type(part) is int for part in parts)
    return is_one and node.kwargs.keys() <= set(names) and len(node.args) <= position + 2
