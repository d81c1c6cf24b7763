"""Wrong rules of losses and of softmax: a part of its Jacobian, a probability without its target, of another axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx
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
    rows = _log_probability_cotangent(record) if name == "cross_entropy" else None
    if rows is not None:
        axis = _class_axis(x)
        return first(record, cotangent, -x.softmax(axis) * rows.sum(axis, keepdim=True))
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


def difference(record: StepRecord, cotangents: Row) -> Row:
    """p - y, of a loss that takes probabilities p."""
    return _of_elements(record, cotangents, lambda x: x)


def exponential_difference(record: StepRecord, cotangents: Row) -> Row:
    """q - p, of a loss that takes ln q."""
    return _of_elements(record, cotangents, torch.exp)


def scores_alone(record: StepRecord, cotangents: Row) -> Row:
    """x - y where σ(x) - y belongs."""
    return _of_elements(record, cotangents, lambda x: x)


def logistic_twice(by: int) -> VjpRule:
    """(σ(x) - y) times σ'(x) to the power `by`: once more, as of a squared error, or divided by it, as of a loss of probabilities."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        gradients, p = list(_of_elements(record, cotangents, torch.sigmoid)), torch.sigmoid(record.inputs[0].detach())
        if gradients[0] is not None:
            gradients[0] = gradients[0] * (p * (1 - p)) ** by
        return gradients

    return rule


def other_sum(of: Callable[[Tensor, Tensor, int], Tensor | None]) -> VjpRule:
    """The rule of softmax or its logarithm with another sum over the outputs: `of` their products with the gradient, and it, along an axis."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        y, cotangent = record.outputs[0].detach(), cotangents[0]
        axis = int(argument_of(record.node, "dim", -1) or 0) % max(1, y.ndim)
        if cotangent is None or not y.ndim:
            return step_vjp(record, cotangents)
        is_log = name_of(record.node) == "log_softmax"
        total = of(cotangent if is_log else cotangent * y, cotangent, axis)
        if total is None:
            return step_vjp(record, cotangents)
        return [cotangent - y.exp() * total] if is_log else [y * (cotangent - total)]

    return rule


def _along_another(products: Tensor, cotangent: Tensor, axis: int) -> Tensor | None:
    other = axis - 1 if axis else axis + 1
    return products.sum(other, keepdim=True) if products.ndim > 1 else None


def probability_of_another_axis(record: StepRecord, cotangents: Row) -> Row:
    """Of a log-softmax p along another axis, with the sum along the right one."""
    x, cotangent = record.inputs[0].detach(), cotangents[0]
    if cotangent is None or x.ndim < 2:
        return step_vjp(record, cotangents)
    axis = int(argument_of(record.node, "dim", -1) or 0) % x.ndim
    return [cotangent - x.softmax(axis - 1 if axis else axis + 1) * cotangent.sum(axis, keepdim=True)]


def probability_as(of: Callable[[Tensor, int], Tensor]) -> VjpRule:
    """p - y with something else for p: `of` the scores, along an axis. Of a cross-entropy, a log-softmax or the logarithm of its sum."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        x, cotangent = record.inputs[0].detach(), cotangents[0]
        if name_of(record.node) == "cross_entropy":
            rows, axis = _log_probability_cotangent(record), _class_axis(x)
            if rows is None or cotangent is None:
                return step_vjp(record, cotangents)
            return first(record, cotangent, rows - of(x, axis) * rows.sum(axis, keepdim=True))
        named = argument_of(record.node, "dim", record.node.args[1] if len(record.node.args) > 1 else -1)
        if cotangent is None or not x.ndim or not isinstance(named, int):
            return step_vjp(record, cotangents)
        axis = named % x.ndim
        if name_of(record.node) == "log_softmax":
            return [cotangent - of(x, axis) * cotangent.sum(axis, keepdim=True)]
        return [(cotangent if cotangent.ndim == x.ndim else cotangent.unsqueeze(axis)) * of(x, axis)]

    return rule


