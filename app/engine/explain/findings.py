"""One thing found out about an input or an output, and the words for the place where it happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor, fx

from app.catalogue.facts import operations_with
from app.engine.explain.expression_text import expression
from app.engine.explain.suggestions import suggestion
from app.engine.stepwise.point import Ref, name_of, step_of
from app.engine.stepwise.trace import StepRecord, StepTrace

# Gravest first. A piecewise constant path has no derivative that could be singular; a kink is harmless beside an infinite derivative.
ORDER: Final = ("disconnected", "not_differentiable", "piecewise_constant", "singular", "kink", "differentiable")


_DISCRETE: Final = ("integer", "boolean", "flat")
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
    call = safe_call = None
    if parent is not None:
        call = expression(trace, (record.node, 0), {parent: x})
        safe_call = expression(trace, (record.node, 0), {parent: "safe"})
    second = record.node.args[1:2] if name_of(record.node) in operations_with("second_argument", "dim") else ()
    dims = [a for a in (record.node.kwargs.get("dim"), *second) if isinstance(a, int) and not isinstance(a, bool)]
    return suggestion(what, function, x=x, dim=dims[0] if dims else None, call=call, safe_call=safe_call)


def _is_negative(value: Tensor) -> bool:
    return value.is_floating_point() and bool((value < 0).any())


def _firm(trace: StepTrace, ref: Ref, name: str) -> Ref:
    """The nearest tensor before `ref` by which the input moves it: what stands behind a step that is flat is no way out."""
    maker = trace.maker
    while name in trace.live[ref] and name not in trace.firm[ref]:
        ref = next(parent for parent in maker[ref].parents if name in trace.live[parent])
    return ref


def shown(value: Tensor, mask: Tensor) -> str:
    """The first value under the mask, for a sentence."""
    if value.shape != mask.shape or not bool(mask.any()):
        return ""
    return f"{value[mask][0].item():.6g}" if not value.is_complex() else str(value[mask][0].item())


def called_step(node: fx.Node | None) -> str:
    """`Line 3, `y = sqrt(x)`: `, to begin a sentence with; nothing where there is no step."""
    step = None if node is None else step_of(node)
    return "" if step is None else f"Line {step.line}, `{step.text}`: "
