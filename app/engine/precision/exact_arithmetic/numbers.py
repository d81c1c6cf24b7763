"""Numbers of 60 digits or more, and tensors that carry them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import mpmath
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# 60 digits: float64 has 16 and spans 16 more where numbers near 1 cancel down to its epsilon squared; the rest is margin.
DIGITS: Final = 60
MP: Final = mpmath.MPContext()
MP.dps = DIGITS

Numbers = npt.NDArray[Any]
# A rule takes the overload, its float64 result and the call's own arguments, and gives the exact numbers of each result.
Rule = Callable[..., Numbers | tuple[Numbers, ...]]
_from_float = np.frompyfunc(MP.mpf, 1, 1)


class Carrier(Tensor):
    """A floating tensor with exact values beside it.

    Attributes:
        value: the float64 tensor of the ordinary run.
        numbers: the exact values, an object array of `value`'s shape.
    """

    value: Tensor
    numbers: Numbers


def numbers_of(value: Tensor) -> Numbers:
    """The elements as numbers of 60 digits, in an array of the same shape."""
    array = value.detach().cpu().numpy()
    return np.asarray(_from_float(array), dtype=object).reshape(array.shape)


def plain(x: Any) -> Any:
    """The float64 tensor of the ordinary run, of a tensor that carries exact values; anything else as it is."""
    return x.value if isinstance(x, Carrier) else x


def on_cpu(x: Any) -> Any:
    """A tensor without exact values, as indices are, in the CPU's memory; anything else as it is."""
    return x.cpu() if isinstance(x, Tensor) and not isinstance(x, Carrier) else x


def scalar(x: Any) -> Any:
    """A plain number of the call as an exact one."""
    return MP.mpf(x) if isinstance(x, int | float) else x


def log(x: Any) -> Any:
    return -MP.inf if x == 0 else MP.log(x)


def as_numbers(x: Any) -> Any:
    """The exact numbers of any argument: those that it carries, or its own."""
    if isinstance(x, Carrier):
        return x.numbers
    if isinstance(x, Tensor):
        return numbers_of(x.to(torch.float64)) if x.dtype != torch.bool else x.cpu().numpy()
    return scalar(x)


# These divide their argument by pi or log 2 first, in as many bits as it has before the point: minutes, for the cosine of exp(1e6).
_DIVIDES_FIRST: Final = frozenset({MP.sin, MP.cos, MP.tan, MP.exp, MP.expm1, MP.sinh, MP.cosh, MP.sincpi})
_MOST_BITS: Final = 20_000  # a tenth of a second for a handful of numbers, and twenty times what a float64 has


def guarded(function: Callable[..., Any], most_bits: int | None = None) -> Callable[..., Any]:
    """`function` of numbers, NaN where it has no real value, as in PyTorch.

    It raises NotImplementedError for a number so long that it would take minutes.

    Arguments:
        most_bits: before the point, that it takes; where left out, as many as mpmath's own function does.
    """
    bits = most_bits or (_MOST_BITS if function in _DIVIDES_FIRST else None)

    def call(*numbers: Any) -> Any:
        if bits is not None and any(MP.isfinite(number) and MP.mag(number) > bits for number in numbers):
            raise NotImplementedError
        try:
            value = function(*numbers)
        except (ArithmeticError, ValueError, mpmath.libmp.NoConvergence):
            return MP.nan
        return MP.nan if isinstance(value, MP.mpc) else value

    return call


def divided(a: Any, b: Any) -> Any:
    """a / b as IEEE 754 divides by zero."""
    if b != 0:
        return a / b
    return MP.nan if a == 0 or MP.isnan(a) else MP.inf * MP.sign(a)
