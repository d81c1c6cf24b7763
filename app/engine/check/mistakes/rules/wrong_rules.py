"""Wrong rules that people use in the place of a step's derivative, so that a derivation can be recognised by them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.nn import functional

from app.engine.check.mistakes.rules.axis_rules import AXIS_RULES
from app.engine.check.mistakes.rules.loss_rules import LOSS_RULES, first
from app.engine.check.mistakes.rules.part_rules import PART_RULES
from app.engine.stepwise.point import Hole, Ref, argument_of
from app.engine.stepwise.trace import StepRecord, StepTrace, VjpRule, step_vjp
from app.engine.tensors import is_differentiable
from app.program.errors import tensors_in
from app.program.semantics.graph_values import mapped

Row = Sequence[Tensor | None]


def identity(record: StepRecord, cotangents: Row) -> list[Tensor | None]:
    """The step's derivative taken as 1; its own where one input alone is no number for each output."""
    if len(record.inputs) > 1 and record.inputs[0].shape != record.outputs[0].shape:
        return list(step_vjp(record, cotangents))
    return [cotangents[0], *([None] * (len(record.inputs) - 1))]


def dropped(position: int) -> VjpRule:
    """The step's own rule with one input treated as constant."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        gradients = step_vjp(record, cotangents)
        gradients[position] = None
        return gradients

    return rule


def constant(record: StepRecord, cotangents: Row) -> list[Tensor | None]:
    """The step's result treated as constant."""
    return [None] * len(record.inputs)


def scaled(by: float, position: int | None = None) -> VjpRule:
    """The step's own rule times a number; of one input alone where `position` says which."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        return [
            gradient if gradient is None or (position is not None and position != j) else gradient * by
            for j, gradient in enumerate(step_vjp(record, cotangents))
        ]

    return rule


def scaled_occurrence(trace: StepTrace, number: int, by: float) -> VjpRule:
    """The step's own rule, the share of the place `number` in which it takes a tensor times a number."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        places: list[tuple[Ref, Tensor]] = []

        def own_leaf(hole: Hole) -> Tensor:
            leaf = trace.values[hole.ref].detach()
            places.append((hole.ref, leaf.clone().requires_grad_() if is_differentiable(leaf.dtype) else leaf))
            return places[-1][1]

        args, kwargs = mapped(trace.arguments[record.node], Hole, own_leaf)
        with torch.enable_grad(), trace.point.ready():
            outputs = list(tensors_in(trace.point.call(record.node, args, kwargs, record.state)))
        pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if c is not None and o.requires_grad]
        leaves = [leaf for _, leaf in places if leaf.requires_grad]
        gradients = iter(torch.autograd.grad([o for o, _ in pairs], leaves, [c for _, c in pairs], allow_unused=True))
        shares: dict[Ref, Tensor] = {}
        for place, (ref, leaf) in enumerate(places):
            share = next(gradients) if leaf.requires_grad else None
            if share is not None:
                share = share * by if place == number else share
                shares[ref] = shares[ref] + share if ref in shares else share
        return [shares.get(parent) for parent in record.parents]

    return rule


def unconjugated(record: StepRecord, cotangents: Row) -> list[Tensor | None]:
    """The step's own rule without the conjugate of its derivative."""
    turned = step_vjp(record, [None if c is None else c.conj().resolve_conj() for c in cotangents])
    return [None if gradient is None else gradient.conj().resolve_conj() for gradient in turned]


