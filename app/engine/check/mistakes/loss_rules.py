"""Wrong rules of losses and of softmax: a part of its Jacobian, a probability without its target, of another axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from app.engine.stepwise.point import argument_of, name_of
from app.engine.stepwise.trace import StepRecord, VjpRule, step_vjp
from app.engine.tensors import is_differentiable

Row = Sequence[Tensor | None]


def probability_alone(record: StepRecord, cotangents: Row) -> Row:
    """p where p - y belongs: of a cross-entropy, or of the log-softmax in one."""
    cotangent, x = cotangents[0], record.inputs[0].detach()
    if cotangent is None:
        return [None] * len(record.inputs)
    name = name_of(record.node)
    if name == "log_softmax":
        axis = int(argument_of(record.node, "dim", -1) or 0)
        return [-record.outputs[0].detach().exp() * cotangent.sum(axis, keepdim=True)]
    p = torch.sigmoid(x) if name == "binary_cross_entropy_with_logits" else x.softmax(_class_axis(x))
    samples = x.numel() if name == "binary_cross_entropy_with_logits" else x.numel() / x.shape[_class_axis(x)]
    by = 1 / samples if str(argument_of(record.node, "reduction", "mean")) == "mean" else 1.0
    weight = cotangent if cotangent.ndim in (0, x.ndim) else cotangent.unsqueeze(_class_axis(x))
    return [p * weight * by, *([None] * (len(record.inputs) - 1))]


def probability_along(record: StepRecord, cotangents: Row, by: int) -> Row:
    """p - y of a cross-entropy with the softmax along the axis that lies `by` places farther than the classes."""
    scores, cotangent = record.inputs[0].detach(), cotangents[0]
    rows = _log_probability_cotangent(record)
    if rows is None or cotangent is None or scores.ndim < 2:
        return step_vjp(record, cotangents)
    axis = _class_axis(scores)
    return first(record, cotangent, rows - scores.softmax((axis + by) % scores.ndim) * rows.sum(axis, keepdim=True))


def lengths_constant(record: StepRecord, cotangents: Row) -> Row:
    """A cosine's derivative with both lengths treated as constants."""
    cotangent = cotangents[0]
    if cotangent is None or len(record.inputs) != 2:
        return step_vjp(record, cotangents)
    axis = int(argument_of(record.node, "dim", record.node.args[2] if len(record.node.args) > 2 else 1))
    x, y = (tensor.detach() for tensor in record.inputs)
    weight = cotangent.unsqueeze(axis) / (x.norm(dim=axis, keepdim=True) * y.norm(dim=axis, keepdim=True))
    return [(weight * y).sum_to_size(x.shape), (weight * x).sum_to_size(y.shape)]


def softmax_diagonal(record: StepRecord) -> VjpRule | None:
    """For a step with a softmax in it, the rule that uses only the diagonal of softmax's Jacobian; None for other steps."""
    name = name_of(record.node)
    if name in _DIAGONAL:
        slope = _DIAGONAL[name]
        return lambda record, cotangents: first(record, cotangents[0], slope(record.outputs[0].detach()))
    if name == "cross_entropy":
        rows = _log_probability_cotangent(record)
        if rows is not None:
            probability = record.inputs[0].detach().softmax(_class_axis(record.inputs[0]))
            return lambda record, cotangents: first(record, cotangents[0], rows * (1 - probability))
    return None


def _softmax(y: Tensor) -> Tensor:
    return y * (1 - y)


_DIAGONAL: Final[dict[str, Any]] = {
    "softmax": _softmax,
    "softmin": lambda y: -_softmax(y),
    "log_softmax": lambda y: 1 - y.exp(),
}


def first(record: StepRecord, cotangent: Tensor | None, slope: Tensor) -> list[Tensor | None]:
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
