"""`torch.nn.init`: the first values of weights, changed before the program computes with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from app.program.modules.weights import Weights
from app.program.reading.source import Refusal
from app.program.semantics.aside import aside
from app.program.semantics.graph_values import Emit, Value, example, fixed, is_tensor
from app.program.semantics.static import named
from app.program.semantics.trace import Trace

_RULES: Final = frozenset(
    {"uniform_", "normal_", "trunc_normal_", "constant_", "ones_", "zeros_", "eye_", "dirac_", "xavier_uniform_", "xavier_normal_",
     "kaiming_uniform_", "kaiming_normal_", "orthogonal_", "sparse_"}
)  # fmt: skip


def initialise(
    trace: Trace, emit: Emit, weights: Weights, name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]
) -> Value:
    """`nn.init.NAME(weight, …)`: what is sent for the weight stands, else it begins so."""
    if name == "calculate_gain" and args and isinstance(args[0], str):
        return nn.init.calculate_gain(*args)
    if name == "_calculate_fan_in_and_fan_out" and args and is_tensor(args[0]):
        with aside():
            return nn.init._calculate_fan_in_and_fan_out(torch.empty(example(args[0]).shape, device="meta"))
    if name not in _RULES:
        raise Refusal(f"There is no `nn.init.{name}` here.", f"There are {', '.join(sorted(_RULES))}.")
    tensor, *options = args
    if not is_tensor(tensor):
        raise Refusal(f"`nn.init.{name}` is given {named(tensor)}, not a weight.", "Give it `layer.weight`.")
    weight = weights.held_by(tensor)
    begins = weight is not None and not weights.is_used(weight)
    initial = weight.initial if weight is not None and begins else tensor
    keywords = {key: value for key, value in kwargs.items() if key != "generator"}
    enabled, trace.grad_enabled = trace.grad_enabled, False
    try:
        value = emit(
            f"nn.init.{name}", fixed(begun, name), (initial, *options), keywords, random=True, initial=weight is None or begins
        )
        trace.write(value.meta["step"], initial, value)
        if weight is not None and begins:
            weights.begin(weight)
    finally:
        trace.grad_enabled = enabled
    return tensor


def begun(name: str, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A tensor of that shape, filled by PyTorch's rule."""
    filled: Tensor = getattr(nn.init, name)(tensor.detach().clone(), *args, **kwargs)
    return filled
