"""Whether a tensor is being differentiated or batched, and values with the derivative of something else."""

from __future__ import annotations

import torch
from torch import Tensor


def is_differentiated(x: Tensor) -> bool:
    """Whether a derivative may be asked of what is computed from `x`."""
    if x.requires_grad or torch.autograd.forward_ad._current_level >= 0:
        return True
    # A tensor of a vmap or a derivative shows no `requires_grad` of those within; derivatives are taken with gradients on.
    return torch.is_grad_enabled() and torch._C._functorch.maybe_get_level(x) > 0


def is_batched(x: Tensor) -> bool:
    """Whether some vmap runs over `x`, so that no value of it may be looked at."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        if torch._C._functorch.is_batchedtensor(x):
            return True
        x = torch._C._functorch.get_unwrapped(x)
    return False


def is_nested_forward() -> bool:
    """Whether one forward mode runs within another; there a `torch.autograd.Function` with a `jvp` of its own gives zeros, without a word."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return sum(interpreter.key() == torch._C._functorch.TransformType.Jvp for interpreter in stack) > 1


def with_value(differentiable: Tensor, value: Tensor) -> Tensor:
    """The derivative of the one with the value of the other."""
    with torch.no_grad():
        # Infinity less infinity is NaN.
        rest = torch.where(value == differentiable, 0.0, value - differentiable)
    same: Tensor = differentiable + rest.detach()
    return same
