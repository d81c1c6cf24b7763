"""Whole numbers that were sent bare and are computed with in floating point: where digits of them, or of what is made of them, are lost.

A float64 holds every whole number up to 2^53. Sums and products of whole numbers are whole, so where one reaches beyond, it may be
rounded; what is no whole number by its nature (an exponential, a root) is not watched.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

from app.catalogue.operator_mode import OperatorMode
from app.engine.planning.build import leaves_of
from app.program.errors import tensors_in
from app.program.function import Function
from app.query import Query

# A bare number beyond may be no float64.
_EXACT_INTEGERS: Final = 1 << 53
_PRODUCTS: Final = frozenset(
    {"mm", "bmm", "mv", "dot", "vdot", "addmm", "addmv", "addr", "addbmm", "baddbmm", "convolution", "conv_tbc", "_trilinear"}
)
# Whole numbers in, whole numbers out, and larger ones; of the rest the results are no larger, or not whole.
_GROWING: Final = frozenset(
    {
        *("add", "sub", "rsub", "mul", "square", "pow", "lerp", "addcmul", "linalg_cross"),
        *("sum", "nansum", "prod", "cumsum", "cumprod", "trace", "scatter_add", "scatter_reduce", "index_add", "index_reduce"),
        *_PRODUCTS,
        *("ldexp", "col2im"),
    }
)
# Of these, those that add several terms: of terms that cancel the sum may be small where a part of it was rounded.
_ADDING: Final = frozenset(
    {
        *(
            "sum",
            "nansum",
            "cumsum",
            "trace",
            "scatter_add",
            "scatter_reduce",
            "index_add",
            "index_reduce",
            "index_put",
            "put",
            "scatter",
        ),
        *_PRODUCTS,
        *("segment_reduce", "_embedding_bag_forward_only", "col2im", "addcmul", "linalg_cross"),
    }
)
# Those that do so where this argument has one of these values.
_GROWING_WHERE: Final[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
    "linalg_vector_norm": ("ord", (1,)),
    "norm": ("p", (1,)),
    "dist": ("p", (1,)),
    "_cdist_forward": ("p", (1,)),
    "_pdist_forward": ("p", (1,)),
    "index_put": ("accumulate", (True,)),
    "put": ("accumulate", (True,)),
    "scatter": ("reduce", ("add", "multiply")),
    "segment_reduce": ("reduce", ("sum", "prod")),
    "mse_loss": ("reduction", (0, 2)),  # none, and the sum
    "_embedding_bag_forward_only": ("mode", (0,)),  # the sum
}


def promoted(query: Query, leaves: Mapping[str, Tensor]) -> list[str]:
    """Leaves of bare whole numbers that are taken as floating."""
    return [
        name
        for name, data in leaves_of(query.inputs)
        if data.bare and data.dtype == "int64" and leaves[name].dtype.is_floating_point
    ]


def rounded_integers(query: Query, leaves: Mapping[str, Tensor]) -> list[str]:
    """Those of `promoted` that lose digits in the dtype that they are promoted to."""
    sent = dict(leaves_of(query.inputs))
    return [name for name in promoted(query, leaves) if _loses(np.frombuffer(sent[name].data, dtype=np.int64))]


def _loses(numbers: NDArray[np.int64]) -> bool:
    if not numbers.size or max(int(numbers.max()), -int(numbers.min())) <= _EXACT_INTEGERS:
        return False
    return any(int(float(number)) != number for number in numbers.tolist())


class WholeNumbers(OperatorMode):
    """Watches what runs in it.

    Attributes:
        computes: a step makes larger whole numbers where it is handed whole ones, whether these were or not.
        overflows: the result of one reached 2^53, where it may have been rounded.
    """

    def __init__(self, leaves: Mapping[str, Tensor]) -> None:
        """`leaves`: of the query; these hold the whole numbers that were sent, however large."""
        super().__init__()
        self._sent = {leaf.untyped_storage()._cdata for leaf in leaves.values()}
        self.computes = False
        self.overflows = False

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        is_watched = not self.overflows and _grows(func, args, kwargs)
        values = [*args, *kwargs.values()]
        # A plain float beyond is meant as it is: a size of its own, no count.
        plain = [value for value in values if isinstance(value, float)]
        computes = is_watched and all(value.is_integer() and abs(value) < _EXACT_INTEGERS for value in plain)
        self.computes = self.computes or computes  # other numbers of the next query may be whole
        # In place an argument is its own result: it is looked at before.
        is_whole = computes and all(self._is_whole(tensor) for tensor in tensors_in(values))
        parts = _largest_parts(func, args, kwargs) if is_whole and _name(func) in _ADDING else ()
        result = func(*args, **kwargs)
        if is_whole:
            self.overflows = any(_reaches(tensor) for tensor in (*tensors_in(result), *parts))
        return result

    def _is_whole(self, tensor: Tensor) -> bool:
        """Whether it holds whole numbers that nothing has rounded yet."""
        if not tensor.dtype.is_floating_point or not tensor.numel():
            return not tensor.dtype.is_complex
        if not bool((tensor == tensor.trunc()).all()):
            return False
        return tensor.untyped_storage()._cdata in self._sent or float(tensor.abs().max()) <= _EXACT_INTEGERS


def _largest_parts(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """What the terms that `func` adds come to without their signs: no part of the sum is larger."""
    if _name(func) == "linalg_cross":  # a difference of two products, whatever the signs
        first, second = (tensor.abs().amax() for tensor in tensors_in(args[:2]))
        return [2 * first * second]
    unsigned = tree_map(_unsigned, (args, kwargs))
    return list(tensors_in(func(*unsigned[0], **unsigned[1])))


def _unsigned(value: Any) -> Any:
    return value.abs() if isinstance(value, Tensor) and value.dtype.is_floating_point else value


def computes_whole_numbers(query: Query, function: Function, leaves: Mapping[str, Tensor]) -> bool:
    """Whether `function` can make whole numbers of whole ones that are sent bare, in floating point. Not for batched queries.

    Its steps and their plain arguments say it, so that it holds for whatever `leaves` come next.
    """
    if query.batched or not promoted(query, leaves):
        return False
    with torch.no_grad(), WholeNumbers(leaves) as watched:
        function.call(*(leaves[name] for name in function.leaves))
    return bool(watched.computes)


def _reaches(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point and bool(tensor.numel()) and float(tensor.abs().max()) >= _EXACT_INTEGERS


def _grows(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether `func` makes larger whole numbers of whole numbers, with these arguments."""
    name = _name(func)
    if name not in _GROWING_WHERE:
        return name in _GROWING
    argument, values = _GROWING_WHERE[name]
    position, default = _argument(func, argument)
    return (args[position] if position < len(args) else kwargs.get(argument, default)) in values


@cache
def _argument(func: Any, name: str) -> tuple[int, Any]:
    """Place and default of an operator's argument; of one that it does not have, a place beyond and None."""
    arguments = func._schema.arguments
    return next(((i, a.default_value) for i, a in enumerate(arguments) if a.name == name), (len(arguments), None))


@cache
def _name(func: Any) -> str:
    """`add` for `aten::add_.Tensor`."""
    name: str = func._schema.name.rpartition("::")[2]
    return name.rstrip("_")
