"""Eigenvectors and singular vectors beside a point, in the order and with the signs that they have at it.

Both are arbitrary: a factorisation may give others a last bit away, which is no jump of anything that is derived from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

# Of the largest: values that are nearer than the farthest probe moves them, 2^-17 of the matrix, are not told apart.
_APART: Final = 1e-4


def aligned(result: Any, base: Any) -> Any:
    """The `result` of a step as like as it can be to `base`, that at the point; differentiable.

    Both: eigenvalues, these and eigenvectors, or a singular value decomposition.
    """
    if isinstance(result, Tensor):
        order = _order(result, base)
        return result if order is None else result.gather(-1, order)
    if any(a.shape != b.shape for a, b in zip(result, base, strict=True)):
        return result
    if len(result) == 2:
        return type(result)(_eigenvectors(result, base))
    left, values, right = result
    if left.shape[-2] != base[0].shape[-2] or _are_close(base[1]):
        return result
    turn = _turn(left[..., : values.shape[-1]], base[0][..., : values.shape[-1]])
    is_adjoint = hasattr(result, "Vh")
    other = _turned(right.mH, turn).mH if is_adjoint else _turned(right, turn)
    return type(result)((_turned(left, turn), values, other))


def _eigenvectors(result: Sequence[Tensor], base: Sequence[Tensor]) -> Sequence[Tensor]:
    values, vectors = result
    order = _order(values, base[0])
    if order is None:
        return values, vectors
    vectors = vectors.gather(-1, order[..., None, :].expand_as(vectors))
    return values.gather(-1, order), _turned(vectors, _turn(vectors, base[1]))


def _order(values: Tensor, base: Tensor) -> Tensor | None:
    """Where each of the values at the point is now; None where that cannot be told."""
    if values.shape != base.shape or _are_close(base):
        return None
    order = (base.detach()[..., :, None] - values.detach()[..., None, :]).abs().argmin(-1)
    is_permutation = torch.equal(order.sort(-1).values, torch.arange(order.shape[-1], device=order.device).expand_as(order))
    return order if is_permutation else None


def _are_close(values: Tensor) -> bool:
    """Whether two of the values, or of those of some matrix in a batch, cannot be told apart."""
    gaps = (values[..., :, None] - values[..., None, :]).abs()
    gaps = gaps + torch.diag_embed(torch.full_like(gaps[..., 0], torch.inf))
    return not bool((gaps.amin((-2, -1)) > _APART * values.abs().amax(-1)).all()) if values.numel() else True


def _turn(vectors: Tensor, base: Tensor) -> Tensor:
    """What each vector is multiplied by so that its product with that at the point is positive."""
    overlap = (base.detach().conj() * vectors.detach()).sum(-2)
    return torch.where(overlap == 0, 1.0, overlap.conj() / overlap.abs())


def _turned(vectors: Tensor, turn: Tensor) -> Tensor:
    """The first columns multiplied, and those that complete a basis as they are."""
    rest = vectors.shape[-1] - turn.shape[-1]
    ones = torch.ones_like(turn[..., :1]).expand(*turn.shape[:-1], rest)
    return vectors * torch.cat([turn, ones], -1)[..., None, :]
