"""Wrong rules of steps that work along axes: along others, sums and kernels not turned round, norms not divided by, terms of a normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.nn import grad as convolution_gradients

from app.engine.check.mistakes.rules.loss_rules import probability_along
from app.engine.stepwise.point import argument_of, name_of
from app.engine.stepwise.trace import StepRecord, VjpRule, step_vjp

Row = Sequence[Tensor | None]
_EUCLIDEAN: Final = (None, 2, 2.0, "fro")


def axis_of(record: StepRecord) -> int | None:
    """The one axis that the step works along; None where it names none, or several."""
    args = record.node.args
    axis = record.node.kwargs.get("dim", args[1] if len(args) > 1 else None)
    axis = axis[0] if isinstance(axis, tuple | list) and len(axis) == 1 else axis
    if not isinstance(axis, int) or isinstance(axis, bool) or len(record.inputs) != 1 or not record.inputs[0].ndim:
        return None
    return axis % record.inputs[0].ndim


def along_another_axis(by: int) -> VjpRule:
    """The step's rule along the axis that lies `by` places farther; of a reduction, spread over the right one all the same."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        if name_of(record.node) == "cross_entropy":
            return probability_along(record, cotangents, by)
        axis, cotangent = axis_of(record), cotangents[0]
        ndim = record.inputs[0].ndim
        if axis is None or ndim < 2 or cotangent is None or not callable(record.node.target):
            return step_vjp(record, cotangents)
        reduces = record.outputs[0].shape != record.inputs[0].shape
        with torch.enable_grad():
            x = record.inputs[0].detach().requires_grad_()
            args, kwargs = _with_axis(record.node, x, (axis + by) % ndim)
            result = record.node.target(*args, **kwargs | ({"keepdim": True} if reduces else {}))
            y = result if isinstance(result, Tensor) else result[0]
            (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y) if reduces else cotangent)
        if not reduces:
            return [gradient]
        return [gradient * (cotangent if cotangent.ndim == ndim else cotangent.unsqueeze(axis))]

    return rule


def _with_axis(node: fx.Node, x: Tensor, axis: int) -> tuple[list[Any], dict[str, Any]]:
    args: list[Any] = [x if isinstance(argument, fx.Node) else argument for argument in node.args]
    kwargs: dict[str, Any] = {key: x if isinstance(value, fx.Node) else value for key, value in node.kwargs.items()}
    if "dim" in kwargs:
        return args, kwargs | {"dim": axis}
    return [*args[:1], axis, *args[2:]], kwargs


def not_turned_round(record: StepRecord, cotangents: Row) -> Row:
    """Sums from the first element on where those to the last belong."""
    axis, cotangent = axis_of(record), cotangents[0]
    return step_vjp(record, cotangents) if axis is None or cotangent is None else [cotangent.cumsum(axis)]