# Slopes of pointwise steps, of the input x and the output y.
SLOPES: Final[dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]]] = {
    "output": ("is taken as its own output", lambda x, y: y),
    "input": ("is taken as its input", lambda x, y: x),
    "one_minus_output": ("is taken as 1 - y, y its output", lambda x, y: 1 - y),
    "one_plus_square": ("is taken as 1 + y², y its output: the sign of y² is wrong", lambda x, y: 1 + y * y),
    "one_minus_square": ("is taken as 1 - y², the rule of tanh", lambda x, y: 1 - y * y),
    "logistic": ("is taken as y (1 - y), the rule of the logistic function", lambda x, y: y * (1 - y)),
    "one_plus_output": ("is taken as y (1 + y): the sign of y² is wrong", lambda x, y: y * (1 + y)),
    "one_minus_square_of_input": ("is taken as 1 - x², of the input where the output belongs", lambda x, y: 1 - x * x),
    "logistic_of_input": ("is taken as x (1 - x), of the input where the output belongs", lambda x, y: x * (1 - x)),
    "rule_at_output": ("is taken at its output instead of its input", lambda x, y: torch.sigmoid(y) * (1 - torch.sigmoid(y))),
    "tanh_at_output": ("is taken at its output instead of its input", lambda x, y: 1 - torch.tanh(y) ** 2),
    "sine": ("is taken as the sine", lambda x, y: torch.sin(x)),
    "cosine": ("is taken as the cosine, without its sign", lambda x, y: torch.cos(x)),
    "secant": ("is taken as 1 / cos x: the square is missing", lambda x, y: 1 / torch.cos(x)),
    "power_of_e": ("is taken by the power rule, x·eˣ⁻¹", lambda x, y: x * y / torch.e),
    "reciprocal_of_input": ("is taken as 1 / x", lambda x, y: 1 / x),
    "square_of_input": ("is taken as 1 / x²: the sign is wrong", lambda x, y: 1 / (x * x)),
    "half_root": ("is taken as half of the root, where the root divides", lambda x, y: 0.5 * y),
    "reciprocal_root": ("is taken as 1 / y: the factor one half is missing", lambda x, y: 1 / y),
    "step": ("is taken as 1 for positive inputs and 0 for others, the rule of relu", lambda x, y: (x > 0).to(x.dtype)),
    "gate": ("is taken as σ(x): the term x σ'(x) of the product rule is missing", lambda x, y: torch.sigmoid(x)),
    "gaussian_gate": (
        "is taken as Φ(x): the term x φ(x) of the product rule is missing", lambda x, y: torch.special.ndtr(x),
    ),
    "one_minus_gate": ("is taken as 1 - σ(x)", lambda x, y: 1 - torch.sigmoid(x)),
    "gaussian": ("is taken as e^(-x²): the factor 2/√π is missing", lambda x, y: torch.exp(-x * x)),
    "negative_half": ("is taken as -y / 2, y its output: the exponent is not lowered", lambda x, y: -0.5 * y),
    "without_root": ("is taken as 1 / (1 - x²): the root is missing", lambda x, y: 1 / (1 - x * x)),
    "numerator": ("is taken as y, its output: the sum that it divides by depends on every input too", lambda x, y: y),
    "root_of_one_plus": ("is taken as 1/√(1 + x²)", lambda x, y: 1 / torch.sqrt(1 + x * x)),
    "reciprocal_of_one_minus": ("is taken as 1 / (1 - x)", lambda x, y: 1 / (1 - x)),
    "reciprocal_of_one_minus_square": ("is taken as 1 / (1 - x²)", lambda x, y: 1 / (1 - x * x)),
    "secant_squared": ("is taken as 1 / cos² x, the rule of tan", lambda x, y: torch.cos(x) ** -2),
    "reciprocals_apart": ("is taken as 1/x - 1/(1 - x), where the sum belongs", lambda x, y: 1 / x - 1 / (1 - x)),
    "logistic_slope": ("is taken as σ(x) (1 - σ(x)), that of the logistic function", lambda x, y: _logistic(torch.sigmoid(x))),
    "exponential": ("is taken as eˣ", lambda x, y: torch.exp(x)),
    "logarithm": ("is taken as ln x", lambda x, y: torch.log(x)),
    "gamma": ("is taken as Γ(x), where the digamma function belongs", lambda x, y: torch.exp(y)),
    "trigamma": ("is taken as the trigamma function, its second derivative", lambda x, y: torch.polygamma(1, x)),
    "digamma_of_next": ("is taken as ψ(x + 1), where ψ(x) belongs", lambda x, y: torch.digamma(x + 1)),
    "gate_constant": ("is taken as x σ'(x): the term σ(x) of the product rule is missing", lambda x, y: x * _logistic(torch.sigmoid(x))),
    "gate_and_output": ("is taken as y + σ(x): the output has the factor 1 - σ(x) there", lambda x, y: y + torch.sigmoid(x)),
    "gate_of_output": ("is taken as σ(x) + y (1 - y): 1 - σ(x) belongs there", lambda x, y: torch.sigmoid(x) + _logistic(y)),
    "gaussian_gate_constant": ("is taken as x φ(x): the term Φ(x) of the product rule is missing", lambda x, y: x * _normal(x)),
    "gaussian_without_input": ("is taken as Φ(x) + φ(x): φ(x) has the factor x", lambda x, y: torch.special.ndtr(x) + _normal(x)),
    "gaussian_unscaled": (
        "is taken as Φ(x) + x e^(-x²/2): the factor 1/√(2π) is missing",
        lambda x, y: torch.special.ndtr(x) + x * torch.exp(-x * x / 2),
    ),
    "normal_density": ("is taken as φ(x), the normal density", lambda x, y: _normal(x)),
    "half_exponent": ("is taken as 2/√π e^(-x²/2): the exponent is -x²", lambda x, y: 2 * math.sqrt(2) * _normal(x)),
    "softplus_gate": ("is taken as tanh(softplus(x)): a term of the product rule is missing", lambda x, y: _mish_gate(x)),
    "softplus_gate_alone": (
        "is taken without σ(x), the derivative of the softplus inside",
        lambda x, y: _mish_gate(x) + x * (1 - _mish_gate(x) ** 2),
    ),
    "secant_of_output": ("is taken as 1 / cosh x: the square is missing", lambda x, y: 1 / torch.cosh(x)),
    "gate_and_slope": ("is taken as σ(x) + σ'(x): σ'(x) has the factor x", lambda x, y: torch.sigmoid(x) + _logistic(torch.sigmoid(x))),
    "gaussian_gate_unscaled": (
        "is taken with erf(x) where erf(x/√2) belongs", lambda x, y: (1 + torch.erf(x)) / 2 + x * _normal(x),
    ),
    "output_below_zero": ("is taken as its output below zero", lambda x, y: torch.where(x > 0, 1.0, y)),
}  # fmt: skip


