"""`clip_grad_norm_` and `clip_grad_value_`: gradients made smaller before an optimizer takes them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from app.program.differentiation.gradients import Gradients
from app.program.library import inplace
from app.program.semantics.graph_values import Emit, Value, is_tensor
from app.program.semantics.trace import Trace


def clipped(
    trace: Trace,
    emit: Emit,
    gradients: Gradients,
    items: Callable[[Value], list[Value]],
    name: str,
    args: tuple[Value, ...],
    kwargs: dict[str, Value],
) -> Value:
    """`clip_grad_norm_(gradients, max_norm)`: gradients scaled to a norm of at most `max_norm`; gives their norm before."""
    values = [args[0]] if is_tensor(args[0]) else items(args[0])
    if gradients.last is not None:  # of weights it is their gradients that are clipped; of gradients, they themselves
        values = [value for value in gradients.grads(emit, values) if is_tensor(value)]
    if not values:  # a generator that was gone through before
        return emit("tensor", torch.tensor, (0.0,), {}) if name == "clip_grad_norm_" else None
    bound = args[1] if len(args) > 1 else next(iter(kwargs.values()))
    seen = len(trace.overwritten)
    try:
        if name == "clip_grad_value_":
            for value in values:
                inplace.write(trace, emit, value, emit("clamp", torch.clamp, (value, -bound, bound), {}), name)
            return None
        order = kwargs.get("norm_type", args[2] if len(args) > 2 else 2.0)
        return _scaled(trace, emit, name, values, bound, order)
    finally:
        del trace.overwritten[seen:]  # PyTorch does it under `no_grad`; here a derivative passes it


def _scaled(trace: Trace, emit: Emit, name: str, values: list[Value], bound: Value, order: Value) -> Value:
    norms = [emit("linalg.vector_norm", torch.linalg.vector_norm, (value, order), {}) for value in values]
    total = emit("linalg.vector_norm", torch.linalg.vector_norm, (emit("stack", torch.stack, (norms,), {}), order), {})
    scale = emit("clamp", _coefficient, (total, bound), {})
    for value in values:
        inplace.write(trace, emit, value, emit("*", torch.mul, (value, scale), {}), name)
    return total


def _coefficient(total: torch.Tensor, bound: float) -> torch.Tensor:
    """PyTorch's factor: max_norm / (norm + 1e-6), at most 1."""
    return torch.clamp(bound / (total + 1e-6), max=1.0)
