"""What calls of one kernel each give, and how they are counted as a mode would count them: by the geometries of their tensors alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import fx

from app.engine.planning.bounded_counter import BoundedCounter
from app.engine.planning.cost import CallFacts, call_facts
from app.engine.planning.replay.geometries import (
    Geometry,
    geometry,
    row_major,
    stand_as_one,
)

# Counts a step: (counter, its arguments with geometries in the place of tensors, its keywords) → the geometry of its result, of several
# their tuple; or NotImplemented, before anything is counted, where a mode has to look on. Raises UnboundedError before it counts much.
Direct = Callable[[BoundedCounter, Any, Any], Any]

_aten: Final = torch.ops.aten
_MAKERS: Final[dict[Any, Any]] = {
    torch.ones: _aten.ones.default, torch.zeros: _aten.zeros.default, torch.eye: _aten.eye.default,
}  # fmt: skip
SAME_DTYPES: Final = (torch.float64, torch.float32)  # of narrower ones kernels give sums in a wider dtype
_CALLED: Final = (
    _aten.addmm.default, _aten.bmm.default, _aten.clone.default, _aten._unsafe_view.default, _aten.squeeze_.dim, _aten.masked_fill.Scalar,
    _aten.native_layer_norm.default, _aten.mse_loss.default, _aten.trace.default,
)  # fmt: skip
_ADDMM, _BMM, _CLONE, _UNSAFE_VIEW, _SQUEEZE, _MASKED_FILL, _LAYER_NORM, _MSE_LOSS, _TRACE = map(call_facts, _CALLED)


def counted(counter: BoundedCounter, facts: CallFacts, args: Any, result: Geometry) -> Geometry:
    """The result of a call, counted. Raises UnboundedError where it may be much."""
    counter.check(result.elements)
    counter.count(facts, args, result)
    return result


def pointwise(func: Any, dtype: torch.dtype) -> Direct:
    """Of tensors and numbers, broadcast together."""
    facts = call_facts(func)

    def run(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
        result = _together([value for value in args if type(value) is Geometry], dtype)
        return NotImplemented if result is None else counted(counter, facts, args, result)

    return run


def _together(values: list[Geometry], dtype: torch.dtype) -> Geometry | None:
    """What is pointwise of these; None where its strides are not plain to see.

    Of tensors that stand row by row a result does; and where all stand alike, without a gap, it stands as they do. Where some are broadcast
    the stride of an axis with one member has a say as well.
    """
    first = values[0]
    shape: tuple[int, ...] | None = first.shape
    if not first.is_row_major:
        stands_alike = values.count(first) == len(values) and 1 not in first.shape and _is_without_gaps(first)
        return geometry(first.shape, first.strides, dtype) if stands_alike else None
    have_usual_strides, are_broadcast = True, False
    for value in values:
        if not (value.is_row_major and value.elements):
            return None
        have_usual_strides = have_usual_strides and value.has_usual_strides
        if value.shape != shape and shape is not None:
            shape, are_broadcast = broadcast(shape, value.shape), True
    return None if shape is None or (are_broadcast and not have_usual_strides) else row_major(shape, dtype)


def _is_without_gaps(value: Geometry) -> bool:
    axes = sorted(zip(value.strides, value.shape, strict=True), reverse=True)
    strides, shape = (tuple([axis[part] for axis in axes]) for part in (0, 1))
    return 0 not in shape and bool(strides) and strides[-1] == 1 and stand_as_one(shape, strides)


def broadcast(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of two together; None where they do not fit."""
    if len(one) < len(other):
        one, other = other, one
    if one[len(one) - len(other) :] == other:
        return one
    extents = list(one)
    for index, extent in enumerate(other, len(one) - len(other)):
        if extents[index] == 1:
            extents[index] = extent
        elif extent not in (1, extents[index]):
            return None
    return tuple(extents)


