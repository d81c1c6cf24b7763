"""Functions near zero have the derivatives that mpmath gives, and PyTorch's values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, vmap

from app.catalogue.better.near_zero import chebyshev_polynomial_t, chebyshev_polynomial_u, i1, i1e, sinc
from tests.engine.asking import results

# Forward mode compiles decompositions by it.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
# Ours, PyTorch's, and the same in numbers of many digits.
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Callable[[Any], Any]]] = {
    "sinc": (sinc, torch.sinc, mpmath.sincpi),
    "i1": (i1, torch.special.i1, lambda x: mpmath.besseli(1, x)),
    "i1e": (i1e, torch.special.i1e, lambda x: mpmath.besseli(1, x) * mpmath.exp(-abs(x))),
}
POINTS = [1e-8, -1e-5, 1e-3, 0.02, -0.3, 0.49, 0.51, -0.99, 1.01, 2.5]


def exact(function: Callable[[Any], Any], x: float, order: int) -> float:
    with mpmath.workdps(60):
        return float(mpmath.diff(function, x, order, h=mpmath.mpf(10) ** -18))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_two_derivatives_near_zero(name: str, dtype: torch.dtype) -> None:
    better, own, right = FUNCTIONS[name]
    x = torch.tensor(POINTS, dtype=dtype)
    assert torch.equal(better(x.clone().requires_grad_()).detach(), own(x))
    first, second = grad(lambda t: better(t)), grad(grad(lambda t: better(t)))
    # PyTorch's beyond the series lose some digits.
    tolerance = 300 * torch.finfo(dtype).eps
    for order, computed in ((1, vmap(first)(x)), (2, vmap(second)(x))):
        wanted = torch.tensor([exact(right, t, order) for t in x.tolist()], dtype=dtype)
        torch.testing.assert_close(computed, wanted, rtol=tolerance, atol=0)
    torch.testing.assert_close(jacfwd(lambda t: better(t).sum())(x), vmap(first)(x))
    lost = vmap(grad(grad(lambda t: own(t))))(x[:1])  # where PyTorch has mended it, the row can go
    assert dtype != torch.float32 or not torch.allclose(lost, vmap(second)(x[:1]), rtol=0.1, atol=0)


def test_zero_and_what_is_not_finite() -> None:
    x = torch.tensor([0.0, torch.inf, torch.nan], dtype=torch.float64)
    torch.testing.assert_close(torch.diagonal(hessian(lambda t: sinc(t).sum())(x))[0].item(), -(torch.pi**2) / 3)
    for better, own, _ in FUNCTIONS.values():
        torch.testing.assert_close(better(x.clone().requires_grad_()).detach(), own(x), equal_nan=True, rtol=0, atol=0)
        torch.testing.assert_close(vmap(grad(better))(x), vmap(grad(own))(x), equal_nan=True)


def test_complex_numbers_stay_holomorphic() -> None:
    point = np.array([1e-8 + 2e-8j])
    derivative = results(program="torch.sinc(x)", inputs={"x": point}, want=["jacobian"])["jacobian"]["output"]["x"]
    assert derivative.shape == (1, 1)
    assert derivative.item() == pytest.approx(-(torch.pi**2) / 3 * point.item(), rel=1e-12, abs=0)


def test_programs_call_them_too() -> None:
    for text in ("torch.sinc(x)", "torch.special.sinc(x)", "x.sinc()"):
        hessian_there = results(program=f"{text}.sum()", inputs={"x": [1e-8]}, want=["hessian"])["hessian"]["x"]["x"]
        assert hessian_there.item() == pytest.approx(-(torch.pi**2) / 3), text


NEAR_AND_FAR = [1e-200, -3e-9, 1e-3, 0.3, -0.49, 0.51, 0.7, 1.5]


@pytest.mark.parametrize(("own", "first"), [(chebyshev_polynomial_t, 1), (chebyshev_polynomial_u, 2)])
def test_chebyshev_polynomials(own: Callable[..., Any], first: int) -> None:
    x = torch.tensor(NEAR_AND_FAR, dtype=torch.float64)
    for degree in (1, 7, 8, 9, 11, 33):
        with mpmath.workdps(80):
            rows = [[mpmath.mpf(1), first * mpmath.mpf(t)] for t in NEAR_AND_FAR]
            for t, row in zip(NEAR_AND_FAR, rows, strict=True):
                for _ in range(degree - 1):
                    row.append(2 * t * row[-1] - row[-2])
            right = torch.tensor([float(row[degree]) for row in rows], dtype=torch.float64)
        torch.testing.assert_close(own(x, degree), right, rtol=1e-12, atol=1e-320)
        assert torch.equal(own(x, torch.tensor(float(degree))), own(x, degree))
    assert not own(torch.ones(2, requires_grad=True), 9).requires_grad
    assert getattr(torch.special, own.__name__)(x[:1], 9).item() > 1e-17, "PyTorch has mended it"
    assert own(torch.tensor([0.25, float("nan")]), 9).dtype == torch.float32
