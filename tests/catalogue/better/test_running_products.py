"""`prod` and `cumprod`: PyTorch's values, and derivatives that hold however small a factor is, in every mode and dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, jacrev, jvp, vjp, vmap

from app.catalogue.better import running_products
from app.catalogue.better.running_products import cumprod, prod
from tests.engine.asking import arrays, ask

# Forward mode compiles decompositions by it.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
FACTORS = ([0.5, 2.0, 1e-10], [3.0, 0.7, 1.3e-30], [1e-200, 1e-200, 3.0], [0.0, 0.0, 2.0], [2.0, 0.0, 3.0, 1e-5, -4.0], [1.5])
DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def _running(x: Tensor) -> Tensor:
    return cumprod(x, 0)


def _whole(x: Tensor) -> Tensor:
    return prod(x, 0, keepdim=True)


def _exact(x: list[float], *left_out: int) -> list[float]:
    """The running products of the others; 0 before they are all reached."""
    factors = [1.0 if i in left_out else value for i, value in enumerate(x)]
    return [math.prod(factors[: i + 1]) if i >= max(left_out) else 0.0 for i in range(len(x))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", [jacrev, jacfwd])
@pytest.mark.parametrize("function", [_running, _whole])
def test_first_derivatives(function: Callable[[Tensor], Tensor], mode: Callable[..., Any], dtype: torch.dtype) -> None:
    for factors in FACTORS:
        x = torch.tensor(factors, dtype=dtype)
        rows = torch.tensor([_exact(x.tolist(), j) for j in range(len(x))], dtype=torch.float64).T
        expected = (rows if function is _running else rows[-1:]).to(dtype)
        torch.testing.assert_close(mode(function)(x), expected, rtol=8 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outer", "inner"), tuple(product([jacrev, jacfwd], repeat=2)))
def test_second_derivatives(outer: Callable[..., Any], inner: Callable[..., Any], dtype: torch.dtype) -> None:
    for factors in FACTORS:
        x = torch.tensor(factors, dtype=dtype)
        n = len(x)
        exact = [[[0.0] * n if j == k else _exact(x.tolist(), j, k) for k in range(n)] for j in range(n)]
        expected = torch.tensor(exact, dtype=torch.float64).permute(2, 0, 1)
        torch.testing.assert_close(outer(inner(_running))(x), expected.to(dtype), rtol=16 * torch.finfo(dtype).eps, atol=0)
        torch.testing.assert_close(outer(inner(_whole))(x), expected[-1:].to(dtype), rtol=16 * torch.finfo(dtype).eps, atol=0)


def test_pytorch_is_wrong_there() -> None:
    """Where it has mended it, the rows can go."""
    x = torch.tensor(FACTORS[1])
    assert torch.autograd.functional.hessian(torch.prod, x)[2, 2] > 1e20  # type: ignore[no-untyped-call]
    x = torch.tensor([0.3, 0.7, 1e-10])
    of_sum = torch.autograd.functional.hessian(lambda v: v.cumprod(0).sum(), x)  # type: ignore[no-untyped-call]
    assert of_sum[2, 2] > 100


def test_complex_numbers_batches_and_axes() -> None:
    z = torch.randn(3, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for dim in (0, -1):
        assert torch.autograd.gradcheck(lambda v, d=dim: cumprod(v, d), (z,), check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradcheck(lambda v, d=dim: prod(v, d), (z,), check_forward_ad=True, check_batched_grad=True)
        assert torch.equal(prod(z, dim), torch.prod(z, dim))
        assert torch.equal(cumprod(z, dim), torch.cumprod(z, dim))
    rows = z.real.detach()
    torch.testing.assert_close(vmap(jacrev(_whole))(rows)[:, 0], torch.stack([jacrev(_whole)(row)[0] for row in rows]))


def test_over_the_service() -> None:
    answer = ask(program="x.prod() + x.cumprod(0).sum()", inputs={"x": [3.0, 0.7, 1e-10]}, want=["hessian"])
    assert answer.notes == ()
    expected = [0.0, 1 + 2e-10, 1.4, 1 + 2e-10, 0.0, 6.0, 1.4, 6.0, 0.0]
    assert arrays(answer.results)["hessian"]["x"]["x"].ravel().tolist() == pytest.approx(expected, abs=0)


@pytest.mark.parametrize(
    ("shape", "dim"), [((7,), 0), ((3, 5), 1), ((5, 3), 0), ((2, 7, 3), 1), ((1, 4), 1), ((6, 1), 1), ((37,), 0)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_blocks_give_what_doubling_gives(
    shape: tuple[int, ...], dim: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, cotangent = torch.randn(2, *shape, dtype=dtype, generator=torch.Generator().manual_seed(0))

    def derivatives() -> list[Tensor]:
        def function(at: Tensor) -> Tensor:
            return cumprod(at, dim)

        def reverse(at: Tensor) -> Tensor:
            product: Tensor = vjp(function, at)[1](cotangent)[0]
            return product

        return [
            reverse(x),
            vmap(reverse)(x[None])[0],
            jvp(function, (x,), (cotangent,))[1],
            jvp(reverse, (x,), (cotangent,))[1],
        ]

    expected = derivatives()
    monkeypatch.setattr(running_products, "_MANY", 0)
    for own, right in zip(derivatives(), expected, strict=True):
        torch.testing.assert_close(own, right)


def test_many_numbers_go_by_blocks() -> None:
    x = (0.9 + 0.2 * torch.rand(1 << 17, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).requires_grad_()
    own, right = (torch.autograd.grad(function(x, 0).sum(), x)[0] for function in (cumprod, torch.cumprod))
    torch.testing.assert_close(own, right)