def _logistic(s: Tensor) -> Tensor:
    return s * (1 - s)


def _normal(x: Tensor) -> Tensor:
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _mish_gate(x: Tensor) -> Tensor:
    return torch.tanh(functional.softplus(x))


def slope(name: str) -> VjpRule:
    """The rule of a pointwise step whose derivative is taken as one of `SLOPES`."""
    function = SLOPES[name][1]
    return lambda record, cotangents: first(
        record, cotangents[0], function(record.inputs[0].detach(), record.outputs[0].detach())
    )


def transposed_product(record: StepRecord, cotangents: Row) -> Row:
    """G·B and A·G where G·Bᵗ and Aᵗ·G belong, where the shapes allow it."""
    (cotangent,) = cotangents
    gradients = list(step_vjp(record, cotangents))
    if cotangent is None or len(record.inputs) != 2 or not _is_plain_product(record.node):
        return gradients
    a, b = (tensor.detach() for tensor in record.inputs)
    if a.ndim > 1 and b.ndim > 1:
        candidates = [
            cotangent @ b if cotangent.shape[-1] == b.shape[-2] else None,
            a @ cotangent if a.shape[-1] == cotangent.shape[-2] else None,
        ]
    elif a.ndim > 1:
        candidates = [None, a @ cotangent if a.shape[-1] == cotangent.shape[-1] else None]
    else:
        candidates = [cotangent @ b if b.ndim > 1 and cotangent.shape[-1] == b.shape[-2] else None, None]
    for j, candidate in enumerate(candidates):
        if candidate is not None and gradients[j] is not None and candidate.shape == record.inputs[j].shape:
            gradients[j] = candidate
    return gradients


def _is_plain_product(node: fx.Node) -> bool:
    """Whether a sum of products that is written with letters is A·B, of matrices or of batches of them; any other product is."""
    if not isinstance(node.args[0], str):
        return True
    words = re.fullmatch(r"(\w*)(\w)(\w),(\w*)(\w)(\w)->(\w*)(\w)(\w)", node.args[0].replace(" ", ""))
    if words is None:
        return False
    many, i, j, also, k, m, and_so, n, o = words.groups()
    return many == also == and_so and (j, i, m) == (k, n, o)


