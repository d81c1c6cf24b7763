"""`sinc`, `i1`, `i1e` and `tanhshrink` near zero, where each is a power series: PyTorch divides or subtracts numbers
that are nothing there. So too Chebyshev polynomials of odd degree, which are sines there."""

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


# Of x − tanh x = Σ −2²ⁿ(2²ⁿ − 1)B₂ₙ/(2n)!·x²ⁿ⁻¹ from n = 2 on (NIST DLMF, 4.33.3); the next is below 1e-17 at 1/4.
_SHRINK_NEAR: Final = 0.25
_SHRINK_TERMS: Final = (
    1 / 3, -2 / 15, 17 / 315, -62 / 2835, 1382 / 155925, -21844 / 6081075, 929569 / 638512875, -6404582 / 10854718875,
    443861162 / 1856156927625, -18888466084 / 194896477400625,
)  # fmt: skip


# Below this degree PyTorch takes the recurrence, which keeps the digits of a small x.
_CHEBYSHEV_LEAST: Final = 7
_CHEBYSHEV_NEAR: Final = 0.5  # beyond, cosines are right too


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


def tanhshrink(input: Tensor) -> Tensor:  # noqa: A002
    """x − tanh x, of which PyTorch's subtraction leaves nothing near 0, nor of its derivative: measured in float64 0 for 1.2e-24 at 1.5e-8."""
    whole: Tensor = torch.nn.functional.tanhshrink(input)
    if not input.is_floating_point():
        return whole
    near = input.detach().abs() < _SHRINK_NEAR
    x = torch.where(near, input, 0.0)
    return torch.where(
        near, x**3 * _series(_SHRINK_TERMS, x * x), torch.nn.functional.tanhshrink(torch.where(near, 1.0, input))
    )


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


def chebyshev_polynomial_t(input: Tensor, n: Any) -> Tensor:  # noqa: A002
    """For odd n, with φ = arcsin x: ± sin nφ. PyTorch takes a cosine near π/2: measured in float64 T₉(−6e-277) is 5.5e-16 for −5e-276."""
    return _odd_degree(torch.special.chebyshev_polynomial_t, input, n, lambda angle, degree: torch.sin(degree * angle))


def chebyshev_polynomial_u(input: Tensor, n: Any) -> Tensor:  # noqa: A002
    """So too: ± sin (n + 1)φ / cos φ."""
    return _odd_degree(
        torch.special.chebyshev_polynomial_u,
        input,
        n,
        lambda angle, degree: torch.sin((degree + 1) * angle) / torch.cos(angle),
    )


def _odd_degree(function: Callable[..., Any], x: Any, n: Any, near_zero: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    value: Tensor = function(x, n)
    with torch.no_grad():
        degree = torch.as_tensor(n, device=value.device).detach().to(torch.float64).trunc()
        point = torch.as_tensor(x, device=value.device).detach().to(torch.float64)
        near = (
            (degree >= _CHEBYSHEV_LEAST)
            & (torch.remainder(degree, 2) == 1)
            & (point.abs() < _CHEBYSHEV_NEAR)
            & value.dtype.is_floating_point
        )
        angle = torch.asin(torch.where(near, point, 0.0))
        sign = torch.where(torch.remainder(degree, 4) == 1, 1.0, -1.0)
        mended: Tensor = torch.where(near, (sign * near_zero(angle, degree)).to(value.dtype), value)
    return mended
