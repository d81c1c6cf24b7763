"""Powers with right derivatives: of a real tensor and complex numbers in forward mode too, of an exponent that is 0 in every order."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from app.catalogue.better.tracked import is_batched, is_differentiated

# How a power is called.
POWERS: Final = (operator.pow, torch.pow, Tensor.pow)


def power(input: Any, exponent: Any) -> Tensor:  # noqa: A002
    """input to the power of exponent, where a tensor is one of them.

    What a real tensor adds to the derivative of a complex power is complex. PyTorch 2.13.0 takes its real part in forward mode, as a
    gradient of a real tensor would be; so real tensors are made complex before.
    """
    if _are_mixed((input, exponent)):
        dtype = torch.result_type(input, exponent)
        input, exponent = [value.to(dtype) if isinstance(value, Tensor) else value for value in (input, exponent)]  # noqa: A001
    value: Tensor = torch.pow(input, exponent)
    if not _both_vary((input, exponent)) or not (is_differentiated(input) and is_differentiated(exponent)) or is_fake(value):
        return value
    return _by_logarithm(input, exponent, value)


def float_power(input: Any, exponent: Any) -> Tensor:  # noqa: A002
    """`torch.float_power`: `power` in float64 or complex128."""
    value: Tensor = torch.float_power(input, exponent)
    return power(input.to(value.dtype), exponent.to(value.dtype)) if _both_vary((input, exponent)) else value


def _by_logarithm(x: Tensor, y: Tensor, value: Tensor) -> Tensor:
    """`value`, which is x^y, with the derivatives of exp(y·log x) where y is 0.

    PyTorch takes the derivative by x for the constant 0 there, so that ∂²/∂x∂y, which is 1/x, comes as 0, and ∂²/∂y∂x as 1/x.
    """
    zero = y == 0
    if not is_batched(y) and not bool(zero.any()):
        return value
    zero = zero & ((x != 0) if x.is_complex() else (x > 0))
    whole = torch.exp(torch.where(zero, y, 0.0) * torch.log(torch.where(zero, x, 1.0)))
    return torch.where(zero, whole.to(value.dtype), value)


def rightly(target: Callable[..., Any], *values: Sequence[Any]) -> Callable[..., Any]:
    """`power` where `target` is one whose derivative is not PyTorch's for these values, else `target`."""
    every = [*itertools.chain(*values)]
    return power if target in POWERS and (_are_mixed(every) or _both_vary(every)) else target


def _both_vary(values: Sequence[Any]) -> bool:
    return len(values) == 2 and all(
        isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()) for value in values
    )


def _are_mixed(values: Sequence[Any]) -> bool:
    is_complex = [value.is_complex() if isinstance(value, Tensor) else isinstance(value, complex) for value in values]
    return True in is_complex and any(isinstance(value, Tensor) and value.is_floating_point() for value in values)