def transposed_gradient(record: StepRecord, cotangents: Row) -> Row:
    """The rule of a product with the transpose of the gradient that comes to it, where that is square."""
    (cotangent,) = cotangents
    is_square = cotangent is not None and cotangent.ndim > 1 and cotangent.shape[-1] == cotangent.shape[-2]
    return step_vjp(record, [cotangent.mT] if cotangent is not None and is_square else cotangents)


def untransposed_inverse(record: StepRecord, cotangents: Row) -> Row:
    """A⁻¹ where its transpose belongs, of an inverse or of the solution of a system."""
    (cotangent,) = cotangents
    a, output = record.inputs[0].detach(), record.outputs[0].detach()
    if cotangent is None or a.shape[-1] != a.shape[-2] or a.is_complex():
        return step_vjp(record, cotangents)
    if len(record.inputs) == 1:
        return [-(output @ cotangent @ output)]
    by = torch.linalg.solve(a, cotangent)
    return [-(by.unsqueeze(-1) * output.unsqueeze(-2) if by.ndim == 1 else by @ output.mT), by]


def untransposed_attention(record: StepRecord, cotangents: Row) -> Row:
    """P·G where Pᵗ·G belongs, of the values that an attention P weighs."""
    gradients, cotangent = list(step_vjp(record, cotangents)), cotangents[0]
    arguments = [*record.node.args, *record.node.kwargs.values()]
    if cotangent is None or sum(isinstance(a, fx.Node) for a in arguments) != len(record.inputs) or len(gradients) < 3:
        return gradients
    tensors = iter([*record.inputs[:2], torch.eye(record.inputs[2].shape[-2]).to(record.inputs[2]), *record.inputs[3:]])
    args: list[Any] = [next(tensors) if isinstance(a, fx.Node) else a for a in record.node.args]
    kwargs: dict[str, Any] = {key: next(tensors) if isinstance(a, fx.Node) else a for key, a in record.node.kwargs.items()}
    args[2] = args[2].expand(*record.inputs[2].shape[:-1], -1)
    p = functional.scaled_dot_product_attention(*args, **kwargs).detach()
    if gradients[2] is not None and p.shape[-1] == p.shape[-2]:
        gradients[2] = p @ cotangent
    return gradients


def inverted(record: StepRecord, cotangents: Row) -> Row:
    """1 where the derivative is 0, and 0 where it is 1."""
    gradients, cotangent = list(step_vjp(record, cotangents)), cotangents[0]
    if gradients[0] is not None and cotangent is not None:
        gradients[0] = cotangent - gradients[0]
    return gradients


def without_mask(record: StepRecord, cotangents: Row) -> list[Tensor | None]:
    """Dropout's derivative without its mask."""
    return identity(record, cotangents)


def without_mask_scaled(record: StepRecord, cotangents: Row) -> Row:
    """The same with the factor 1/(1 - p) kept."""
    p = float(argument_of(record.node, "p", 0.5))
    return [cotangents[0] / (1 - p) if cotangents[0] is not None and p < 1 else None, *([None] * (len(record.inputs) - 1))]


def unsquared_divisor(record: StepRecord, cotangents: Row) -> Row:
    """The quotient rule with the divisor where its square belongs."""
    gradients = list(step_vjp(record, cotangents))
    if len(gradients) > 1 and gradients[1] is not None:
        gradients[1] = gradients[1] * record.inputs[1].detach()
    return gradients


def factor_alone(record: StepRecord, cotangents: Row) -> Row:
    """1 where the other factor of a product belongs."""
    cotangent = cotangents[0]
    if cotangent is None or len(record.inputs) != 2:
        return step_vjp(record, cotangents)
    return [cotangent.sum_to_size(x.shape) if cotangent.ndim else cotangent.expand(x.shape) for x in record.inputs]


def product_of_elements(record: StepRecord, cotangents: Row) -> Row:
    """G times the other factor element by element, where a product of matrices belongs."""
    cotangent = cotangents[0]
    if cotangent is None or len(record.inputs) != 2:
        return step_vjp(record, cotangents)
    pairs = zip(record.inputs, reversed(record.inputs), step_vjp(record, cotangents), strict=True)
    fits = all(own.shape == other.shape == cotangent.shape for own, other, _ in pairs)
    return [cotangent * other.detach() for other in reversed(record.inputs)] if fits else step_vjp(record, cotangents)


