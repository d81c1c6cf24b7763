"""`logcumsumexp` with a derivative that holds however far apart the numbers are."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.better.running import Running
from app.catalogue.better.tracked import is_nested_forward

# Too few digits for differences of logarithms as large as the input.
_NARROW: Final = (torch.float16, torch.bfloat16, torch.float32)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:  # noqa: A002
    """log of the running sum of exp(x) along `dim`.

    PyTorch's forward mode divides by a running sum that has been scaled by the largest element of all, and gives 0 for what is 745 below
    it (float64; 103 in float32), where the derivative is not 0. Its reverse mode takes the exponential of differences of numbers as
    large as the input, so what is narrower than float64 is computed in float64.
    """
    if input.is_complex() or input.dim() == 0:
        return torch.logcumsumexp(input, dim)
    if input.dtype in _NARROW:
        return logcumsumexp(input.double(), dim).to(input.dtype)
    if is_nested_forward():
        largest = input.detach().cummax(dim).values
        return largest + _decayed_sums(_share(input, largest), largest, dim).log()
    value: Tensor = _LogCumSumExp.apply(input, dim)  # type: ignore[no-untyped-call]
    return value


class _LogCumSumExp(Running):
    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        return torch.logcumsumexp(x, dim)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        x, y = ctx.saved_tensors
        later = _decayed_sums(cotangents[0].flip(ctx.dim), -y.flip(ctx.dim), ctx.dim).flip(ctx.dim)
        return _share(x, y) * later, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        x, y = ctx.saved_tensors
        return _decayed_sums(_share(x, y) * tangents[0], y, ctx.dim)


def _share(x: Tensor, y: Tensor) -> Tensor:
    """exp(x - y): of the running sum up to an element, how much is its own; at most 1."""
    return torch.where(x == -torch.inf, x, x - y).exp()


def _decayed_sums(a: Tensor, level: Tensor, dim: int) -> Tensor:
    """Σ over j ≤ i of aⱼ·exp(levelⱼ - levelᵢ), the levels ascending: no factor is above 1, and each sum has the next power of two of terms."""
    a, level = a.movedim(dim, -1), level.movedim(dim, -1)
    step = 1
    while step < a.shape[-1]:
        before, here = level[..., :-step], level[..., step:]
        # Two equal infinities are as far apart as two equal numbers.
        decay = torch.where(torch.isinf(here) & (before == here), torch.zeros_like(here), before - here).exp()
        a = torch.cat([a[..., :step], a[..., step:] + a[..., :-step] * decay], -1)
        step *= 2
    return a.movedim(-1, dim)