def alike(func: Any, dtype: torch.dtype) -> Direct:
    """Of one tensor that stands row by row, and of plain values; the result has its shape."""
    facts = call_facts(func)

    def run(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
        if not args[0].is_row_major or not args[0].elements:
            return NotImplemented
        return counted(counter, facts, args, row_major(args[0].shape, dtype))

    return run


def reduced(func: Any, dtype: torch.dtype) -> Direct:
    """Along axes, by default along all of them."""
    facts = call_facts(func)

    def run(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
        shape = _without_axes(*args, **kwargs)
        return NotImplemented if shape is None else counted(counter, facts, args, row_major(shape, dtype))

    return run


def _without_axes(data: Geometry, dim: Any = None, keepdim: bool = False) -> tuple[int, ...] | None:
    """None where strides are not plain to see, or there is no such axis."""
    if not data.is_row_major or not data.elements:
        return None
    shape, rank = data.shape, len(data.shape)
    dims = [] if dim is None else [dim] if isinstance(dim, int) else list(dim)
    axes = {axis % rank for axis in dims if rank and -rank <= axis < rank}
    if len(axes) < len(dims) or not isinstance(keepdim, bool):
        return None
    if not dims:
        axes = set(range(rank))
    extents = [1 if axis in axes else extent for axis, extent in enumerate(shape) if keepdim or axis not in axes]
    return tuple(extents)


def _product(func: Any) -> Direct:
    facts = call_facts(func)

    def run(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
        left, right = args
        if left.shape[-1] != right.shape[0] or left.dtype != right.dtype:
            return NotImplemented
        return counted(counter, facts, args, row_major((*left.shape[:-1], *right.shape[1:]), left.dtype))

    return run


_MATRICES: Final = _product(_aten.mm.default)


def _linear(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    data, weight, bias = args
    (rows, inner), (outer, other) = data.shape, weight.shape
    if inner != other or bias.shape[0] != outer or not data.dtype == weight.dtype == bias.dtype:
        return NotImplemented
    turned = geometry((inner, outer), weight.strides[::-1], weight.dtype)
    return counted(counter, _ADDMM, (bias, data, turned), row_major((rows, outer), data.dtype))


def _linear_of_stack(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """A stack of matrices that stand one behind the other is multiplied as one matrix."""
    data, weight, bias = args
    if not (data.is_row_major and bias.is_row_major and data.elements):
        return NotImplemented
    result = _linear(counter, (_as_one(data), weight, bias), kwargs)
    return result if result is NotImplemented else row_major((*data.shape[:2], result.shape[1]), data.dtype)


def _as_one(stack: Geometry) -> Geometry:
    """Matrices that stand one behind the other, as one."""
    return row_major((math.prod(stack.shape[:-1]), stack.shape[-1]), stack.dtype)


def _product_of_stack(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """As above, without a bias: the flat product is shown as a stack by what a mode counts as a tensor of its own.

    Not where the stride of an axis with one member is another than the rest would make it: PyTorch's `should_fold` then takes it for a stack
    (aten/src/ATen/native/LinearAlgebra.cpp).
    """
    data, matrix = args
    is_one = data.is_row_major and data.elements and data.strides[0] == data.shape[1] * data.strides[1]
    flat = _MATRICES(counter, (_as_one(data), matrix), kwargs) if is_one else NotImplemented
    if flat is NotImplemented:
        return flat
    return _count_unsafe_view(counter, flat, row_major((*data.shape[:2], flat.shape[1]), flat.dtype))


def _product_of_stacks(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """Two stacks of as many matrices, each shown with one axis for the stack."""
    left, right = args
    are_fit = left.shape[:-2] == right.shape[:-2] and left.shape[-1] == right.shape[-2] and left.dtype == right.dtype
    if not (are_fit and left.elements and right.elements):
        return NotImplemented
    flats = _flat_stack(counter, left), _flat_stack(counter, right)
    shape = left.shape[-2], right.shape[-1]
    flat = counted(counter, _BMM, flats, row_major((flats[0].shape[0], *shape), left.dtype))
    return _count_unsafe_view(counter, flat, row_major((*left.shape[:-2], *shape), left.dtype))


def _flat_stack(counter: BoundedCounter, stack: Geometry) -> Geometry:
    flat = row_major((math.prod(stack.shape[:-2]), *stack.shape[-2:]), stack.dtype)
    if not (stack.has_usual_strides or stand_as_one(stack.shape[:-2], stack.strides[:-2])):
        copied = counted(counter, _CLONE, (stack,), row_major(stack.shape, stack.dtype))
        _count_unsafe_view(counter, copied, flat)
    return flat


def _count_unsafe_view(counter: BoundedCounter, flat: Geometry, result: Geometry) -> Geometry:
    return counted(counter, _UNSAFE_VIEW, (flat, result.shape), result)


def _product_of_row(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """`v @ m` is a row times a matrix, its first axis taken off in place."""
    vector, matrix = args
    row = geometry((1, *vector.shape), (vector.shape[0] * vector.strides[0], *vector.strides), vector.dtype)
    result = _MATRICES(counter, (row, matrix), kwargs)
    if result is NotImplemented:
        return result
    counter.count(_SQUEEZE, (result, 0), result)
    return row_major(result.shape[1:], result.dtype)


# By the ranks of the tensors.
PRODUCTS: Final[dict[tuple[int, int], Direct]] = {
    (2, 2): _MATRICES, (2, 1): _product(_aten.mv.default), (1, 1): _product(_aten.dot.default),
    (1, 2): _product_of_row, (3, 2): _product_of_stack,
}  # fmt: skip
LINEAR: Final[dict[tuple[int, ...], Direct]] = {(2, 2, 1): _linear, (3, 2, 1): _linear_of_stack}


def product(left_rank: int, right_rank: int) -> Direct | None:
    """Of matrices or stacks of them, by their ranks."""
    return _product_of_stacks if left_rank == right_rank >= 3 else PRODUCTS.get((left_rank, right_rank))


def layer_norm(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """`layer_norm(x, shape, weight, bias, eps)`, of which each of the last three may be missing."""
    data, shape, weight, bias, eps = _layer_norm_arguments(*args, **kwargs)
    tensors = [tensor for tensor in (data, weight, bias) if tensor is not None]
    extents = tuple(shape)
    are_plain = all(tensor.is_row_major and tensor.dtype in SAME_DTYPES and tensor.dtype == data.dtype for tensor in tensors)
    are_of_shape = all(tensor.shape == extents for tensor in tensors[1:])
    cut = len(data.shape) - len(extents)
    if not (are_plain and are_of_shape and extents and cut >= 0 and data.shape[cut:] == extents and data.elements):
        return NotImplemented
    counter.check(3 * data.elements)
    sums = row_major((*data.shape[:cut], *[1] * len(extents)), data.dtype)
    result = row_major(data.shape, data.dtype)
    counter.count(_LAYER_NORM, (data, shape, weight, bias, eps), (result, sums, sums))
    return result


def _layer_norm_arguments(
    input: Geometry,  # noqa: A002  # PyTorch's name
    normalized_shape: list[int],
    weight: Geometry | None = None,
    bias: Geometry | None = None,
    eps: float = 1e-5,
) -> tuple[Geometry, list[int], Geometry | None, Geometry | None, float]:
    return input, normalized_shape, weight, bias, eps


def masked(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """`masked_fill(x, mask, number)`."""
    data, mask, _ = args
    shape = broadcast(data.shape, mask.shape)
    if shape is None or 0 in shape:
        return NotImplemented
    return counted(counter, _MASKED_FILL, args, row_major(shape, data.dtype))


def contiguous(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """`x.contiguous()`."""
    (data,) = args
    return data if data.is_row_major else counted(counter, _CLONE, args, row_major(data.shape, data.dtype))


def mse_loss(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """The mean of squared differences of two tensors of one shape."""
    if args[0].shape != args[1].shape or args[0].dtype != args[1].dtype:
        return NotImplemented
    return counted(counter, _MSE_LOSS, args, row_major((), args[0].dtype))


def trace(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
    """Of a matrix."""
    return counted(counter, _TRACE, args, row_major((), args[0].dtype))


def maker(node: fx.Node) -> Direct | None:
    """`ones`, `zeros` and `eye` of sizes that they are handed."""
    target: Any = node.target
    if target not in _MAKERS or not node.args or not node.kwargs.keys() <= {"dtype"}:
        return None
    facts, dtype = call_facts(_MAKERS[target]), node.meta["val"].dtype

    def run(counter: BoundedCounter, args: Any, kwargs: Any) -> Any:
        extents = tuple(args[0]) if isinstance(args[0], list | tuple) else args
        if not all(type(extent) is int and extent >= 0 for extent in extents):
            return NotImplemented
        shape = extents * 2 if target is torch.eye and len(extents) == 1 else extents
        return counted(counter, facts, (extents,), row_major(shape, dtype))

    return run