def by_power_rule(record: StepRecord, cotangents: Row) -> Row:
    """x·aˣ⁻¹ where aˣ·ln a belongs, of a plain number a."""
    base, cotangent = record.node.args[0], cotangents[0]
    if cotangent is None or not isinstance(base, int | float) or not base or len(record.inputs) != 1:
        return step_vjp(record, cotangents)
    return [cotangent * record.inputs[0].detach() * record.outputs[0].detach() / base]


def exponent_off(by: int) -> VjpRule:
    """n·xⁿ⁻¹ with an exponent that is larger by some: not lowered, or raised."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        gradients = list(step_vjp(record, cotangents))
        if gradients[0] is not None:
            gradients[0] = gradients[0] * record.inputs[0].detach() ** by
        return gradients

    return rule


def as_if_commuting(is_left: bool) -> VjpRule:
    """exp(A)ᵗ·G or G·exp(A)ᵗ of an exponential of a matrix, as if A and its change commuted."""

    def rule(record: StepRecord, cotangents: Row) -> Row:
        y, cotangent = record.outputs[0].detach().mH, cotangents[0]
        return [None if cotangent is None else y @ cotangent if is_left else cotangent @ y]

    return rule


# Rule → its code, what it is to a person, and the rule; slopes are in `SLOPES`.
RULES: Final[dict[str, tuple[str, str, VjpRule]]] = {
    **AXIS_RULES,
    **LOSS_RULES,
    **PART_RULES,
    "transposed_product": (
        "transposed_product",
        "A factor of the product `{op}` should be transposed in its derivative{at}: by A, A·B takes Bᵗ; by B, it takes Aᵗ.",
        transposed_product,
    ),
    "transposed_gradient": (
        "transposed_product",
        "The gradient that comes to the product `{op}` is transposed in its derivative{at}.",
        transposed_gradient,
    ),
    "untransposed_inverse": (
        "transposed_product",
        "The inverse should be transposed in the derivative of `{op}`{at}: A⁻ᵗ·G, where A⁻¹·G was taken.",
        untransposed_inverse,
    ),
    "untransposed_attention": (
        "transposed_product",
        "The attention P should be transposed in the derivative of `{op}` by its values{at}: Pᵗ·G, where P·G was taken.",
        untransposed_attention,
    ),
    "inverted": (
        "wrong_rule",
        "The derivative of `{op}` is 1 where it is 0, and 0 where it is 1{at}: inside the bounds it is 1.",
        inverted,
    ),
    "without_mask": (
        "dropout_mask",
        "The mask of `{op}` is missing from its derivative{at}: what was dropped passes none, the rest 1/(1 - p).",
        without_mask,
    ),
    "without_mask_scaled": (
        "dropout_mask",
        "The mask of `{op}` is missing from its derivative{at}: what was dropped passes no gradient.",
        without_mask_scaled,
    ),
    "unsquared_divisor": ("quotient_rule", "The divisor of `{op}` is not squared in the quotient rule{at}.", unsquared_divisor),
    "factor_alone": (
        "missing_factor",
        "A factor is missing{at}: the derivative of a product by one factor is the other.",
        factor_alone,
    ),
    "product_of_elements": (
        "wrong_rule",
        "The derivative of the product `{op}` is taken element by element{at}: by A it is G·Bᵗ, by B it is Aᵗ·G.",
        product_of_elements,
    ),
    "commuting_left": (
        "wrong_rule",
        "The derivative of `{op}` is taken as exp(A)ᵗ·G{at}, as if the matrix and its change commuted.",
        as_if_commuting(is_left=True),
    ),
    "commuting_right": (
        "wrong_rule",
        "The derivative of `{op}` is taken as G·exp(A)ᵗ{at}, as if the matrix and its change commuted.",
        as_if_commuting(is_left=False),
    ),
    "by_power_rule": (
        "wrong_rule",
        "The derivative of `{op}` by its exponent is taken by the power rule, x·aˣ⁻¹{at}: it is aˣ·ln a.",
        by_power_rule,
    ),
    "exponent_raised": ("wrong_rule", "The exponent of `{op}` is raised by one where it is lowered{at}.", exponent_off(2)),
    "exponent_not_lowered": ("wrong_rule", "The exponent of `{op}` is not lowered by one{at}.", exponent_off(1)),
}
