"""`logcumsumexp`: PyTorch's values, and derivatives that hold however far apart the numbers are, in every mode and dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp
import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, vmap

from app.catalogue.better.running_sums import logcumsumexp

# Forward mode compiles decompositions by it.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
SPREAD = (
    [0.5, -0.25, 1.0],
    [0.0, 800.0, -900.0, 799.0],
    [-5.0, 1e4, 1e4 + 1, 1e4 - 2],
    [200.0, 100.0, 0.0, -100.0],
    [3.0, 3.0],
)


def _exact(numbers: list[float]) -> Tensor:
    """∂yᵢ/∂xⱼ = exp(xⱼ)/Σ up to i."""
    with mp.workdps(60):
        powers = [mp.exp(mp.mpf(x)) for x in numbers]
        rows = [
            [float(powers[j] / mp.fsum(powers[: i + 1])) if j <= i else 0.0 for j in range(len(numbers))]
            for i in range(len(numbers))
        ]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("numbers", SPREAD)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", [jacrev, jacfwd])
def test_first_derivatives(mode: Callable[..., Any], dtype: torch.dtype, numbers: list[float]) -> None:
    x = torch.tensor(numbers, dtype=dtype)
    expected = _exact(x.double().tolist())
    derivative = mode(lambda v: logcumsumexp(v, 0))(x)
    assert derivative.dtype == dtype
    torch.testing.assert_close(derivative.double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-11)


@pytest.mark.parametrize("outer", [jacrev, jacfwd])
@pytest.mark.parametrize("inner", [jacrev, jacfwd])
def test_second_derivatives_in_each_order_of_modes(outer: Callable[..., Any], inner: Callable[..., Any]) -> None:
    x = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = jacrev(jacrev(lambda v: torch.cumsum(v.exp(), 1).log()))(x)
    torch.testing.assert_close(outer(inner(lambda v: logcumsumexp(v, 1)))(x), plain)


def test_infinities_batches_and_forms() -> None:
    x = torch.tensor([-torch.inf, -torch.inf, 0.0, -torch.inf, 2.0], dtype=torch.float64)
    torch.testing.assert_close(logcumsumexp(x, 0), torch.logcumsumexp(x, 0))
    for mode in (jacrev, jacfwd):
        assert not mode(lambda v: logcumsumexp(v, 0))(x)[:2].any()
        torch.testing.assert_close(mode(lambda v: logcumsumexp(v, 0))(x)[4, [2, 4]], torch.softmax(x[[2, 4]], 0))
    rows = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        vmap(jacrev(lambda v: logcumsumexp(v, -1)))(rows), torch.stack([_exact(r.tolist()) for r in rows])
    )
    assert hessian(lambda v: logcumsumexp(v, 0))(torch.tensor(2.0)).item() == 0.0
    assert logcumsumexp(torch.zeros(0, 3), 0).shape == (0, 3)
