"""A certificate for rows that were computed together: one single pass, in a random combination of them, must give the same.

PyTorch's batching rules are wrong here and there without a word
(the backward of cdist under vmap, forward mode of scatter_reduce); a single reverse pass is what they are measured against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
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
    drawn = torch.rand(count, generator=generator, dtype=torch.float64, device="cpu") + 0.5
    signs = torch.randint(0, 2, (count,), generator=generator, device="cpu") * 2 - 1
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


def certify_sample(together: Any, index: int, alone: Any) -> None:
    """Compare one sample of results that were computed together, a tree of tensors, with what it gave alone.

    Raises UncertifiedError where they differ, in a value, in the places of NaN and infinity, in shape or in dtype.
    """
    if not isinstance(alone, Tensor):
        for key in alone:
            certify_sample(together[key], index, alone[key])
        return
    one, alone = together[index].detach(), alone.detach()
    if one.shape != alone.shape or one.dtype != alone.dtype:
        raise UncertifiedError
    if not torch.equal(one, alone) and not _same(_wide(one), _wide(alone), _eps(alone)):
        raise UncertifiedError


def _same(one: Tensor, alone: Tensor, eps: float) -> bool:
    finite = torch.isfinite(alone)
    odd = torch.eq(one, alone) | (one.isnan() & alone.isnan())
    return bool((finite == torch.isfinite(one)).all() and (odd | finite).all() and close(one[finite], alone[finite], eps=eps))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128)


def _eps(tensor: Tensor) -> float:
    # In half precision a thousand roundings would be anything: what differs by more than 16 runs one by one.
    share = 0.016 if tensor.dtype in (torch.float16, torch.bfloat16) else 1.0
    return share * torch.finfo(tensor.dtype).eps if tensor.dtype.is_floating_point or tensor.dtype.is_complex else 0.0


def close(actual: Tensor, expected: Tensor, eps: float | None = None) -> bool:
    """Whether the two are the same but for a thousand roundings, 16 in half precision: what is wrong here is wrong by the size of an entry.

    False where one of them is not finite. `eps`: the precision, where it is not that of `actual`'s dtype.
    """
    if actual.numel() == 0:
        return True
    error = float((actual - expected).abs().max())
    scale = float(torch.maximum(actual.abs().max(), expected.abs().max()))
    return _is_within(error, scale, _eps(actual) if eps is None else eps)


def are_close(pairs: Sequence[Tensor]) -> bool:
    """Whether each at an even place is close to the one behind it, both real, of one dtype and not empty."""
    return all(map(_are_close_in_numpy if pairs[0].device.type == "cpu" else close, pairs[::2], pairs[1::2]))


def _are_close_in_numpy(actual: Tensor, expected: Tensor) -> bool:
    """As `close`, in half the time of small ones."""
    left, right = actual.detach().numpy(), expected.detach().numpy()
    with np.errstate(all="ignore"):
        error = float(np.abs(left - right).max())
        scale = max(float(np.abs(left).max()), float(np.abs(right).max()))
    return _is_within(error, scale, _eps(actual))


def _is_within(error: float, scale: float, eps: float) -> bool:
    """Where anything is not finite, one of the two is not."""
    return math.isfinite(error) and math.isfinite(scale) and error <= 1e3 * eps * scale
