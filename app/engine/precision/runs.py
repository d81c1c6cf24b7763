"""The steps of a Function run forward and backward, one by one, in a chosen arithmetic, with every number that passes between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx

from app.engine.precision.exact_arithmetic.numbers import Carrier
from app.engine.stepwise.point import Ref
from app.engine.stepwise.trace import StepRecord, StepTrace
from app.engine.tensors import is_differentiable

# A tensor that a program makes of so many numbers it may compute with (`sqrt(tensor(2.0))`); larger ones are ones, zeros, counts.
_CONSTANTS: Final = 16


@dataclass
class Run:
    """What one run gave.

    Attributes:
        values: every floating tensor of the forward pass.
        cotangents: the whole cotangent of every tensor that the backward pass reached.
        parts: tensor → the steps that use it, each with the share of the cotangent that came from there, the last step first.
    """

    values: dict[Ref, Any] = field(default_factory=dict)
    cotangents: dict[Ref, Any] = field(default_factory=dict)
    parts: dict[Ref, list[tuple[StepRecord, Any]]] = field(default_factory=dict)


def run_steps(trace: StepTrace, seeds: Mapping[Ref, Tensor], wrap: Callable[[Tensor], Tensor]) -> Run:
    """Every step of `trace` again, on tensors made by `wrap`, then backward from the cotangents `seeds`."""
    tensors: dict[Ref, Tensor] = {}
    for ref in trace.leaves.values():
        leaf = trace.values[ref].detach()
        tensors[ref] = wrap(leaf) if leaf.dtype.is_floating_point else leaf
    steps: dict[fx.Node, tuple[list[Tensor], list[Tensor]]] = {}
    with torch.enable_grad():
        for record in trace.records:
            inputs = [_leaf(tensors[parent], any(row[j] for row in record.passes)) for j, parent in enumerate(record.parents)]
            outputs = trace.again(record, inputs)
            steps[record.node] = (inputs, outputs)
            for ref, output in zip(record.refs(), outputs, strict=True):
                is_constant = not record.parents and output.dtype.is_floating_point and output.numel() <= _CONSTANTS
                tensors[ref] = wrap(output.detach()) if is_constant else output.detach()
    run = Run(values={ref: array_of(tensor) for ref, tensor in tensors.items() if is_differentiable(tensor.dtype)})
    totals: dict[Ref, Tensor] = {ref: wrap(seed) for ref, seed in seeds.items()}
    parts: dict[Ref, list[tuple[StepRecord, Tensor]]] = {}
    for record in reversed(trace.records):
        for parent, share in _shares(record, *steps[record.node], totals):
            totals[parent] = totals[parent] + share if parent in totals else share
            parts.setdefault(parent, []).append((record, share))
    run.cotangents = {ref: array_of(tensor) for ref, tensor in totals.items()}
    run.parts = {ref: [(record, array_of(share)) for record, share in shares] for ref, shares in parts.items()}
    return run


def _leaf(tensor: Tensor, passes: bool) -> Tensor:
    copy = tensor.detach()
    return copy.requires_grad_() if passes and is_differentiable(copy.dtype) else copy


def _shares(
    record: StepRecord, inputs: list[Tensor], outputs: list[Tensor], totals: Mapping[Ref, Tensor]
) -> list[tuple[Ref, Tensor]]:
    """The cotangents that one step passes on to its inputs."""
    at = [j for j, tensor in enumerate(inputs) if tensor.requires_grad]
    pairs = [(o, totals[ref]) for o, ref in zip(outputs, record.refs(), strict=True) if ref in totals and o.requires_grad]
    if not at or not pairs:
        return []
    heads, cotangents = zip(*pairs, strict=True)
    shares = torch.autograd.grad(heads, [inputs[j] for j in at], cotangents, allow_unused=True)
    return [(record.parents[j], share) for j, share in zip(at, shares, strict=True) if share is not None]


def array_of(tensor: Tensor) -> Any:
    """The elements: of 60 digits where the tensor carries them, else float64 or complex128."""
    if isinstance(tensor, Carrier):
        return tensor.numbers
    wide = torch.complex128 if tensor.dtype.is_complex else torch.float64
    return np.asarray(tensor.detach().to(wide).numpy(force=True))
