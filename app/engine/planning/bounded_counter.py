"""What one forward on small values costs, counted while it runs, and stopped before a step that might make more than is small.

A plan on fakes takes several times what a small computation takes. Where inputs are small their values serve as well, if no step
allocates before it is known how much: views make nothing, of operators without sizes among their arguments the tensors' shapes bound it,
and any other is asked by its own kernel for meta tensors, which have sizes and no memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import Enum, auto
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

from app.engine.planning.cost import Counter

# 4096 numbers of float64 are 32 kB, what a core's first cache holds: `exp` of them takes 3 µs, of one 1, and PyTorch's fake of it 110
# (measured), so that planning on values computes next to nothing.
_ELEMENTS_LIMIT: Final = 4096
# Of all that the steps make, so that a program of a dozen steps on inputs of that size is still run so; it takes about a millisecond.
SMALL_BYTES: Final = 1 << 20
_WIDEST: Final = 16  # bytes of an element, complex128
_FEW_RESULTS: Final = 4  # that an operator gives: what is pointwise or a reduction has at most two
# Whole numbers under these names are axes, modes or places: no result is larger for them.
_NO_SIZES: Final = frozenset(
    {"dim", "dims", "dim0", "dim1", "axis", "reduction", "ignore_index", "padding_idx", "interpolation_mode", "padding_mode", "mode",
     "dtype", "layout", "memory_format"}
)  # fmt: skip

_aten: Final = torch.ops.aten
# Others (`repeat_interleave`, `bincount`) make as much as a value says.
_READING: Final = frozenset(
    {_aten._local_scalar_dense, _aten.equal, _aten.nonzero, _aten.masked_select, _aten._unique2, _aten.unique_consecutive}
)
# Their results have the shape of their input, which their kernels for meta tensors say slowly, in Python.
_OF_ONE_SHAPE: Final = frozenset(
    {
        *(_aten.roll, _aten.flip, _aten.cumsum, _aten.cumprod, _aten.logcumsumexp, _aten.tril, _aten.triu),
        *(_aten._softmax, _aten._log_softmax, _aten.sort, _aten.native_layer_norm),
    }
)

# Products of matrices, whose kernels for meta tensors take twenty times as long as multiplying two numbers here: the elements of the result.
_PRODUCTS: Final[dict[Any, Callable[..., int]]] = {
    _aten.mm: lambda a, b: math.prod(a.shape[:1] + b.shape[1:]),
    _aten.bmm: lambda a, b: math.prod(a.shape[:2] + b.shape[2:]),
    _aten.addmm: lambda _, a, b: math.prod(a.shape[:1] + b.shape[1:]),
    _aten.mv: lambda a, _: math.prod(a.shape[:1]),
    _aten.dot: lambda *_: 1,
}
# Makers, which say how much they make: their kernels for meta tensors are in Python, and take longer than making it.
_MAKERS: Final[dict[Any, Callable[..., int]]] = {
    **dict.fromkeys(
        (_aten.zeros, _aten.ones, _aten.empty, _aten.full, _aten.rand, _aten.randn), lambda size, *_: math.prod(size)
    ),
    _aten.eye: lambda n, m=None: n * (n if m is None else m),
}
_MAKING: Final = ("default", "m", "memory_format")  # overloads of the makers without names of axes or a generator
_RESIZING: Final = frozenset({_aten.resize_, _aten.resize_as_, _aten.set_, _aten.resize})


class UnboundedError(Exception):
    """A step that may make much, for all that its arguments' sizes say: fakes must plan it."""


class _Rule(Enum):
    VIEW = auto()  # nothing is made: a view, or a write in place
    PRODUCT = auto()  # of matrices
    MAKER = auto()  # of a size that it is given
    BROADCAST = auto()  # each result has at most the elements of all tensors broadcast together
    SHAPES = auto()  # the shapes bound it, see `_bound`
    ASKED = auto()  # its kernel for meta tensors says
    INDEXED = auto()  # likewise, if there are no masks among its indices; else it reads values
    READING = auto()  # values are read, but the results are bounded by the shapes
    NEVER = auto()