def one_side(side: int) -> VjpRule:
    """The rule of differences along an axis, of which each depends on its earlier element (0) or its later one (1) alone."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        x, cotangent = record.inputs[0], cotangents[0]
        axis = int(argument_of(record.node, "dim", record.node.args[2] if len(record.node.args) > 2 else -1)) % max(1, x.ndim)
        if cotangent is None or cotangent.shape[axis] + 1 != x.shape[axis]:
            return step_vjp(record, cotangents)
        end = torch.zeros_like(x.detach().narrow(axis, 0, 1))
        return [torch.cat([end, cotangent] if side else [-cotangent, end], axis)]

    return rule


def undivided_norm(record: StepRecord, cotangents: Row) -> Row:
    """x where x / ‖x‖ belongs, of Euclidean norms."""
    cotangent, x = cotangents[0], record.inputs[0].detach()
    order = (
        record.node.args[1]
        if len(record.node.args) > 1
        else argument_of(record.node, "p", argument_of(record.node, "ord", None))
    )
    if cotangent is None or order not in _EUCLIDEAN:
        return step_vjp(record, cotangents)
    axes = record.node.kwargs.get("dim", record.node.args[2] if len(record.node.args) > 2 else None)
    if record.outputs[0].ndim and record.outputs[0].ndim < x.ndim:
        if not isinstance(axes, int):
            return step_vjp(record, cotangents)
        cotangent = cotangent.unsqueeze(axes)
    return [cotangent * x]


def normalisation(
    *,
    mean: float = 1.0,
    variance: float = 1.0,
    power: int = 1,
    correction: int = 0,
    over_others: bool = False,
    of_sum: bool = False,
    summed: bool = False,
) -> VjpRule:
    """A normalisation's rule, by σ to the power `power`, its terms of the mean and of the spread times a number: 0 treats it as constant.

    Arguments:
        correction: what the number of elements is less by where the variance divides by it.
        over_others: whether the statistics are taken over other axes than they should be.
        of_sum: whether a sum of squares stands where their mean belongs.
        summed: whether both terms are sums where their means belong.
    """

    def rule(record: StepRecord, cotangents: Row) -> Row:
        gradients = list(step_vjp(record, cotangents))
        x, cotangent, name = record.inputs[0].detach(), cotangents[0], name_of(record.node)
        if cotangent is None:
            return gradients
        if name in ("batch_norm", "instance_norm") and (variance_held := _held_variance(record)) is not None:
            return _times_spread(record, gradients, variance_held, 1 - power)
        weight = _weight(record)
        if weight is not None and weight.numel() > 1:
            per_element = name in ("layer_norm", "rms_norm")
            cotangent = cotangent * (weight if per_element else weight.reshape(1, -1, *[1] * (x.ndim - 2)))
        axes = _normalised(record, name, x)
        if over_others:
            axes = tuple(range(1, x.ndim)) if name == "batch_norm" else tuple(range(min(axes)))
        if name == "group_norm":
            groups = (x.shape[0], int(argument_of(record.node, "num_groups", record.node.args[1])), -1)
            x, cotangent, axes = x.reshape(groups), cotangent.reshape(groups), (2,)
        eps = argument_of(record.node, "eps", None)
        eps = eps if isinstance(eps, float) else torch.finfo(x.dtype).eps if name == "rms_norm" else 1e-5
        is_centred = name not in ("rms_norm", "normalize")
        shifted = x - x.mean(axes, keepdim=True) if is_centred else x
        # A vector is divided by its length; other normalisations by the root of a mean.
        number = 1 if of_sum or name == "normalize" else shifted.numel() // shifted.sum(axes).numel() - correction
        spread = (shifted.square().sum(axes, keepdim=True) / number + (0.0 if name == "normalize" else eps)).sqrt()
        by, y = cotangent / spread**power, shifted / spread
        times = number if summed else 1
        gradient = by - variance * times * y * (by * y).sum(axes, keepdim=True) / number
        gradient = gradient - mean * times * by.mean(axes, keepdim=True) if is_centred else gradient
        return [gradient.reshape(record.inputs[0].shape), *gradients[1:]]

    return rule


def _weight(record: StepRecord) -> Tensor | None:
    """What a normalisation multiplies by."""
    return _argument(record, "weight")


def _argument(record: StepRecord, name: str) -> Tensor | None:
    node = argument_of(record.node, name, None)
    return next((x.detach() for ref, x in zip(record.parents, record.inputs, strict=True) if ref[0] is node), None)


def _held_variance(record: StepRecord) -> Tensor | None:
    """The running variance, where a normalisation divides by that: in evaluation."""
    is_evaluation = (
        argument_of(record.node, "training", False) is False and argument_of(record.node, "use_input_stats", False) is False
    )
    return _argument(record, "running_var") if is_evaluation else None


def _times_spread(record: StepRecord, gradients: Row, variance: Tensor, power: int) -> list[Tensor | None]:
    """The gradients by the input and by the weight times σ to a power."""
    spread = (variance + argument_of(record.node, "eps", 1e-5)).sqrt() ** power
    by_input = gradients[0] if gradients[0] is None else gradients[0] * spread.reshape(1, -1, *[1] * (gradients[0].ndim - 2))
    weight = argument_of(record.node, "weight", None)
    return [by_input] + [
        gradient * spread if gradient is not None and ref[0] is weight else gradient
        for ref, gradient in zip(record.parents[1:], gradients[1:], strict=True)
    ]


def weight_last(record: StepRecord, cotangents: Row) -> Row:
    """The weight times the whole, where it multiplies the gradient before the terms of mean and spread are taken."""
    weight, cotangent = _weight(record), cotangents[0]
    if weight is None or cotangent is None or not bool(weight.all()):
        return step_vjp(record, cotangents)
    own, *rest = step_vjp(record, [cotangent / weight])
    return [None if own is None else own * weight, *rest]


def weight_of_input(record: StepRecord, cotangents: Row) -> Row:
    """The derivative by a normalisation's weight with the input where the normalised input belongs."""
    gradients, cotangent, weight = list(step_vjp(record, cotangents)), cotangents[0], _weight(record)
    at = next((j for j, ref in enumerate(record.parents) if ref[0] is argument_of(record.node, "weight", None)), 0)
    if cotangent is None or weight is None or gradients[at] is None:
        return gradients
    product = cotangent * record.inputs[0].detach()
    per_element = name_of(record.node) in ("layer_norm", "rms_norm")
    axes = (0, *range(2, product.ndim))
    gradients[at] = product.sum_to_size(weight.shape) if per_element else product.sum(axes)
    return gradients


