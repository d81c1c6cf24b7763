"""One thing found out about an input or an output, and the words for the place where it happened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, fx

from app.catalogue.facts import instead, operations_with, sentence, values
from app.engine.explain.expression_text import expression
from app.engine.explain.suggestions import suggestion
from app.engine.stepwise.one_sided import perturbed
from app.engine.stepwise.point import Hole, Ref, name_of, step_of
from app.engine.stepwise.trace import StepRecord, StepTrace

# Gravest first. A piecewise constant path has no derivative that could be singular; a kink is harmless beside an infinite derivative.
ORDER: Final = ("disconnected", "not_differentiable", "piecewise_constant", "singular", "kink", "differentiable")


_DISCRETE: Final = ("integer", "boolean", "flat")
_BREAKING: Final = ("singular", "value", "unselected")
_OUTSIDE: Final = ("singular", "value")  # a small number beside zero heals these, but not where the argument is negative


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One thing found out about an input or an output.

    Attributes:
        node: the step that is the cause; None where there is none.
        mask: the elements concerned; None where all are, or none in particular.
        subgradient: the gradient that PyTorch takes, of the input's shape; only of kinks.
        derivative: that of the function itself, where PyTorch's is another; of the input's shape.
    """

    verdict: str
    reason: str
    node: fx.Node | None = None
    instead: str | None = None
    mask: Tensor | None = None
    subgradient: Tensor | None = None
    derivative: Tensor | None = None


def operation_of(node: fx.Node) -> str:
    step = step_of(node)
    return name_of(node) if step is None else step.operation


def at_step(
    trace: StepTrace,
    record: StepRecord | None,
    verdict: str,
    reason: str,
    what: str,
    name: str = "x",
    mask: Tensor | None = None,
    subgradient: Tensor | None = None,
) -> Finding:
    """The finding at a step, with the way out for `what` happened there."""
    if record is None:
        return Finding(verdict, reason, mask=mask, subgradient=subgradient)
    return Finding(verdict, reason, record.node, instead_of(trace, record, what, name), mask, subgradient)


def instead_of(trace: StepTrace, record: StepRecord, what: str, name: str = "x", parent: Ref | None = None) -> str | None:
    """The way out for `what` happened at a step, with the program's own names and the step's own arguments in it."""
    parent = breaking(trace, record) or parent if what in _BREAKING else parent
    if parent is None:
        candidates = [p for p in record.parents if name in trace.depends[p]] or [p for p in record.parents if trace.depends[p]]
        parent = candidates[0] if candidates else None
    function = name_of(record.node)
    if parent is not None and what in _DISCRETE and (firm := _firm(trace, parent, name)) != parent:
        if function == "to":  # a rounding has made it whole already, and is what the advice has to be for
            call = expression(trace, parent, {firm: expression(trace, firm) or "x"})
            return suggestion("flat", name_of(parent[0]), x=expression(trace, firm) or "x", call=call)
        parent = firm
    if what in _OUTSIDE and parent is not None and _is_negative(trace.values[parent]):
        what = "negative"
    x = "x" if parent is None else expression(trace, parent) or "x"
    if parent is None:
        return suggestion(what, function, x=x)
    call = expression(trace, (record.node, 0), {parent: x})
    safe_call = expression(trace, (record.node, 0), {parent: "safe"})
    dims = _dims(record)
    what = _of_kink(trace, record, parent, dims) if what == "kink" else what
    return suggestion(
        what,
        function,
        x=x,
        dim=dims if isinstance(dims, int) else None,
        call=call,
        safe_call=safe_call,
        condition=_harmless(trace.values[parent], x, function),
        dims=str(_axes(trace.values[parent]) if dims is None else dims),
    )


def breaking(trace: StepTrace, record: StepRecord) -> Ref | None:
    """The tensor whose values make a step's value or derivative infinite, by whichever that is; None where any may."""
    number = values("breaks_at").get(name_of(record.node))
    args = trace.arguments[record.node][0]
    operand = args[number] if number is not None and len(args) > number else None
    return operand.ref if isinstance(operand, Hole) else None


def _axes(x: Tensor) -> int | tuple[int, ...]:
    """All of them, as an argument."""
    return tuple(range(x.ndim)) if x.ndim > 1 else -1


def _dims(record: StepRecord) -> int | tuple[int, ...] | None:
    """The axes that a step is given by name, or in the second place; None where it is given none."""
    second = record.node.args[1:2] if name_of(record.node) in operations_with("second_argument", "dim") else ()
    for axes in (record.node.kwargs.get("dim"), *second):
        if isinstance(axes, int) and not isinstance(axes, bool):
            return axes
        if isinstance(axes, tuple | list) and all(isinstance(axis, int) for axis in axes):
            return tuple(axes)
    return None


def _of_kink(trace: StepTrace, record: StepRecord, parent: Ref, dims: int | tuple[int, ...] | None) -> str:
    """What a bend's way out is for: one of complex numbers, of two tensors, or of a norm, is another."""
    x = trace.values[parent].detach()
    if x.is_complex():
        return "modulus"
    if len(record.parents) > 1:
        return "kink_of_two"
    if instead("kink", name_of(record.node)) == sentence("norm_margin"):
        beside = perturbed(x, 1.0, 0)  # at zero, and of a single number, all norms are one
        result = trace.again(record, [beside])[0].reshape(-1)
        for kind, order in (("kink", 2), ("norm_of_sizes", 1)):
            norm = torch.linalg.vector_norm(beside, order, dims).reshape(-1)
            if norm.shape == result.shape and torch.allclose(norm, result):
                return kind
        return "other_norm"
    return "kink"


def _harmless(x: Tensor, name: str, function: str) -> str:
    """Where the argument of a step that breaks is harmless, as an expression."""
    if x.is_complex() or not bool((x <= 0).any()):
        return "condition"
    return f"{name} > 0" if bool((x < 0).any()) or instead("negative", function) else f"{name} != 0"


def _is_negative(value: Tensor) -> bool:
    return value.is_floating_point() and bool((value < 0).any())


def _firm(trace: StepTrace, ref: Ref, name: str) -> Ref:
    """The nearest tensor before `ref` by which the input moves it: what stands behind a step that is flat is no way out."""
    maker = trace.maker
    while name in trace.live[ref] and name not in trace.firm[ref]:
        ref = next(parent for parent in maker[ref].parents if name in trace.live[parent])
    return ref


def shown(value: Tensor, mask: Tensor) -> str:
    """The first value under the mask, for a sentence: in so many digits that 1.0000000000000002 is not taken for 1."""
    if value.shape != mask.shape or not bool(mask.any()):
        return ""
    number = value[mask][0].item()
    if value.is_complex() or not math.isfinite(number):
        return str(number)
    short = f"{number:.6g}"
    return short if not float(short).is_integer() or float(short) == number else repr(number)


def called_step(node: fx.Node | None) -> str:
    """`Line 3, `y = sqrt(x)`: `, to begin a sentence with; nothing where there is no step."""
    step = None if node is None else step_of(node)
    return "" if step is None else f"Line {step.line}, `{step.text}`: "
