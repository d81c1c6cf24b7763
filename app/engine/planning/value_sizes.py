"""What an operator is about to make of real tensors, reckoned before it runs: from shapes, and from values where only they tell."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from app.catalogue.kernels.unsafe_values import UnsafeValuesError
from app.engine.planning.cost import Counter

_WIDEST: Final = 16  # bytes of an element, complex128


@dataclass(frozen=True, slots=True)
class ResultSize:
    """Bytes of the results of one call, and the words for why: `argument`, by its public name, and what of it says so."""

    bytes: int
    argument: str
    reason: str


def _bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> ResultSize:  # noqa: A002  # PyTorch's name
    largest = int(input.max()) if input.numel() else -1
    bins = max(largest + 1, int(minlength))
    named, value = ("minlength", minlength) if minlength > largest + 1 else ("input", largest)
    item = 4 if weights is not None and weights.dtype == torch.float32 else 8
    return ResultSize(bins * item, named, f"`{named}` has the value {value:,}, and there is a bin for each number up to it")


def _repeat_interleave(repeats: Tensor, output_size: int | None = None) -> ResultSize:
    total = int(repeats.sum()) if repeats.numel() else 0
    # The numbers of the elements to take, int64.
    return ResultSize(8 * total, "repeats", f"the repeats sum to {total:,}")


def _nonzero(self: Tensor) -> ResultSize:
    count = int(torch.count_nonzero(self))
    return ResultSize(8 * count * self.dim(), "input", f"{count:,} elements are not zero")


def _masked_select(self: Tensor, mask: Tensor) -> ResultSize:
    shape = torch.broadcast_shapes(self.shape, mask.shape)  # type: ignore[no-untyped-call]
    count = int(torch.count_nonzero(mask)) * (math.prod(shape) // max(1, mask.numel()))
    return ResultSize(count * self.element_size(), "mask", f"{count:,} elements are chosen")


def _unique(self: Tensor, *_: Any, **__: Any) -> ResultSize:
    return ResultSize(self.numel() * (self.element_size() + 16), "input", f"it has {self.numel():,} elements")


_REFUSED: Final = (RuntimeError, TypeError, ValueError, NotImplementedError, IndexError, AttributeError)
# Call, by its operator and what its arguments are → the size of its results.
Sizes = dict[Any, ResultSize | None]

# Operators whose results have sizes that only values tell (PyTorch's tag `dynamic_output_shape`).
_BY_VALUES: Final[dict[str, Callable[..., ResultSize]]] = {
    "bincount": _bincount,
    "repeat_interleave": _repeat_interleave,
    "nonzero": _nonzero,
    "masked_select": _masked_select,
    "_unique2": _unique,
    "unique_dim": _unique,
    "unique_consecutive": _unique,
}


def result_size(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], known: Sizes | None = None) -> ResultSize | None:
    """Of a call of the operator `func`; None where it makes nothing, or where nobody can tell.

    Arguments:
        known: what shapes told before: a loop calls with the same ones, and each look takes 0.4 ms.
    """
    if func.is_view or func._schema.is_mutable:
        return None
    rule = _BY_VALUES.get(func.overloadpacket.__name__)
    try:
        if rule is not None and torch.Tag.dynamic_output_shape in func.tags:
            return rule(*args, **kwargs)
    except _REFUSED:
        return None  # the operator itself will say what is wrong with its arguments
    try:
        key = (func, _key(args), _key(tuple(kwargs.items())))
        if known is not None and key in known:
            return known[key]
    except TypeError:  # no key: generators and the like
        known = None
    try:
        size = _by_shapes(func, args, kwargs)
    except _REFUSED:
        size = None
    if known is not None:
        known[key] = size
    return size


def _key(value: Any) -> Any:
    """What the size of a result hangs on, of an argument. Raises TypeError where that is more than can be compared."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            raise TypeError
        return value.shape, value.dtype
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    return type(value), value


def _by_shapes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ResultSize:
    without_values = {name: _abstract(value) for name, value in kwargs.items()}
    if any(argument.name == "device" for argument in func._schema.arguments):
        without_values["device"] = torch.device("meta")
    results = func(*tree_map(_abstract, args), **without_values)
    tensors = [t for t in (results if isinstance(results, tuple | list) else (results,)) if isinstance(t, Tensor)]
    shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
    return ResultSize(sum(t.numel() * t.element_size() for t in tensors), "inputs", f"its result has shape {shapes}")


def _abstract(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


def _at_most(func: Any, sent: tuple[Any, ...]) -> float:
    """Bytes that a pointwise step makes at most, all elements by all others, reckoned in a hundredth of the time; of others no bound."""
    if torch.Tag.pointwise not in func.tags or any(isinstance(value, list | tuple) for value in sent):
        return math.inf
    elements = math.prod([max(1, value.numel()) for value in sent if isinstance(value, Tensor)])
    return _WIDEST * elements * len(func._schema.returns)


class LimitedCounter(Counter):
    """Raises UnsafeValuesError, `too_costly`, before a step that would make more than `limit` bytes with all before it."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit, self._sizes = limit, Sizes()

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.bytes + _at_most(func, (*args, *kwargs.values())) <= self._limit:
            return super().dispatch(func, args, kwargs)
        ahead = result_size(func, args, kwargs, self._sizes)
        if ahead is not None and self.bytes + ahead.bytes > self._limit:
            raise UnsafeValuesError(
                ahead.argument,
                f"It would make {ahead.bytes:,} bytes, for {ahead.reason}; a query may take {self._limit:,} in all.",
                f"values that make at most {self._limit:,} bytes in all",
                f"{ahead.bytes:,} bytes",
                code="too_costly",
            )
        return super().dispatch(func, args, kwargs)