def _normalised(record: StepRecord, name: str, x: Tensor) -> tuple[int, ...]:
    """The axes over which a normalisation takes its statistics."""
    if name in ("layer_norm", "rms_norm"):
        over = argument_of(record.node, "normalized_shape", (x.shape[-1],))
        return tuple(range(x.ndim - len(tuple(over)), x.ndim))
    if name == "normalize":
        return (int(argument_of(record.node, "dim", 1)),)
    return (0, *range(2, x.ndim)) if name == "batch_norm" else tuple(range(2, x.ndim))


def unflipped(record: StepRecord, cotangents: Row) -> Row:
    """A convolution's rule with the kernel, and its gradient, the other way round."""
    return _with_kernel(record, cotangents, lambda weight: weight.flip(tuple(range(2, weight.ndim))))


def swapped_channels(record: StepRecord, cotangents: Row) -> Row:
    """A convolution's rule with the kernel, and its gradient, between the wrong channels."""
    if record.inputs[1].shape[0] != record.inputs[1].shape[1]:
        return step_vjp(record, cotangents)
    return _with_kernel(record, cotangents, lambda weight: weight.transpose(0, 1))


def _with_kernel(record: StepRecord, cotangents: Row, turned: Callable[[Tensor], Tensor]) -> Row:
    gradients, cotangent = list(step_vjp(record, cotangents)), cotangents[0]
    weight = record.inputs[1].detach()
    backward = _CONVOLUTIONS.get(name_of(record.node))
    settings = [*record.node.args[3:], *_SETTINGS[max(0, len(record.node.args) - 3) :]]
    settings = [
        record.node.kwargs.get(name, value)
        for name, value in zip(("stride", "padding", "dilation", "groups"), settings, strict=False)
    ]
    if backward is None or cotangent is None or isinstance(settings[1], str):
        return gradients
    if gradients[0] is not None:
        gradients[0] = backward(record.inputs[0].shape, turned(weight), cotangent, *settings)
    if gradients[1] is not None:
        gradients[1] = turned(gradients[1])
    return gradients


_SETTINGS: Final = (1, 0, 1, 1)  # stride, padding, dilation, groups, where they are left out
_CONVOLUTIONS: Final[dict[str, Callable[..., Tensor]]] = {
    "conv1d": convolution_gradients.conv1d_input, "conv2d": convolution_gradients.conv2d_input, "conv3d": convolution_gradients.conv3d_input,
}  # fmt: skip


