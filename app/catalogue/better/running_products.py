"""`prod` and `cumprod` with derivatives that divide by no factor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from app.catalogue.better.running import Running
from app.catalogue.better.tracked import is_differentiated, is_nested_forward


def cumprod(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:  # noqa: A002
    """The running product along `dim`.

    PyTorch's derivative divides the products by each factor. Of a small one its second derivative is a difference of what is large: a
    Hessian's entry that is 0 comes as 1.5e23 at (3, 0.7, 1.3e-30) in float32. Where the product underflows its first derivative is 0.
    """
    x = input if dtype is None else input.to(dtype)
    if not _has_derivative(x):
        return torch.cumprod(input, dim, dtype=dtype)
    if is_nested_forward():
        first, rest = x.narrow(dim, 0, 1), x.narrow(dim, 1, x.shape[dim] - 1)
        return _recurrence(torch.cat([first, torch.zeros_like(rest)], dim), rest, dim)
    value: Tensor = _CumProd.apply(x, dim)  # type: ignore[no-untyped-call]
    return value


def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Tensor:  # noqa: A002
    """The product of all elements, or along `dim`: as above, without a division."""
    x = input if dtype is None else input.to(dtype)
    if not _has_derivative(x):
        return torch.prod(input, dtype=dtype) if dim is None else torch.prod(input, dim, keepdim, dtype=dtype)
    if dim is None:
        x, dim, keepdim = x.reshape(-1), 0, False
    last = x.shape[dim] - 1
    products: Tensor = cumprod(x, dim).narrow(dim, last, 1) if is_nested_forward() else _Prod.apply(x, dim)  # type: ignore[no-untyped-call]
    return products if keepdim else products.squeeze(dim)


def _has_derivative(x: Tensor) -> bool:
    return (x.is_floating_point() or x.is_complex()) and x.dim() > 0 and x.numel() > 0 and is_differentiated(x)


class _CumProd(Running):
    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        return torch.cumprod(x, dim)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        x, y = ctx.saved_tensors
        later = _recurrence(cotangents[0].flip(ctx.dim), _shortened(x.conj().flip(ctx.dim), ctx.dim), ctx.dim)
        return _before(y, ctx.dim).conj() * later.flip(ctx.dim), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        x, y = ctx.saved_tensors
        factors = x.narrow(ctx.dim, 1, x.shape[ctx.dim] - 1)
        return _recurrence(_before(y, ctx.dim) * tangents[0], factors, ctx.dim)


class _Prod(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        return torch.prod(x, dim, keepdim=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])
        ctx.dim = inputs[1]

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        (x,) = ctx.saved_tensors
        return cotangents[0] * _of_the_others(x, ctx.dim).conj(), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (x,) = ctx.saved_tensors
        return (_of_the_others(x, ctx.dim) * tangents[0]).sum(ctx.dim, keepdim=True)


def _of_the_others(x: Tensor, dim: int) -> Tensor:
    """For each element the product of all others."""
    return _before(cumprod(x, dim), dim) * _before(cumprod(x.flip(dim), dim), dim).flip(dim)


def _shortened(x: Tensor, dim: int) -> Tensor:
    return x.narrow(dim, 0, x.shape[dim] - 1)


def _before(products: Tensor, dim: int) -> Tensor:
    """Running products without their own element."""
    return torch.cat([torch.ones_like(products.narrow(dim, 0, 1)), _shortened(products, dim)], dim)


def _recurrence(begun: Tensor, factors: Tensor, dim: int) -> Tensor:
    """yᵢ = factorsᵢ₋₁·yᵢ₋₁ + begunᵢ along `dim`; each round knows twice as many terms of every sum."""
    y, a = begun.movedim(dim, -1), factors.movedim(dim, -1)
    step = 1
    while step < y.shape[-1]:
        y = torch.cat([y[..., :step], y[..., step:] + a * y[..., :-step]], -1)
        a = a[..., step:] * a[..., :-step]
        step *= 2
    return y.movedim(-1, dim)
