"""Functions that choose between their arguments, where two are equal: PyTorch's two modes choose differently there.

Here both modes take what PyTorch's reverse mode takes, and of a clamp between two tensors that cross the derivative of its value.
Measured on PyTorch 2.13.0; tests/catalogue/better/test_ties.py repeats it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from app.catalogue.better.tracked import is_differentiated


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002
    """`torch.clamp`, whose value is `max` wherever `min` is not less than `max`.

    PyTorch's derivative is 1 where the input equals two numbers as bounds, and 0 by both of two tensors that are equal.
    """
    value: Tensor = torch.clamp(input, min, max)
    if min is None or max is None or not any(isinstance(t, Tensor) and is_differentiated(t) for t in (input, min, max)):
        return value
    if not isinstance(min, Tensor) and not isinstance(max, Tensor):
        if min < max:
            return value
        return torch.where(torch.ones_like(value, dtype=torch.bool), value.detach(), value)
    if value.is_complex() or not value.is_floating_point():
        return value
    bounded = torch.where(input < min, min, torch.where(input > max, max, input))
    chosen = torch.where(min >= max, max, bounded)
    whole: Tensor = torch.where(torch.isnan(value), value, chosen)
    return whole


def fmax(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    if not (is_differentiated(input) or is_differentiated(other)):
        larger: Tensor = torch.fmax(input, other)
        return larger
    return torch.where((input >= other) | torch.isnan(other), input, other)


def fmin(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    if not (is_differentiated(input) or is_differentiated(other)):
        smaller: Tensor = torch.fmin(input, other)
        return smaller
    return torch.where((input <= other) | torch.isnan(other), input, other)


def prelu(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
    value: Tensor = torch.nn.functional.prelu(input, weight)
    if not (is_differentiated(input) or is_differentiated(weight)):
        return value
    slope = (
        weight.reshape([-1 if axis == 1 else 1 for axis in range(input.dim())]) if weight.numel() > 1 else weight.reshape(())
    )
    below = torch.where(input > 0, torch.zeros_like(input), input)
    return torch.where(input > 0, input, slope * below)
