"""Powers of a real tensor and complex numbers, with a derivative that is right in forward mode too."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

# How a power is called.
POWERS: Final = (operator.pow, torch.pow, Tensor.pow)


def power(input: Any, exponent: Any) -> Tensor:  # noqa: A002
    """input to the power of exponent, where a tensor is one of them.

    What a real tensor adds to the derivative of a complex power is complex. PyTorch 2.13.0 takes its real part in forward mode, as a
    gradient of a real tensor would be; so real tensors are made complex before.
    """
    if not _are_mixed((input, exponent)):
        return torch.pow(input, exponent)
    dtype = torch.result_type(input, exponent)
    return torch.pow(*[value.to(dtype) if isinstance(value, Tensor) else value for value in (input, exponent)])


def rightly(target: Callable[..., Any], *values: Sequence[Any]) -> Callable[..., Any]:
    """`power` where `target` is one that takes a real tensor beside complex numbers here, else `target`."""
    return power if target in POWERS and _are_mixed([*itertools.chain(*values)]) else target


def _are_mixed(values: Sequence[Any]) -> bool:
    is_complex = [value.is_complex() if isinstance(value, Tensor) else isinstance(value, complex) for value in values]
    return True in is_complex and any(isinstance(value, Tensor) and value.is_floating_point() for value in values)