class BoundedCounter(Counter):
    """Raises UnboundedError before a step that is not known to be small.

    Attributes:
        has_read: a value was read, or decided a shape: the Function holds for these values.
        needed: bytes that were to fit at most, of all steps and of what a step was feared to make.
    """

    has_read = False
    needed = 0

    def restart(self) -> None:
        """Begins anew."""
        self.flops, self.bytes, self.largest, self.scratch = 0.0, 0, 0, (0, 0, 0, 0)
        self.has_read, self.needed = False, 0

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rule = _rule(func)
        if rule is _Rule.VIEW:
            return super().dispatch(func, args, kwargs)
        sent = (*args, *kwargs.values()) if kwargs else args
        if rule is _Rule.BROADCAST and self._fits_at_a_glance(sent):
            return super().dispatch(func, args, kwargs)
        shapes: list[tuple[int, ...]] | None = None
        if rule is _Rule.INDEXED and _has_masks(args):
            rule = _Rule.READING
        if rule is _Rule.BROADCAST:
            self.check(math.prod(_broadcast(_shapes(sent))) * len(func._schema.returns))
        elif rule is _Rule.PRODUCT:
            self.check(_PRODUCTS[func.overloadpacket](*args))
        elif rule is _Rule.MAKER:
            self.check(_MAKERS[func.overloadpacket](*args))
        elif rule is _Rule.READING:
            self.has_read = True
            self.check(_bound(_shapes(sent)))
        elif rule is _Rule.NEVER:
            raise UnboundedError(str(func))
        elif rule is not _Rule.SHAPES or not self.fits(_bound(_shapes(sent))):
            self.check(
                sum(map(math.prod, _shapes(sent)))
            )  # a view of little (`expand`) may be copied on the way to a small result
            shapes = self._asked(func, args, kwargs)
        result = super().dispatch(func, args, kwargs)
        if shapes is not None and shapes != _shapes(result):
            raise UnboundedError(str(func))
        return result

    def fits(self, elements: int) -> bool:
        """Whether so many elements more are little."""
        needed = self.bytes + elements * _WIDEST
        if needed > SMALL_BYTES:
            return False
        if needed > self.needed:
            self.needed = needed
        return True

    def _fits_at_a_glance(self, sent: Any) -> bool:
        """Whether even all elements by all others would fit: more than is broadcast, and reckoned in a tenth of the time."""
        elements = _FEW_RESULTS
        for value in sent:
            if isinstance(value, Tensor):
                elements *= value.numel()
            elif isinstance(value, list | tuple):
                return False
        return elements > 0 and self.fits(elements)

    def check(self, elements: int) -> None:
        """Raises UnboundedError where so many elements more are much."""
        needed = self.bytes + elements * _WIDEST
        if needed > SMALL_BYTES:
            raise UnboundedError
        if needed > self.needed:
            self.needed = needed

    def _asked(self, func: Any, args: Any, kwargs: Any) -> list[tuple[int, ...]]:
        """The shapes of what the step will make."""
        meta = {name: _on_meta(value) for name, value in kwargs.items()}
        if any(argument.name == "device" for argument in func._schema.arguments):
            meta["device"] = torch.device("meta")
        try:
            result = func(*map(_on_meta, args), **meta)
        except NotImplementedError:
            raise UnboundedError(str(func)) from None
        shapes = _shapes(result)
        self.check(sum(map(math.prod, shapes)))
        return shapes


def _extent(shape: tuple[int, ...]) -> int:
    """Elements, if no axis was empty: the sum over an empty axis is not empty."""
    return math.prod([max(1, extent) for extent in shape])


def _bound(shapes: list[tuple[int, ...]]) -> int:
    """Elements of a result that no argument besides tensors has a say in: an outer product or a table of distances has the product of two
    of theirs, a list joined has their sum, a full decomposition of a column of n elements has n², and what is pointwise is broadcast."""
    elements = sorted(map(_extent, shapes), reverse=True)
    return max(math.prod(elements[:2]), sum(elements) ** 2, math.prod(_broadcast(shapes)))


def _broadcast(shapes: Iterable[tuple[int, ...]]) -> list[int]:
    """The extents of the largest that could come of them."""
    extents: list[int] = []
    for shape in shapes:
        extents += [1] * (len(shape) - len(extents))
        for index, extent in enumerate(reversed(shape)):
            extents[index] = max(extents[index], extent)
    return extents


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_like(value, device="meta")
    return type(value)(map(_on_meta, value)) if isinstance(value, list | tuple) else value


def _has_masks(args: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _shapes(value: Any) -> list[tuple[int, ...]]:
    """Of the tensors in a call's arguments or results."""
    if isinstance(value, Tensor):
        return [tuple(value.shape)]
    return [shape for member in value for shape in _shapes(member)] if isinstance(value, list | tuple) else []


@cache
def _rule(func: Any) -> _Rule:
    if func is _aten.index.Tensor:
        return _Rule.INDEXED
    if func.overloadpacket in _READING:
        return _Rule.READING
    if func.namespace != "aten" or {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}.intersection(func.tags):
        return _Rule.NEVER
    if func.overloadpacket in _RESIZING:
        return _Rule.NEVER
    if func._overloadname == "default" and func.overloadpacket in _PRODUCTS:
        return _Rule.PRODUCT
    if func._overloadname in _MAKING and func.overloadpacket in _MAKERS:
        return _Rule.MAKER
    returns = func._schema.returns
    is_in_place = bool(returns) and all(result.alias_info is not None and result.alias_info.is_write for result in returns)
    if func.is_view or is_in_place or torch.Tag.inplace_view in func.tags:
        return _Rule.VIEW
    if torch.Tag.pointwise in func.tags or torch.Tag.reduction in func.tags or func.overloadpacket in _OF_ONE_SHAPE:
        return _Rule.BROADCAST
    # A factory has no tensors that bound it.
    arguments = func._schema.arguments
    has_tensors = any("Tensor" in str(argument.type) for argument in arguments)
    has_sizes = any("int" in str(argument.type).lower() and argument.name not in _NO_SIZES for argument in arguments)
    return _Rule.SHAPES if has_tensors and not has_sizes else _Rule.ASKED


def is_small(shapes: Iterable[tuple[int, ...]]) -> bool:
    """Inputs of these shapes have few elements, and would have if no axis was empty."""
    return sum(map(_extent, shapes)) <= _ELEMENTS_LIMIT
