"""Wrong rules that leave out a part of a step's own: of a gate, a length, a running sum, a factor, a matrix that is made symmetric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, fx
from torch.nn import functional

from app.engine.check.mistakes.rules.axis_rules import axis_of
from app.engine.check.mistakes.rules.loss_rules import axis_of_pairs
from app.engine.stepwise.point import argument_of
from app.engine.stepwise.trace import StepRecord, VjpRule, step_vjp
from app.engine.tensors import is_differentiable

Row = Sequence[Tensor | None]


def as_of(function: Callable[..., Tensor]) -> VjpRule:
    """The rule of another function of the step's node and inputs, in which some is held constant."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        if cotangents[0] is None:
            return [None] * len(record.inputs)
        leaves = [x.detach().clone().requires_grad_(is_differentiable(x.dtype)) for x in record.inputs]
        with torch.enable_grad():
            result = function(record.node, *leaves)
        live = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = iter(torch.autograd.grad(result, live, cotangents[0], allow_unused=True))
        return [next(gradients) if leaf.requires_grad else None for leaf in leaves]

    return rule


def _halves(node: fx.Node, x: Tensor) -> tuple[Tensor, ...]:
    return x.chunk(2, int(argument_of(node, "dim", node.args[1] if len(node.args) > 1 else -1)))


def _gated(function: Callable[[Tensor, Tensor], Tensor]) -> VjpRule:
    return as_of(lambda node, x: function(*_halves(node, x)))


def times_own(factor: Callable[[StepRecord], Tensor]) -> VjpRule:
    """The step's rule with the gradient that comes to it times a factor."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        cotangent = cotangents[0]
        return step_vjp(record, [None if cotangent is None else cotangent * factor(record)])

    return rule


def lengths_off(by: int) -> VjpRule:
    """A cosine's rule, each vector's gradient times its length to the power `by`."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        axis = axis_of_pairs(record.node, *record.inputs)
        lengths = [x.detach().norm(dim=axis, keepdim=True) for x in record.inputs]
        pairs = zip(step_vjp(record, cotangents), lengths, strict=True)
        return [None if gradient is None else gradient * length**by for gradient, length in pairs]

    return rule


def factor_of_matrix(*, symmetric: bool, half: float) -> VjpRule:
    """Of a lower Cholesky factor: made symmetric or not, with `half` of the diagonal inside, where one half belongs."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        low, cotangent = record.outputs[0].detach(), cotangents[0]
        if cotangent is None or low.is_complex() or bool(argument_of(record.node, "upper", len(record.node.args) > 1)):
            return step_vjp(record, cotangents)
        inner = (low.mT @ cotangent).tril()
        if half != 0.5 and not bool(inner.tril(-1).any()):
            return step_vjp(record, cotangents)  # of a diagonal alone it is all twice as large, which has a name of its own
        inner = inner - (1 - half) * torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
        left = torch.linalg.solve_triangular(low.mT, inner, upper=True)
        whole = torch.linalg.solve_triangular(low, left, upper=False, left=False)
        return [(whole + whole.mT) / 2 if symmetric else whole]

    return rule


def as_inverse(record: StepRecord, cotangents: Row) -> Row:
    """-Pᵗ·G·Pᵗ, of a pseudo-inverse P."""
    p, cotangent = record.outputs[0].detach().mH, cotangents[0]
    return [None if cotangent is None else -(p @ cotangent @ p)]


def running(of: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> VjpRule:
    """Of products or sums up to each element: `of` the gradient, the input, the output and the axis."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        axis, cotangent = axis_of(record), cotangents[0]
        if axis is None or cotangent is None:
            return step_vjp(record, cotangents)
        return [of(cotangent, record.inputs[0].detach(), record.outputs[0].detach(), axis)]

    return rule


def _to_last(terms: Tensor, axis: int) -> Tensor:
    return terms.flip(axis).cumsum(axis).flip(axis)


