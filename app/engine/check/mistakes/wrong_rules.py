"""Wrong rules that people use in the place of a step's derivative, so that a derivation can be recognised by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from app.engine.stepwise.point import argument_of, name_of
from app.engine.stepwise.trace import StepRecord, VjpRule, step_vjp
from app.engine.tensors import is_differentiable


def identity(record: StepRecord, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The step's derivative taken as 1."""
    return [cotangents[0], *([None] * (len(record.inputs) - 1))]


def dropped(position: int) -> VjpRule:
    """The step's own rule with one input treated as constant."""

    def rule(record: StepRecord, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        gradients = step_vjp(record, cotangents)
        gradients[position] = None
        return gradients

    return rule


def softmax_diagonal(record: StepRecord) -> VjpRule | None:
    """For a step with a softmax in it, the rule that uses only the diagonal of softmax's Jacobian; None for other steps."""
    name = name_of(record.node)
    if name in _DIAGONAL:
        slope = _DIAGONAL[name]
        return lambda record, cotangents: _first(record, cotangents[0], slope(record.outputs[0].detach()))
    if name == "cross_entropy":
        rows = _log_probability_cotangent(record)
        if rows is not None:
            probability = record.inputs[0].detach().softmax(_class_axis(record.inputs[0]))
            return lambda record, cotangents: _first(record, cotangents[0], rows * (1 - probability))
    return None


def _softmax(y: Tensor) -> Tensor:
    return y * (1 - y)


_DIAGONAL: Final[dict[str, Any]] = {
    "softmax": _softmax,
    "softmin": lambda y: -_softmax(y),
    "log_softmax": lambda y: 1 - y.exp(),
}


def _first(record: StepRecord, cotangent: Tensor | None, slope: Tensor) -> list[Tensor | None]:
    if cotangent is None:
        return [None] * len(record.inputs)
    by = cotangent if cotangent.ndim in (0, slope.ndim) else cotangent.unsqueeze(_class_axis(slope))
    return [by * slope, *([None] * (len(record.inputs) - 1))]


def _class_axis(scores: Tensor) -> int:
    return 1 if scores.ndim > 1 else 0


def _log_probability_cotangent(record: StepRecord) -> Tensor | None:
    """∂loss/∂log p of a cross-entropy: of its mean or sum, or of each sample's own loss."""
    if len(record.inputs) < 2 or argument_of(record.node, "label_smoothing", 0.0):
        return None
    scores, target = record.inputs[0].detach(), record.inputs[1].detach()
    weight = record.inputs[2].detach() if len(record.inputs) > 2 else None
    axis = _class_axis(scores)
    reduction = str(argument_of(record.node, "reduction", "mean"))
    logs = functional.log_softmax(scores, axis).requires_grad_()
    if is_differentiable(target.dtype):
        if weight is not None:
            return None
        per = -(target * logs).sum(axis)
        loss = per.mean() if reduction == "mean" else per.sum()
    else:
        ignored = argument_of(record.node, "ignore_index", -100)
        count = ignored if isinstance(ignored, int) else -100
        loss = functional.nll_loss(
            logs,
            target,
            weight,
            ignore_index=count,
            reduction="sum" if reduction == "none" else reduction,
        )
    (gradient,) = torch.autograd.grad(loss, logs)
    return gradient
