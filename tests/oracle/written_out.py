"""Functions as people write them out in derivations by hand, in the dtype of what they are given."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sig(v: Tensor) -> Tensor:
    return 1 / (1 + (-v).exp())


def soft(z: Tensor, axis: int = -1) -> Tensor:
    e = (z - z.amax(axis, keepdim=True)).exp()
    return e / e.sum(axis, keepdim=True)


def hot(k: Tensor, like: Tensor) -> Tensor:
    """Rows of zeros with a one each, at `k`."""
    rows: Tensor = torch.eye(like.shape[-1], dtype=like.dtype)[k]
    return rows


def density(v: Tensor) -> Tensor:
    return (-v * v / 2).exp() / math.sqrt(2 * math.pi)


def below(v: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(v / math.sqrt(2)))


def inv(a: Tensor) -> Tensor:
    """LAPACK has no half precision, and a person would widen there too."""
    inverse: Tensor = torch.linalg.inv(a.double())
    return inverse.to(a.dtype)


def as_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating tensors in this dtype, complex ones in its kin; others as they are."""
    if tensor.is_complex():
        return tensor.to(torch.complex64 if dtype == torch.float32 else torch.complex128)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