AXIS_RULES: Final[dict[str, tuple[str, str, VjpRule]]] = {
    "scale_alone": (
        "statistics_constant",
        "`{op}` is differentiated as a division by σ alone{at}: mean and σ depend on the input too.",
        normalisation(mean=0.0, variance=0.0),
    ),
    "mean_constant": (
        "missing_term",
        "A term is missing in the derivative of `{op}`{at}: that of the mean, which depends on the input too.",
        normalisation(mean=0.0),
    ),
    "variance_constant": (
        "missing_term",
        "A term is missing in the derivative of `{op}`{at}: that of the spread, which depends on the input too.",
        normalisation(variance=0.0),
    ),
    "variance_sign": (
        "sign_of_term",
        "The sign of one term is wrong in the derivative of `{op}`{at}: that of the spread is subtracted.",
        normalisation(variance=-1.0),
    ),
    "undivided_spread": ("wrong_rule", "The derivative of `{op}` is not divided by σ{at}.", normalisation(power=0)),
    "weight_of_input": (
        "wrong_value",
        "The derivative of `{op}` by its weight has the input as a factor{at}, where the normalised input belongs.",
        weight_of_input,
    ),
    "weight_last": (
        "wrong_rule",
        "The weight of `{op}` multiplies the whole derivative{at}: it multiplies the gradient before the terms of mean and spread.",
        weight_last,
    ),
    "divided_by_variance": (
        "wrong_rule",
        "The derivative of `{op}` is divided by σ² where σ belongs{at}.",
        normalisation(power=2),
    ),
    "unbiased_variance": (
        "variance_correction",
        "The variance of `{op}` is divided by n - 1 where n belongs{at}.",
        normalisation(correction=1),
    ),
    "unflipped": (
        "unflipped_kernel",
        "The kernel is the wrong way round in the derivative of `{op}`{at}: flip it along its spatial axes.",
        unflipped,
    ),
    "swapped_channels": (
        "transposed_product",
        "The two axes of channels of the kernel are swapped in the derivative of `{op}`{at}.",
        swapped_channels,
    ),
    "undivided_norm": (
        "wrong_rule",
        "The derivative of `{op}` is taken as its input{at}, which must be divided by the norm.",
        undivided_norm,
    ),
    "next_axis": ("wrong_axis", "`{op}` is differentiated along another axis than it works along{at}.", along_another_axis(1)),
    "previous_axis": (
        "wrong_axis",
        "`{op}` is differentiated along another axis than it works along{at}.",
        along_another_axis(-1),
    ),
    "not_turned_round": (
        "not_reversed",
        "The derivative of `{op}` sums from the first element on{at}, where each element's is the sum from it to the last.",
        not_turned_round,
    ),
    "minuend_alone": (
        "missing_term",
        "A term is missing{at}: each difference depends on its earlier element too.",
        one_side(1),
    ),
    "subtrahend_alone": (
        "missing_term",
        "A term is missing{at}: each difference depends on its later element too.",
        one_side(0),
    ),
    "of_samples": (
        "wrong_axis",
        "`{op}` is differentiated with mean and spread over other axes than those that it takes them over{at}.",
        normalisation(over_others=True),
    ),
    "summed_terms": (
        "wrong_reduction",
        "The terms of mean and spread in the derivative of `{op}` are sums where they are means{at}.",
        normalisation(summed=True),
    ),
    "undivided_projection": (
        "wrong_rule",
        "The derivative of `{op}` is not divided by the length{at}.",
        normalisation(power=0),
    ),
    "sum_of_squares": (
        "wrong_reduction",
        "`{op}` is differentiated as a division by the root of the sum of the squares{at}, where their mean belongs.",
        normalisation(of_sum=True),
    ),
}
