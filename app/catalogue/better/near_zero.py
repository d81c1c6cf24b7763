"""`sinc`, `i1` and `i1e` with derivatives that divide by no number near zero: there each is a power series."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.better.tracked import is_differentiated, with_value

# Nearer to zero the series are taken: beyond, PyTorch's second derivatives, which divide by x² and x³, are right to 1e-14.
_SINC_NEAR: Final = 0.5
_BESSEL_NEAR: Final = 1.0
# At these ends the next terms of the third derivatives are below 1e-17.
_SINC_TERMS: Final = tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(14))
_BESSEL_TERMS: Final = tuple(0.5 / (math.factorial(n) * math.factorial(n + 1)) for n in range(12))


def sinc(input: Tensor) -> Tensor:  # noqa: A002
    """sin(πx)/(πx). PyTorch's derivative is (cos(πx)·πx − sin(πx))/(πx²), of which nothing is left near 0.

    Measured in float64 at 1e-8: gradient −2.1e-8 for −3.3e-8, second derivative −5.2 for −3.3; at 0 itself the latter is 0.
    """
    return _near_zero(torch.sinc, lambda x: _series(_SINC_TERMS, (math.pi * x) ** 2), _SINC_NEAR, input)


def i1(input: Tensor) -> Tensor:  # noqa: A002
    """The modified Bessel function of order 1. PyTorch's derivative i0(x) − i1(x)/x has, near 0, a second one that is lost.

    Measured in float64 at 1e-8: 0 for 3.75e-9.
    """
    return _near_zero(torch.special.i1, _i1, _BESSEL_NEAR, input)


def i1e(input: Tensor) -> Tensor:  # noqa: A002
    """exp(−|x|)·i1(x), as above. Measured in float32 at 1e-8: second derivative 0 for −1."""
    return _near_zero(torch.special.i1e, lambda x: torch.exp(-x.abs()) * _i1(x), _BESSEL_NEAR, input)


def _i1(x: Tensor) -> Tensor:
    return x * _series(_BESSEL_TERMS, x * x / 4)


def _near_zero(function: Callable[..., Any], series: Callable[[Tensor], Tensor], end: float, x: Tensor) -> Tensor:
    value: Tensor = function(x)
    if not (x.is_floating_point() or x.is_complex()) or not is_differentiated(x):
        return value
    near = x.detach().abs() < end
    return torch.where(near, with_value(series(torch.where(near, x, 0.0)), value), function(torch.where(near, end, x)))


def _series(terms: Sequence[float], u: Tensor) -> Tensor:
    total = torch.full_like(u, terms[-1])
    for term in terms[-2::-1]:
        total = term + u * total
    return total