def averaged(record: StepRecord, cotangents: Row) -> Row:
    """Of what is added by an index: divided by how many are added in one place."""
    gradients, cotangent = list(step_vjp(record, cotangents)), cotangents[0]
    known = {ref[0]: x.detach() for ref, x in zip(record.parents, record.inputs, strict=True)}
    args = [known.get(a, a) if isinstance(a, fx.Node) else a for a in record.node.args]
    if cotangent is None or len(args) != 4 or record.node.kwargs or len(gradients) != 3 or not callable(record.node.target):
        return gradients
    added = next((j for j, ref in enumerate(record.parents) if ref[0] is record.node.args[3]), None)
    if added is None or not isinstance(args[3], Tensor):
        return gradients
    count = record.node.target(torch.zeros_like(record.outputs[0]), *args[1:3], torch.ones_like(args[3]))
    gradients[added] = step_vjp(record, [cotangent / count.clamp(min=1)])[added]
    return gradients


def positive_gradient(*, masked: bool) -> VjpRule:
    """What is positive of the gradient alone, where the input is positive or everywhere."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        cotangent = cotangents[0]
        if cotangent is None:
            return [None]
        return step_vjp(record, [cotangent.clamp(min=0)]) if masked else [cotangent.clamp(min=0)]

    return rule


def sum_of_factors(record: StepRecord, cotangents: Row) -> Row:
    """1 where the product of the other factors belongs, or all of it."""
    return _spread(record, cotangents, lambda y: torch.ones_like(y))


def product_of_all(record: StepRecord, cotangents: Row) -> Row:
    """The whole product where that of the other factors belongs."""
    return _spread(record, cotangents, lambda y: y)


def _spread(record: StepRecord, cotangents: Row, of: Callable[[Tensor], Tensor]) -> Row:
    x, y, cotangent = record.inputs[0], record.outputs[0].detach(), cotangents[0]
    if cotangent is None:
        return [None]
    slope = cotangent * of(y)
    axis = axis_of(record)
    return [(slope if slope.ndim in (0, x.ndim) or axis is None else slope.unsqueeze(axis)).expand(x.shape)]


def distance(order: float) -> VjpRule:
    """Of distances of another order."""
    return as_of(lambda node, a, b: torch.cdist(a, b, p=order))


PART_RULES: Final[dict[str, tuple[str, str, VjpRule]]] = {
    "gate_slope_missing": (
        "missing_activation_derivative",
        "The derivative of the gate's sigmoid is missing in that of `{op}`{at}: by the gate b of a·σ(b) it is a σ(b) (1 - σ(b)).",
        _gated(lambda a, b: a * b.detach().sigmoid() + a.detach() * b),
    ),
    "gate_slope_output": (
        "wrong_rule",
        "The derivative of the gate's sigmoid in `{op}` is taken as σ(b){at}, where σ(b) (1 - σ(b)) belongs.",
        _gated(lambda a, b: a * b.detach().sigmoid() + a.detach() * functional.softplus(b)),
    ),
    "gate_slope_rest": (
        "wrong_rule",
        "The derivative of the gate's sigmoid in `{op}` is taken as 1 - σ(b){at}, where σ(b) (1 - σ(b)) belongs.",
        _gated(lambda a, b: a * b.detach().sigmoid() - a.detach() * functional.softplus(-b)),
    ),
    "gate_exchanged": (
        "swapped",
        "The halves of `{op}` are exchanged{at}: the second is the gate, a·σ(b).",
        _gated(lambda a, b: b * a.sigmoid()),
    ),
    "gate_constant_half": (
        "missing_term",
        "A term is missing in the derivative of `{op}`{at}: the gate depends on the input too.",
        _gated(lambda a, b: a * b.detach().sigmoid()),
    ),
    "value_constant_half": (
        "missing_term",
        "A term is missing in the derivative of `{op}`{at}: what the gate multiplies depends on the input too.",
        _gated(lambda a, b: a.detach() * b.sigmoid()),
    ),
    "length_twice": (
        "wrong_rule",
        "The derivative of `{op}` is divided by a vector's length once too often{at}.",
        lengths_off(-1),
    ),
    "length_missing": ("wrong_rule", "The derivative of `{op}` is not divided by the vector's own length{at}.", lengths_off(1)),
    "inner_product": (
        "other_operation",
        "`{op}` is differentiated as the inner product{at}, without the lengths that it is divided by.",
        as_of(lambda node, a, b: (a * b).sum(axis_of_pairs(node, a, b))),
    ),
    "of_square": (
        "wrong_rule",
        "The derivative of `{op}` is that of its square{at}: it is divided by twice the distance.",
        times_own(lambda record: 2 * record.outputs[0].detach()),
    ),
    "of_half_square": (
        "wrong_rule",
        "The derivative of `{op}` is not divided by the distance{at}.",
        times_own(lambda record: record.outputs[0].detach()),
    ),
    "divided_by_square": (
        "wrong_rule",
        "The derivative of `{op}` is divided by the square of the distance{at}, where the distance belongs.",
        times_own(lambda record: record.outputs[0].detach().clamp(min=torch.finfo(record.outputs[0].dtype).tiny).reciprocal()),
    ),
    "city_block": (
        "wrong_rule",
        "The derivative of `{op}` is taken as the signs of the differences{at}, that of a distance of order 1.",
        distance(1.0),
    ),
    "factor_not_symmetric": (
        "wrong_rule",
        "The derivative of `{op}` is not made symmetric{at}: it is half the sum of L⁻ᵗ·Φ(Lᵗ·G)·L⁻¹ and its transpose.",
        factor_of_matrix(symmetric=False, half=0.5),
    ),
    "factor_whole_diagonal": (
        "wrong_rule",
        "In the derivative of `{op}` the diagonal of Φ(Lᵗ·G) is not halved{at}.",
        factor_of_matrix(symmetric=True, half=1.0),
    ),
    "as_inverse": (
        "missing_term",
        "The derivative of `{op}` is taken as that of an inverse, -Pᵗ·G·Pᵗ{at}: the terms of what is orthogonal to its rows and columns "
        "are missing.",
        as_inverse,
    ),
    "own_product_alone": (
        "missing_term",
        "Terms are missing in the derivative of `{op}`{at}: each element is a factor of all later products too.",
        running(lambda g, x, y, axis: g * y / x),
    ),
    "undivided_products": (
        "wrong_rule",
        "The derivative of `{op}` is not divided by the element itself{at}.",
        running(lambda g, x, y, axis: _to_last(g * y, axis)),
    ),
    "products_not_turned_round": (
        "not_reversed",
        "The derivative of `{op}` sums from the first element on{at}, where each element's is the sum from it to the last.",
        running(lambda g, x, y, axis: (g * y).cumsum(axis) / x),
    ),
    "own_exponential_alone": (
        "missing_term",
        "Terms are missing in the derivative of `{op}`{at}: each element is in all later sums too.",
        running(lambda g, x, y, axis: g * (x - y).exp()),
    ),
    "exponentials_not_turned_round": (
        "not_reversed",
        "The derivative of `{op}` sums from the first element on{at}, where each element's is the sum from it to the last.",
        running(lambda g, x, y, axis: x.exp() * (g * (-y).exp()).cumsum(axis)),
    ),
    "one_sum": (
        "other_operation",
        "`{op}` is differentiated as the `logsumexp` of all elements{at}, where each sum ends at its own element.",
        running(lambda g, x, y, axis: x.softmax(axis) * g.sum(axis, keepdim=True)),
    ),
    "softmax_of_all": (
        "wrong_rule",
        "The derivative of `{op}` is taken as the softmax of all elements times the gradient{at}: each sum ends at its own element.",
        running(lambda g, x, y, axis: x.softmax(axis) * g),
    ),
    "averaged": (
        "wrong_reduction",
        "What `{op}` adds in one place is averaged in its derivative{at}: each passes the whole gradient of its place.",
        averaged,
    ),
    "guided": (
        "wrong_rule",
        "Of the gradient that comes to `{op}` only what is positive is passed on{at}, as in guided backpropagation: that is no derivative.",
        positive_gradient(masked=True),
    ),
    "by_gradient": (
        "wrong_rule",
        "The gradient that comes to `{op}` is masked by its own sign{at}, where the sign of the input belongs.",
        positive_gradient(masked=False),
    ),
    "sum_of_factors": (
        "missing_activation_derivative",
        "The derivative of `{op}` is taken as 1{at}: by one factor it is the product of the others.",
        sum_of_factors,
    ),
    "product_of_all": (
        "wrong_rule",
        "The derivative of `{op}` is taken as the whole product{at}: by one factor it is the product of the others.",
        product_of_all,
    ),
}
