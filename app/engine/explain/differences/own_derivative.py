"""The derivative of the function itself, by differences, where PyTorch's is not finite or another."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from app.catalogue.facts import operations_with
from app.engine.explain.differences.lines import ONE_ELEMENT, Lines, Seen
from app.engine.explain.findings import Finding
from app.engine.stepwise.point import all_finite, name_of
from app.engine.stepwise.quotients import OneSided, Sides

_LOOKED_AT: Final = (
    3  # elements: two differ in what they do where a length or an angle breaks, and a third costs no more than they
)


def with_own_derivative(lines: Lines, name: str, finding: Finding) -> Finding:
    """A finding of an infinite or NaN derivative, with that of the function itself where it has one."""
    leaf = lines.evidence.trace.point.leaves[name]
    gradient = lines.gradient(name)
    values = lines.evidence.trace.values
    if (
        finding.verdict != "singular"
        # Single vectors are what the factorisation makes of them: their differences say nothing of a function.
        or (finding.node is not None and name_of(finding.node) in operations_with("phase"))
        or gradient is None
        or leaf.is_complex()
        or not all_finite([values[r] for r in lines.refs])
    ):
        return finding
    broken = (~torch.isfinite(gradient) & torch.isfinite(leaf)).reshape(-1)
    if finding.mask is not None:
        broken &= finding.mask.reshape(-1)
    own = Lines(lines.evidence, lines.refs, ones=True)
    settled: dict[int, Sides] = {}
    for index in broken.nonzero().reshape(-1).tolist()[:_LOOKED_AT]:
        seen = own.element(name, index)
        if seen.sides is None or not seen.sides.settled:
            break
        if not all(math.isfinite(side.value / seen.unit) for side in (seen.sides.left, seen.sides.right)):
            break  # it overflows: only the number is infinite
        settled[index] = seen.sides.per(seen.unit)
    if not settled:
        return finding
    # One along which the whole has no derivative says more: an angle does not change as a vector grows.
    index = next((k for k, sides in settled.items() if not sides.differentiable), next(iter(settled)))
    where = f"element {element_of(leaf, index)}" if leaf.ndim else "this point"
    words = f"The function itself is finite and continuous at {where}, and {_course(settled[index])}."
    return replace(finding, reason=f"{finding.reason} {words}")


def own_derivatives(lines: Lines, name: str, seen: dict[int, Seen]) -> Tensor:
    """The derivative of the sum of all outputs as differences give it, of the input's shape; NaN where they do not settle."""
    evidence = lines.evidence
    trace = evidence.trace
    whole = Lines(evidence, tuple(ref for ref in dict.fromkeys(trace.outputs) if trace.live[ref]), ones=True)
    own = torch.full_like(trace.point.leaves[name], torch.nan).reshape(-1)
    for index in seen:
        if whole.forwards_left < ONE_ELEMENT:
            break
        line = whole.element(name, index)
        settled = line.sides is None or line.sides.differentiable
        number = line.pytorch if line.sides is None else line.sides.value
        own[index] = number / line.unit if settled else torch.nan
    return own.reshape(trace.point.leaves[name].shape)


def _course(sides: Sides) -> str:
    """How the function itself runs through the point; of an infinite slope the steps that break say no more than that."""
    if not (sides.left.steady or sides.right.steady):
        turns = sides.left.value * sides.right.value < 0
        return (
            "its slopes from both sides grow without bound, with opposite signs: a cusp"
            if turns
            else "its slope grows without bound on both sides: the derivative is infinite"
        )
    if sides.differentiable:
        return f"its derivative is {sides.value:.6g}; only the steps on the way break"
    return f"it bends, from a slope {_slope(sides.left)} to one {_slope(sides.right)}; only the steps on the way break"


def _slope(side: OneSided) -> str:
    number = f"of {0.0 if abs(side.value) <= side.doubt else side.value:.6g}"
    return number if side.steady else "that grows without bound"


def element_of(leaf: Tensor, index: int) -> list[int]:
    return [int(i) for i in torch.unravel_index(torch.tensor(index), leaf.shape)]
