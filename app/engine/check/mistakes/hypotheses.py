"""The probable mistake in a derivation: a table of hypotheses, each claimed only where applying it makes the two derivatives agree.

Nothing is claimed of a derivative that is zero, or of one element where several explanations would do: a false claim is worse than none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.catalogue.facts import operations_with
from app.engine.check.mistakes.scale_factors import Factor, factors_of
from app.engine.check.mistakes.wrong_rules import dropped, identity, softmax_diagonal
from app.engine.check.objective import Differentiated, Objective
from app.engine.stepwise.point import name_of, step_of
from app.engine.stepwise.trace import StepTrace, VjpRule, trace_steps

_AXES: Final = 4  # permutations of more axes are not tried
_ROWS: Final = 64  # a Jacobian of more rows is not differentiated again under a hypothesis
_STEPS: Final = 64  # nor a longer program


@dataclass(frozen=True, slots=True)
class Claim:
    """A mistake: its code, a sentence for a person, and the factor where there is one."""

    code: str
    message: str
    factor: float | None = None

    def told(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message} | ({} if self.factor is None else {"factor": self.factor})


@dataclass(frozen=True)
class Case:
    """Two derivatives that differ.

    Attributes:
        name: the input.
        ours, expected: shape [lead…, input…], and whatever was sent; float64 or complex128.
        relative: what two equal derivatives may differ by, relative to the largest element.
        objective: of which they are.
    """

    name: str
    ours: Tensor
    expected: Tensor
    relative: float
    objective: Differentiated
    seed: int | None = None
    _known: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def trace(self) -> StepTrace:
        point = self.objective.point
        return trace_steps(point)

    @cached_property
    def factors(self) -> list[Factor]:
        return factors_of(self.trace, self.name)

    def same(self, a: Tensor, b: Tensor) -> bool:
        """Equal within the tolerance, and not because both are zero."""
        if a.shape != b.shape or not a.numel():
            return False
        scale = float(a.abs().max())
        return 0 < scale < float("inf") and bool(((a - b).abs() <= self.relative * scale).all())

    def factor(self, a: Tensor, b: Tensor) -> float | None:
        """The number c ≠ 1 with b = c · a, where there is one."""
        if a.shape != b.shape or not a.numel() or not bool(torch.isfinite(a).all() & torch.isfinite(b).all()):
            return None
        square = float((a * a.conj()).real.sum())
        if square == 0:
            return None
        c = float((a.conj() * b).real.sum()) / square
        return c if c != 0 and abs(c - 1) > 10 * self.relative and self.same(c * a, b) else None

    def elements(self, tensor: Tensor) -> int:
        """How many of its elements count: with one, every number is a factor."""
        size = tensor.abs()
        return int((size > 1e-3 * size.max()).sum()) if size.numel() else 0

    def under(self, override: Mapping[fx.Node, VjpRule]) -> Tensor | None:
        """The derivative where some steps pull back by another rule; None where that is not to be had."""
        objective, trace = self.objective, self.trace
        if (
            not isinstance(objective, Objective)
            or len(objective.rows) > _ROWS
            or objective.combined
            or len(trace.records) > _STEPS
        ):
            return None
        where = dict(zip(objective.point.function.outputs, trace.outputs, strict=True))
        leaf, rows = trace.leaves[self.name], []
        for row in objective.rows:
            derivative = trace.backward({where[name]: cotangent for name, cotangent in row.items()}, override).get(leaf)
            rows.append(torch.zeros_like(trace.values[leaf]) if derivative is None else derivative.detach())
        stacked = torch.stack(rows).reshape(self.ours.shape)
        return stacked.conj().resolve_conj() if objective.conjugate and stacked.is_complex() else stacked


def explanations(case: Case) -> list[dict[str, Any]]:
    """All hypotheses of the table that make the two agree, as JSON, the likeliest first."""
    if not bool(torch.isfinite(case.expected).all() & torch.isfinite(case.ours).all()) or not case.expected.numel():
        return []
    claims = [claim for hypothesis in HYPOTHESES if (claim := hypothesis(case)) is not None]
    return [claim.told() for claim in claims]


# Factors.


def _sign(case: Case) -> Claim | None:
    if not case.same(-case.ours, case.expected):
        return None
    return Claim("sign", "Yours has the opposite sign: it is ours times -1.", -1.0)


def _known_factor(case: Case) -> Claim | None:
    c = case.factor(case.ours, case.expected)
    if c is None:
        return None
    known = _explained(case, c)
    if known is None or (case.elements(case.ours) < 2 and known.weak):
        return None
    return Claim("constant_factor", f"Yours is {_times(c)} ours{_and_sign(c)}, {known.meaning}.", c)


def _any_factor(case: Case) -> Claim | None:
    c = case.factor(case.ours, case.expected)
    if c is None or case.elements(case.ours) < (2 if case.relative < 1e-5 else 3):
        return None
    return Claim("constant_factor", f"Yours is {_times(c)} ours{_and_sign(c)}, everywhere.", c)


def _explained(case: Case, c: float) -> Factor | None:
    return next((f for f in case.factors if abs(abs(c) - f.value) <= 4 * case.relative * f.value), None)


def _times(c: float) -> str:
    c = abs(c)
    if abs(c - 0.5) < 1e-9:
        return "half of"
    if c < 1 and abs(1 / c - round(1 / c)) < 1e-6 / c:
        return f"1/{round(1 / c)} of"
    return f"{float(f'{c:.6g}'):g} times"


def _and_sign(c: float) -> str:
    return " with the opposite sign" if c < 0 else ""


# Axes.


def _shape(case: Case) -> Claim | None:
    ours, expected = case.ours, case.expected
    if ours.shape == expected.shape or ours.numel() != expected.numel() or not case.same(ours, expected.reshape(ours.shape)):
        return None
    return Claim("shape", f"The values are right, the shape is not: ours is {list(ours.shape)}, yours {list(expected.shape)}.")


def _transposed(case: Case) -> Iterator[tuple[Tensor, str]]:
    """Ours with its axes in another order; flat where expected is flat in column-major order."""
    axes = range(case.ours.ndim)
    if case.ours.ndim < 2 or case.ours.ndim > _AXES:
        return
    for order in itertools.permutations(axes):
        turned = case.ours.permute(order)
        if order != tuple(axes) and turned.shape == case.expected.shape and not case.same(case.ours, turned):
            name = "the transpose of ours" if case.ours.ndim == 2 else f"ours with its axes in the order {list(order)}"
            yield turned, f"Yours is {name}"
    flat = case.ours.permute(*reversed(axes)).reshape(-1)
    if case.expected.shape == flat.shape:
        yield flat, "Yours is ours read column by column"


def _transpose(case: Case) -> Claim | None:
    return next(
        (Claim("transpose", f"{text}.") for turned, text in _transposed(case) if case.same(turned, case.expected)), None
    )


def _missing_sum(case: Case) -> Claim | None:
    """Theirs has an axis more; summed over it, it is ours."""
    for axis, summed in _sums(case.expected, case.ours.shape):
        if case.same(case.ours, summed):
            what = "the batch axis" if axis == 0 else f"axis {axis}"
            size = case.expected.shape[axis]
            return Claim(
                "missing_batch_sum",
                f"A sum over {what} (size {size}) is missing: summed over it, yours is ours. `{case.name}` is shared along that axis, "
                "so its derivative is the sum over it.",
            )
    return None


def _extra_sum(case: Case) -> Claim | None:
    """Theirs is ours summed over an axis that should have stayed, perhaps spread over it again."""
    for axis in range(case.ours.ndim):
        if case.ours.shape[axis] < 2:
            continue
        summed = case.ours.sum(axis, keepdim=True)
        for wanted in (summed.squeeze(axis), summed, summed.expand(case.ours.shape)):
            if case.same(wanted, case.expected) and not case.same(case.ours, wanted):
                what = "the batch axis" if axis == 0 else f"axis {axis}"
                return Claim(
                    "extra_batch_sum",
                    f"A sum over {what} (size {case.ours.shape[axis]}) too many: yours is ours summed over it.",
                )
    return None


def _sums(tensor: Tensor, shape: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    for axis in range(tensor.ndim):
        if tensor.shape[axis] < 2:
            continue
        for summed in (tensor.sum(axis), tensor.sum(axis, keepdim=True)):
            if summed.shape == tuple(shape):
                yield axis, summed


def _with_factor(case: Case) -> Claim | None:
    """A transpose or a missing sum, and a known factor besides."""
    turned = [("transpose", text, t, case.expected) for t, text in _transposed(case)]
    sums = [
        ("missing_batch_sum", f"Summed over axis {axis}, yours is", case.ours, summed)
        for axis, summed in _sums(case.expected, case.ours.shape)
    ]
    if case.expected.shape != case.ours.shape and case.expected.numel() == case.ours.numel():
        turned.append(("shape", "In our shape, yours is", case.ours, case.expected.reshape(case.ours.shape)))
    for code, text, a, b in (*turned, *sums):
        c = case.factor(a, b)
        if c is None or case.elements(a) < 3:
            continue
        if abs(c + 1) <= 4 * case.relative:
            return Claim(code, f"{text}{' ours' if code != 'transpose' else ''} with the opposite sign.", -1.0)
        known = _explained(case, c)
        if known is not None:
            joined = f"{text}, times {c:.6g}" if code == "transpose" else f"{text} {_times(c)} ours{_and_sign(c)}"
            return Claim(code, f"{joined}, {known.meaning}.", c)
    return None


def _conjugate(case: Case) -> Claim | None:
    ours, expected = case.ours, case.expected
    if not ours.is_complex() or not expected.is_complex() or ours.shape != expected.shape:
        return None
    turned = ours.conj().resolve_conj()
    if case.same(ours, turned):
        return None
    convention = "PyTorch's gradient is the conjugate Wirtinger derivative, 2 ∂L/∂z̄ of a real L."
    for c, text in (
        (1.0, "is the conjugate of ours"),
        (0.5, "is half the conjugate of ours, ∂L/∂z"),
        (2.0, "is twice the conjugate of ours"),
    ):
        if case.same(c * turned, expected):
            return Claim("conjugate", f"Yours {text}: {convention}", None if c == 1 else c)
    return None


# What is left out of the chain rule.


def _softmax(case: Case) -> Claim | None:
    rules = {record.node: rule for record in case.trace.records if (rule := softmax_diagonal(record)) is not None}
    for chosen in (*({node: rule} for node, rule in rules.items()), rules):
        if chosen and _agrees(case, chosen):
            return Claim(
                "softmax_diagonal",
                f"Only the diagonal of softmax's Jacobian is used{_place(next(iter(chosen)))}: every output depends on every input, "
                "∂yᵢ/∂xⱼ = yᵢ (δᵢⱼ - yⱼ), so the terms with i ≠ j are missing.",
            )
    return None


def _activation(case: Case) -> Claim | None:
    for record in case.trace.records:
        if name_of(record.node) in operations_with("wrong_rules", "identity") and _agrees(case, {record.node: identity}):
            return Claim(
                "missing_activation_derivative",
                f"The derivative of `{_operation(record.node)}` itself is missing{_place(record.node)}: the chain rule multiplies by it there.",
            )
    return None


def _term(case: Case) -> Claim | None:
    """One of the paths from the input to the output is treated as constant."""
    for record in case.trace.records:
        for j, parent in enumerate(record.parents):
            others = any(case.name in case.trace.live[p] for k, p in enumerate(record.parents) if k != j)
            again = sum(parent in other.parents for other in case.trace.records) > 1
            if case.name in case.trace.live[parent] and (others or again) and _agrees(case, {record.node: dropped(j)}):
                what = (
                    f"one argument of `{_operation(record.node)}`"
                    if len(record.parents) > 1
                    else f"`{_operation(record.node)}`"
                )
                return Claim(
                    "missing_term",
                    f"A term is missing: yours is ours with {what} treated as constant{_place(record.node)}, although it depends on "
                    f"`{case.name}` too.",
                )
    return None


def _agrees(case: Case, override: Mapping[fx.Node, VjpRule]) -> bool:
    changed = case.under(override)
    return changed is not None and case.same(changed, case.expected) and not case.same(case.ours, changed)


def _operation(node: fx.Node) -> str:
    step = step_of(node)
    return name_of(node) if step is None else step.operation


def _place(node: fx.Node) -> str:
    step = step_of(node)
    return "" if step is None else f" (line {step.line}, `{step.text}`)"


# In the order of simplicity: the first that fits is claimed.
HYPOTHESES: Final[tuple[Callable[[Case], Claim | None], ...]] = (
    _sign, _known_factor, _shape, _transpose, _missing_sum, _extra_sum, _conjugate, _softmax, _activation, _term, _any_factor, _with_factor,
)  # fmt: skip
