"""What normalisation in training leaves in `running_mean` and `running_var`: computed where the program reads them afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, fx

from app.program.function import Step
from app.program.modules.layers import LayerValue, Weight
from app.program.semantics.graph_values import Emit, Value, fixed, is_tensor
from app.program.semantics.trace import Trace

NAMES: Final = ("running_mean", "running_var")


def note(trace: Trace, layer: LayerValue, args: tuple[Value, ...]) -> None:
    """A call of the layer: in training its batch is remembered as it stands."""
    if layer.training and NAMES[0] in layer.weights and args and is_tensor(args[0]):
        layer.seen.append(trace.passed_on(args[0]))


def settle(trace: Trace, emit: Emit, layer: LayerValue, tensor_of: Callable[[Weight], fx.Node]) -> None:
    """Writes into the buffers what the batches that the layer has seen make of them."""
    seen, layer.seen = layer.seen, []
    held = [tensor_of(layer.weights[name]) for name in NAMES] if seen else []
    momentum = getattr(layer.skeleton, "momentum", None)
    enabled, trace.grad_enabled = trace.grad_enabled, False
    try:
        for batch in seen:
            layer.batches += 1
            factor = 1 / layer.batches if momentum is None else momentum
            target = fixed(updated, layer.name.startswith("InstanceNorm"), factor)
            both = emit(f"nn.{layer.name}", target, (batch, *map(trace.now, held)), {}, exact=True)
            for index, buffer in enumerate(held):
                value = emit("detach", torch.Tensor.detach, (trace.pick(both, index),), {})
                trace.write(Step(*trace.place, f"nn.{layer.name}"), buffer, value)
    finally:
        trace.grad_enabled = enabled


def updated(by_sample: bool, factor: float, batch: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """The buffers after one batch `[N, C, …]`; `by_sample`: means over the samples of what each has alone."""
    axes = [axis for axis in range(batch.dim()) if axis != 1 and not (by_sample and axis == 0)]
    of_mean, of_var = batch.mean(axes), batch.var(axes)  # PyTorch keeps the unbiased variance
    if by_sample:
        of_mean, of_var = of_mean.mean(0), of_var.mean(0)
    return factor * of_mean + (1 - factor) * mean, factor * of_var + (1 - factor) * var