def of_class_weights(wanted: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> VjpRule:
    """A cross-entropy's rule with class weights elsewhere: `wanted` of p, y, the weight of each class, and of each sample."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        scores, cotangent = record.inputs[0].detach(), cotangents[0]
        if len(record.inputs) != 3 or scores.ndim != 2 or cotangent is None or argument_of(record.node, "label_smoothing", 0.0):
            return step_vjp(record, cotangents)
        target, weight = (x.detach() for x in record.inputs[1:])
        ignored = argument_of(record.node, "ignore_index", -100)
        if is_differentiable(target.dtype) or bool((target == ignored).any()):
            return step_vjp(record, cotangents)
        own, hot = weight[target].unsqueeze(1), functional.one_hot(target, scores.shape[1])
        is_mean = str(argument_of(record.node, "reduction", "mean")) == "mean"
        slope = wanted(scores.softmax(1), hot, weight, own)
        return first(record, cotangent, slope / own.sum() if is_mean else slope)

    return rule


def _of_elements(record: StepRecord, cotangents: Row, probability: Callable[[Tensor], Tensor]) -> Row:
    cotangent = cotangents[0]
    if cotangent is None or len(record.inputs) != 2 or record.inputs[0].shape != record.inputs[1].shape:
        return step_vjp(record, cotangents)
    x, target = (tensor.detach() for tensor in record.inputs)
    reduction = str(argument_of(record.node, "reduction", "mean"))
    count = x.numel() if reduction == "mean" else len(x) if reduction == "batchmean" else 1
    return [cotangent * (probability(x) - target) / count, None]


def probability_difference(record: StepRecord, cotangents: Row) -> Row:
    """p - y, of a loss that takes ln p."""
    rows, scores = _log_probability_cotangent(record), record.inputs[0].detach()
    if rows is None:
        return step_vjp(record, cotangents)
    return first(record, cotangents[0], rows - scores.exp() * rows.sum(_class_axis(scores), keepdim=True))


def reciprocal_probability(record: StepRecord, cotangents: Row) -> Row:
    """-1/p of the right class, of a loss that takes scores."""
    rows, scores = _log_probability_cotangent(record), record.inputs[0].detach()
    if rows is None:
        return step_vjp(record, cotangents)
    return first(record, cotangents[0], rows / scores.softmax(_class_axis(scores)))


def smoothed_elsewhere(record: StepRecord, cotangents: Row) -> Row:
    """A smoothed label's share spread over the other classes alone, of which there is one less."""
    smoothing, scores = argument_of(record.node, "label_smoothing", 0.0), record.inputs[0].detach()
    if not isinstance(smoothing, float) or not smoothing or len(record.inputs) != 2 or scores.ndim > 2:
        return step_vjp(record, cotangents)
    target, classes = record.inputs[1].detach(), scores.shape[-1]
    if is_differentiable(target.dtype) or classes < 2:
        return step_vjp(record, cotangents)
    hot = functional.one_hot(target, classes)
    wanted = hot * (1 - smoothing) + (1 - hot) * smoothing / (classes - 1)
    count = target.numel() if str(argument_of(record.node, "reduction", "mean")) == "mean" else 1
    return first(record, cotangents[0], (scores.softmax(-1) - wanted) / count)


def sign_of_sum(record: StepRecord, cotangents: Row) -> Row:
    """The sum over all outputs added where it is subtracted, of softmax and its logarithm."""
    (cotangent,), (own,) = cotangents, step_vjp(record, cotangents)
    if cotangent is None or own is None:
        return [own]
    diagonal = cotangent if name_of(record.node) == "log_softmax" else cotangent * record.outputs[0].detach()
    return [2 * diagonal - own]


def axis_of_pairs(node: fx.Node, *vectors: Tensor) -> int:
    """The axis along which two batches of vectors are compared, from the end: one of them may be a single vector."""
    axis = int(argument_of(node, "dim", node.args[2] if len(node.args) > 2 else 1))
    return axis if axis < 0 else axis - max(x.ndim for x in vectors)


def lengths_constant(record: StepRecord, cotangents: Row) -> Row:
    """A cosine's derivative with both lengths treated as constants."""
    cotangent = cotangents[0]
    if cotangent is None or len(record.inputs) != 2:
        return step_vjp(record, cotangents)
    axis = axis_of_pairs(record.node, *record.inputs)
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


LOSS_RULES: Final[dict[str, tuple[str, str, VjpRule]]] = {
    "probability_alone": (
        "probability_alone",
        "The derivative of `{op}` is taken as p{at}, where p - y belongs: the target is missing.",
        probability_alone,
    ),
    "lengths_constant": (
        "missing_term",
        "A term is missing{at}: the lengths that `{op}` divides by depend on their vectors too.",
        lengths_constant,
    ),
    "difference": (
        "wrong_rule",
        "The derivative of `{op}` is taken as p - y{at}, that by the scores: by p it is divided by p (1 - p).",
        difference,
    ),
    "scores_alone": (
        "wrong_rule",
        "The derivative of `{op}` is taken as x - y{at}, of the scores x: the sigmoid is missing, it is σ(x) - y.",
        scores_alone,
    ),
    "logistic_twice": (
        "wrong_rule",
        "The derivative of `{op}` is taken as (p - y) p (1 - p){at}: it is p - y, in which that of the sigmoid is already.",
        logistic_twice(1),
    ),
    "by_probabilities": (
        "wrong_rule",
        "The derivative of `{op}` is taken as (p - y) / (p (1 - p)){at}, that by the probabilities: by the scores it is p - y.",
        logistic_twice(-1),
    ),
    "mean_of_products": (
        "wrong_reduction",
        "A mean is taken where the derivative of `{op}` has a sum over the outputs{at}.",
        other_sum(lambda products, cotangent, axis: products.mean(axis, keepdim=True)),
    ),
    "sum_along_another": (
        "wrong_axis",
        "The sum over the outputs in the derivative of `{op}` is taken along another axis{at}.",
        other_sum(_along_another),
    ),
    "sum_without_outputs": (
        "wrong_rule",
        "The sum over the outputs in the derivative of `{op}` is that of the gradient alone{at}: it has each output as a factor.",
        other_sum(lambda products, cotangent, axis: cotangent.sum(axis, keepdim=True)),
    ),
    "probability_of_another_axis": (
        "wrong_axis",
        "The probabilities in the derivative of `{op}` are those along another axis{at}.",
        probability_of_another_axis,
    ),
    "exponential_difference": (
        "wrong_rule",
        "The derivative of `{op}` is taken as eˣ - y{at}, of its input x and its target y: it is -y.",
        exponential_difference,
    ),
    "probability_difference": (
        "wrong_rule",
        "The derivative of `{op}` is taken as p - y{at}, that by the scores before the softmax: by ln p it is -y.",
        probability_difference,
    ),
    "reciprocal_probability": (
        "missing_activation_derivative",
        "The derivative of `{op}` is taken as -y/p{at}, that by the probabilities: by the scores, before the softmax, it is p - y.",
        reciprocal_probability,
    ),
    "smoothed_elsewhere": (
        "wrong_rule",
        "The `label_smoothing` of `{op}` is divided by the number of the other classes{at}: it is spread over all, the right one too.",
        smoothed_elsewhere,
    ),
    "sign_of_sum": (
        "sign_of_term",
        "The sign of one term is wrong in the derivative of `{op}`{at}: the sum over all outputs is subtracted.",
        sign_of_sum,
    ),
    "probability_twice": (
        "wrong_rule",
        "The softmax in the derivative of `{op}` is taken twice{at}: of probabilities, where it is of the scores.",
        probability_as(lambda x, axis: x.softmax(axis).softmax(axis)),
    ),
    "scores_for_probability": (
        "wrong_rule",
        "The derivative of `{op}` has the scores where their softmax belongs{at}.",
        probability_as(lambda x, axis: x),
    ),
    "divided_by_samples": (
        "wrong_reduction",
        "The derivative of `{op}` is divided by the number of samples{at}: with class weights its mean divides by the sum of theirs.",
        of_class_weights(lambda p, y, weight, own: (p - y) * own * own.mean()),
    ),
    "weight_of_each_class": (
        "wrong_value",
        "In the derivative of `{op}` each score has its own class's weight{at}, where the weight of the sample's right class belongs.",
        of_class_weights(lambda p, y, weight, own: (p - y) * weight),
    ),
    "weight_of_target": (
        "missing_factor",
        "In the derivative of `{op}` the class weight multiplies y alone{at}: it multiplies p - y.",
        of_class_weights(lambda p, y, weight, own: p - y * own),
    ),
}
