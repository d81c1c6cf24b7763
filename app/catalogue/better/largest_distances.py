"""Distances by the largest difference, where several are the largest: each has its share of the derivative, as in `linalg.vector_norm`.

PyTorch gives the whole of it to each of them, which is no subgradient: measured on 2.13.0 1, 1 and 1 for three equal differences, along
which the distance grows by 1 and not by 3; tests/catalogue/better/test_largest_distances.py repeats it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from app.catalogue.better.tracked import is_differentiated


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, *mode: Any, **named: Any) -> Tensor:
    if p != math.inf or not x1.shape[-1] or not (is_differentiated(x1) or is_differentiated(x2)):
        distances: Tensor = torch.cdist(x1, x2, p, *mode, **named)
        return distances
    largest: Tensor = torch.linalg.vector_norm(x1[..., :, None, :] - x2[..., None, :, :], math.inf, -1)
    return largest


def pdist(input: Tensor, p: float = 2.0) -> Tensor:  # noqa: A002
    if p != math.inf or not input.numel() or not is_differentiated(input):
        distances: Tensor = torch.nn.functional.pdist(input, p)
        return distances
    rows, columns = torch.triu_indices(len(input), len(input), 1, device=input.device)
    largest: Tensor = torch.linalg.vector_norm(input[rows] - input[columns], math.inf, -1)
    return largest
