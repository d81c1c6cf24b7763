"""A certificate for rows that were computed together: one single pass, in a random combination of them, must give the same.

PyTorch's batching rules are wrong here and there without a word
(the backward of cdist under vmap, forward mode of scatter_reduce); a single reverse pass is what they are measured against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


class UncertifiedError(RuntimeError):
    """A single pass does not confirm what was computed together."""

    def __init__(self) -> None:
        super().__init__("a single pass does not confirm the rows that were computed together")


@lru_cache(maxsize=256)
def weights(count: int, dtype: torch.dtype, device: str) -> Tensor:
    """`[count]` numbers between 0.5 and 1.5 with random signs, the same every time: none is so small that a row goes unseen."""
    generator = torch.Generator().manual_seed(20250)
    drawn = torch.rand(count, generator=generator, dtype=torch.float64) + 0.5
    signs = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    return (drawn * signs).to(dtype=dtype, device=device)


def combined(rows: Tensor) -> Tensor:
    """Σ w·row over the leading axis, with `weights`."""
    combination: Tensor = torch.tensordot(weights(rows.shape[0], rows.dtype, str(rows.device)), rows, 1)
    return combination


def certify(rows: Sequence[Tensor | None], single: Sequence[Tensor | None]) -> None:
    """Compare each `combined(rows)` with what the single pass gave for the combined cotangents.

    Raises UncertifiedError where they differ, or where one is not finite, of which a combination says nothing.
    """
    for batch, expected in zip(rows, single, strict=True):
        if (batch is None) != (expected is None):
            raise UncertifiedError
        if batch is not None and expected is not None and not close(combined(batch), expected):
            raise UncertifiedError


def certify_first(together: Any, alone: Any) -> None:
    """Compare the first sample of results that were computed together, a tree of tensors, with what it gave alone.

    Raises UncertifiedError where they differ.
    """
    if not isinstance(alone, Tensor):
        for key in alone:
            certify_first(together[key], alone[key])
        return
    first, alone = together[0].detach(), alone.detach()
    if first.shape != alone.shape:
        raise UncertifiedError
    if not torch.equal(first, alone) and not close(_wide(first), _wide(alone), eps=_eps(alone)):
        raise UncertifiedError


def _wide(tensor: Tensor) -> Tensor:
    return tensor.nan_to_num().to(torch.complex128)


def _eps(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).eps if tensor.dtype.is_floating_point or tensor.dtype.is_complex else 0.0


def close(actual: Tensor, expected: Tensor, eps: float | None = None) -> bool:
    """Whether the two are the same but for a thousand roundings: what is wrong here is wrong by the size of an entry.

    False where one of them is not finite. `eps`: the precision, where it is not that of `actual`'s dtype.
    """
    if actual.numel() == 0:
        return True
    error = float((actual - expected).abs().max())
    scale = float(torch.maximum(actual.abs().max(), expected.abs().max()))
    return math.isfinite(scale) and error <= 1e3 * (torch.finfo(actual.dtype).eps if eps is None else eps) * scale
