"""Whole numbers: where digits are lost of those that were sent bare and are computed with in floating point, and where others wrap around.

A float64 holds every whole number up to 2^53. Sums and products of whole numbers are whole, so where one reaches beyond, it may be
rounded: it is computed once more in whole numbers of 64 bits, and compared. What is no whole number by its nature (an exponential, a
root) is not watched, but for what is made of a sum (a mean), or whole though it is computed by numbers that are not (a determinant).

What has a dtype of whole numbers PyTorch computes modulo a power of two: the same in float64 says where it left the dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

from app.catalogue.operator_mode import OperatorMode
from app.engine.planning.build import leaves_of
from app.engine.planning.whole_part import (
    COMPARISONS,
    compares_otherwise,
    holds_integers,
    is_cast_to_whole,
    leaves_dtype,
    where_wrapped,
    whole_part,
    widens,
)
from app.program.errors import tensors_in
from app.program.function import Function
from app.query import Query

# A bare number beyond may be no float64.
_EXACT_INTEGERS: Final = 1 << 53
_COUNTED_INTEGERS: Final = 1 << 62  # what stays below, half of the largest, can be computed in int64
# A mean is a sum and a division: so many roundings of its own it may have.
_MEAN_EPS: Final = 4 * 2.0**-52
# A determinant is told to have lost digits from four of its sixteen on: [[1, 2], [3, 4]] gives -2.0000000000000004.
_DETERMINANT: Final = 1e-12
# Exact determinants take so many operations of Python's: 30 ms (measured); larger ones are not compared.
_DETERMINANT_COST: Final = 100_000
_PRODUCTS: Final = frozenset(
    {"mm", "bmm", "mv", "dot", "vdot", "addmm", "addmv", "addr", "addbmm", "baddbmm", "convolution", "conv_tbc", "_trilinear"}
)
_MEAN: Final = "mean"
_DETERMINANTS: Final = "_linalg_det"
# Whole numbers in, whole numbers out, and larger ones; of the rest the results are no larger, or not whole.
_GROWING: Final = frozenset(
    {
        *("add", "sub", "rsub", "mul", "square", "pow", "lerp", "addcmul", "linalg_cross"),
        *("sum", "nansum", "prod", "cumsum", "cumprod", "trace", "scatter_add", "scatter_reduce", "index_add", "index_reduce"),
        *_PRODUCTS,
        *("ldexp", "col2im"),
        *(_MEAN, _DETERMINANTS),
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


# Of what PyTorch has for whole numbers alone, the same in float64.
_IN_FLOAT64: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "bitwise_left_shift": torch.ldexp,
    "__lshift": torch.ldexp,
    "__ilshift": torch.ldexp,
    "lcm": lambda a, b: (a / torch.gcd(a.long(), b.long()).clamp(min=1) * b).abs(),
}
# Besides these, what leaves a dtype of whole numbers: the smallest has no opposite, and a cast may be to a narrower one.
_WRAPPING: Final = _GROWING | {"neg", "abs", "_to_copy"} | _IN_FLOAT64.keys()
_QUOTIENTS: Final = frozenset({"div", "floor_divide"})  # these do where the smallest is divided by -1
_POSITIONS: Final = frozenset({"index", "indices"})  # arguments that count elements; no numbers are computed of them


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
        wraps: the dtype of whole numbers whose range a step's result left, which PyTorch gives modulo a power of two.
        overflows: the result of one reached 2^53 and was rounded, or nobody can tell.
        cancels: a determinant of whole numbers is off by the rounding of its factors.
        casts: the dtype of whole numbers to which floating ones were cast that it cannot hold.
        compares: whole numbers were rounded to be compared, and that decided.
    """

    def __init__(self, leaves: Mapping[str, Tensor], *, floating: bool = True) -> None:
        """`leaves`: of the query; these hold the whole numbers that were sent, however large. `floating`: in floating point too."""
        super().__init__()
        self._floating = floating
        self._sent = {leaf.untyped_storage()._cdata for leaf in leaves.values()}
        self._exact: list[Tensor] = []  # beyond 2^53 and compared; kept, so that no other tensor takes their storages
        self.computes = False
        self.overflows = False
        self.cancels = False
        self.compares = False
        self.wraps: torch.dtype | None = None
        self.casts: torch.dtype | None = None
        self._wrapped: dict[int, tuple[Tensor, Tensor]] = {}  # by its storage a result and where it wrapped
        self._left: set[int] = set()  # those of them of which `where` has chosen others

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = [*args, *kwargs.values()]
        if self._wrapped:
            self._use(func, args, tensors_in(values))
        if all(map(holds_integers, tensors_in(values))):
            return self._of_integers(func, args, kwargs)
        if _name(func) in COMPARISONS or (_name(func) == "_to_copy" and is_cast_to_whole(args[0], **kwargs)):
            return self._of_both(func, args, kwargs)
        is_watched = self._floating and not self.overflows and _grows(func, args, kwargs)
        # A plain float beyond is meant as it is: a size of its own, no count.
        plain = [value for value in values if isinstance(value, float)]
        computes = is_watched and all(value.is_integer() and abs(value) < _EXACT_INTEGERS for value in plain)
        self.computes = self.computes or computes  # other numbers of the next query may be whole
        # In place an argument is its own result: it is looked at before.
        is_whole = computes and all(self._is_whole(tensor) for tensor in tensors_in(values))
        parts = _largest_parts(func, args, kwargs) if is_whole and _name(func) in _ADDING else ()
        result = func(*args, **kwargs)
        if is_whole and _name(func) == _MEAN:
            self.overflows = _is_off(result, *args, **kwargs)
        elif is_whole and _name(func) == _DETERMINANTS:
            self.cancels = self.cancels or _has_lost(args[0], result[0])
        elif is_whole:
            reached = [tensor for tensor in (*tensors_in(result), *parts) if _reaches(tensor)]
            self.overflows = bool(reached) and not _is_exact(func, args, kwargs, result, reached)
            self._exact += [tensor for tensor in tensors_in(result) if _reaches(tensor)]
            self._sent.update(tensor.untyped_storage()._cdata for tensor in self._exact)
        return result

    def _of_integers(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not _may_wrap(func, args, kwargs):
            return func(*args, **kwargs)
        self.computes = True
        # In place an argument is its own result: it is computed with before.
        wide = _of_floating(func, args, kwargs) if self.wraps is None else None
        result = func(*args, **kwargs)
        wrapped = None if wide is None or not isinstance(result, Tensor) else where_wrapped(result, wide)
        if wrapped is not None:
            self._wrapped[result.untyped_storage()._cdata] = result, wrapped
        return result

    def _use(self, func: Any, args: tuple[Any, ...], tensors: Iterable[Tensor]) -> None:
        """Numbers that wrapped around are used: but for those that `where` does not choose."""
        for tensor in tensors:
            result, wrapped = self._wrapped.get(tensor.untyped_storage()._cdata, (None, None))
            if result is None or wrapped is None:
                continue
            chosen = (
                [args[0] if index == 1 else ~args[0] for index in (1, 2) if args[index] is tensor]
                if _name(func) == "where"
                else []
            )
            if not chosen or any(bool((wrapped & each).any()) for each in chosen):
                self.wraps = result.dtype
            self._left.add(tensor.untyped_storage()._cdata)

    def settle(self, outputs: Iterable[Tensor] | None) -> None:
        """What has wrapped around and is an output: one of `outputs`, or, where these are not known, as no step has taken it."""
        returned = None if outputs is None else {output.untyped_storage()._cdata for output in outputs}
        for storage, (result, _) in self._wrapped.items():
            if storage not in self._left if returned is None else storage in returned:
                self.wraps = result.dtype

    def _of_both(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A cast of floating numbers to whole ones, or a comparison of whole with floating ones."""
        result = func(*args, **kwargs)
        if _name(func) == "_to_copy":
            self.computes = True
            self.casts = self.casts or (result.dtype if leaves_dtype(args[0], result.dtype) else None)
        elif any(map(holds_integers, tensors_in(args))):
            self.computes = True
            self.compares = self.compares or compares_otherwise(_name(func), result, *args[:2])
        return result

    def _is_whole(self, tensor: Tensor) -> bool:
        """Whether it holds whole numbers that nothing has rounded yet."""
        if not tensor.dtype.is_floating_point or not tensor.numel():
            return not tensor.dtype.is_complex
        if not bool((tensor == tensor.trunc()).all()):
            return False
        return tensor.untyped_storage()._cdata in self._sent or float(tensor.abs().max()) <= _EXACT_INTEGERS


def _of_floating(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What `func` gives of the same numbers in float64; None where PyTorch has it for whole numbers alone."""
    if _name(func) in _IN_FLOAT64:
        pair = [torch.as_tensor(value).to(torch.float64) for value in args[:2]]
        return _IN_FLOAT64[_name(func)](*pair)
    names = [argument.name for argument in func._schema.arguments]
    named = {**dict(zip(names, args, strict=False)), **kwargs}
    wide = {name: value if name in _POSITIONS else tree_map(_in_float64, value) for name, value in named.items()}
    try:
        result = func(*(wide[name] for name in names[: len(args)]), **{name: wide[name] for name in kwargs})
    except (RuntimeError, NotImplementedError, TypeError):
        return None
    return result.to(torch.float64) if isinstance(result, Tensor) else None


def _may_wrap(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the result may leave its dtype of whole numbers, whatever whole numbers the tensors hold."""
    name = _name(func)
    if name in _QUOTIENTS:
        return any(isinstance(divisor, Tensor) or divisor == -1 for divisor in args[1:])
    return (name in _WRAPPING or _grows(func, args, kwargs)) and not widens(args, kwargs)


def _in_float64(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return torch.float64
    return value.to(torch.float64) if isinstance(value, Tensor) else value


def _is_exact(func: Any, args: Any, kwargs: Any, result: Any, reached: Sequence[Tensor]) -> bool:
    """Whether the same in int64 gives the same numbers; False where that is not to be had."""
    if func._schema.is_mutable or not isinstance(result, Tensor) or not all(_is_below(t, _COUNTED_INTEGERS) for t in reached):
        return False
    whole_args, whole_kwargs = tree_map(_as_integers, (args, kwargs))
    if not all(_is_below(tensor, _COUNTED_INTEGERS) for tensor in tensors_in([*args, *kwargs.values()])):
        return False
    try:
        exact = func(*whole_args, **whole_kwargs)
    except (RuntimeError, NotImplementedError):  # PyTorch has it for floating numbers alone
        return False
    return isinstance(exact, Tensor) and exact.dtype == torch.int64 and torch.equal(exact, result.to(torch.int64))


def _as_integers(value: Any) -> Any:
    if isinstance(value, float):
        return int(value)
    return value.to(torch.int64) if isinstance(value, Tensor) and value.dtype.is_floating_point else value


def _is_below(tensor: Tensor, limit: int) -> bool:
    return not tensor.numel() or not tensor.dtype.is_floating_point or float(tensor.abs().max()) < limit


def _is_off(mean: Tensor, numbers: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> bool:
    """Whether a mean is another than its exact sum divided, where a part of that sum may reach 2^53."""
    count = numbers.numel() // max(1, mean.numel())
    largest = float(numbers.abs().max()) * count if numbers.numel() else 0.0
    if not numbers.dtype.is_floating_point or largest < _EXACT_INTEGERS:
        return False
    if largest >= _COUNTED_INTEGERS:
        return True
    whole = numbers.to(torch.int64)
    exact = (whole.sum() if dim is None else whole.sum(dim, keepdim)).to(torch.float64) / count
    return bool(((mean - exact).abs() > _MEAN_EPS * exact.abs()).any())


def _has_lost(matrices: Tensor, determinants: Tensor) -> bool:
    """Whether one of the determinants has lost digits, compared with exact ones."""
    rows = matrices.shape[-1]
    if matrices.numel() * rows > _DETERMINANT_COST:
        return False
    exact = [_determinant([[int(x) for x in row] for row in m]) for m in matrices.reshape(-1, rows, rows).tolist()]
    pairs = zip(determinants.reshape(-1).tolist(), exact, strict=True)
    return any(math.isfinite(own) and abs(own - float(true)) > _DETERMINANT * abs(float(true)) for own, true in pairs)


def _determinant(matrix: list[list[int]]) -> int:
    """Of whole numbers, without a fraction (E. H. Bareiss, Mathematics of Computation 22, 1968)."""
    sign, before = 1, 1
    for k in range(len(matrix) - 1):
        if matrix[k][k] == 0:
            other = next((i for i in range(k + 1, len(matrix)) if matrix[i][k]), None)
            if other is None:
                return 0
            matrix[k], matrix[other], sign = matrix[other], matrix[k], -sign
        for i in range(k + 1, len(matrix)):
            for j in range(k + 1, len(matrix)):
                matrix[i][j] = (matrix[i][j] * matrix[k][k] - matrix[i][k] * matrix[k][j]) // before
        before = matrix[k][k]
    return sign * matrix[-1][-1] if matrix else 1


def _largest_parts(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """What the terms that `func` adds come to without their signs: no part of the sum is larger."""
    if _name(func) == "linalg_cross":  # a difference of two products, whatever the signs
        first, second = (tensor.abs().amax() for tensor in tensors_in(args[:2]))
        return [2 * first * second]
    unsigned = tree_map(_unsigned, (args, kwargs))
    return list(tensors_in(func(*unsigned[0], **unsigned[1])))


def _unsigned(value: Any) -> Any:
    return value.abs() if isinstance(value, Tensor) and value.dtype.is_floating_point else value


def are_promoted(query: Query, leaves: Mapping[str, Tensor]) -> bool:
    """Whether digits may be lost of outputs that are wanted: bare whole numbers are taken as floating."""
    return "outputs" in query.want and bool(promoted(query, leaves))


def computes_whole_numbers(query: Query, function: Function, leaves: Mapping[str, Tensor]) -> bool:
    """Whether `function` can make whole numbers of whole ones: of those that are sent bare in floating point too. Not for batched queries.

    Its steps and their plain arguments say it, so that it holds for whatever `leaves` come next.
    """
    is_floating = are_promoted(query, leaves)
    part = function if is_floating else whole_part(function, of_inputs=True)
    if query.batched or part is None:
        return False
    with torch.no_grad(), WholeNumbers(leaves, floating=is_floating) as watched:
        part.call(*(leaves[name] for name in function.leaves))
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
