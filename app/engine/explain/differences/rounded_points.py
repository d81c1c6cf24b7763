"""Jumps and bends that rounding hides: beside 1e9 a jump by 1 is hard to see; a bend may lie beside the point by a rounding on the way.

Of the latter no step bends at its own input, and the whole does as near as differences see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from app.engine.explain.differences.lines import Lines, Seen
from app.engine.explain.differences.suspects import Suspects
from app.engine.explain.evidence import Evidence, is_at_jump, is_coarse, period_of
from app.engine.explain.findings import Finding, at_step, instead_of, operation_of
from app.engine.stepwise.point import Ref
from app.engine.stepwise.trace import StepRecord
from app.engine.tensors import is_differentiable
from app.program.errors import tensors_in

_NONE: Final = "there is no derivative, and the number that PyTorch gives means nothing."

# How far the input is moved, in units of its element: acos(1 - h²) has lost sixteen bits at the second, and has twenty left.
_STEPS: Final = (2.0**-12, 2.0**-16)
# How far the two sides are from a straight line shrinks by 16 from one step to the next at a bend, by 256 where there is a derivative.
_SHRINKS: Final = (4.0, 64.0)
_NOISE: Final = 64.0  # roundings that such a gap may be


def at_jumps(elements: Sequence[int], suspects: Suspects) -> Iterator[Finding]:
    """Of elements (flat) of which differences say nothing, those that move a step that stands on a jump."""
    trace = suspects.evidence.trace
    periods = [(r, period_of(trace, r)) for r in suspects.records] if elements else []
    jumping = [r for r, period in periods if period is not None and bool(is_at_jump(r, period).any())]
    if (record := suspects.first(elements, jumping)) is None:
        return
    moved = suspects.moved_by([record])
    mask = torch.zeros_like(moved).reshape(-1)
    mask[list(elements)] = moved.reshape(-1)[list(elements)]
    reason = f"The value of `{operation_of(record.node)}` jumps here: {_NONE}"
    yield at_step(trace, record, "singular", reason, "jump", suspects.name, mask.reshape(moved.shape))


def too_coarse(evidence: Evidence, record: StepRecord, name: str, mask: Tensor) -> Finding | None:
    """Of a step that jumps at whole numbers, where numbers are so large that all are whole."""
    trace = evidence.trace
    period = period_of(trace, record)
    where = None if period is None else is_coarse(record, period)
    if period is None or where is None or not bool(where.any()):
        return None
    x, operation = record.inputs[0].detach(), operation_of(record.node)
    reason = f"Numbers as large as {float(x[where][0]):.6g} lie as far apart as the jumps of `{operation}`"
    if not bool(is_at_jump(record, period)[where].all()):
        return Finding("differentiable", f"{reason}, so that differences cannot tell what happens between these.", record.node)
    reason += f", and each of them is one: {_NONE}"
    return Finding("singular", reason, record.node, instead_of(trace, record, "jump", name), mask)


def is_bent(line: Seen) -> bool:
    """Whether the whole has two one-sided derivatives along a line, and PyTorch's number is not both."""
    return line.agrees is False and line.sides is not None and line.sides.settled and not line.sides.differentiable


def rounded_corner(lines: Lines, name: str, seen: dict[int, Seen]) -> Finding | None:
    """The finding for elements along which the whole bends, and no step is known to; None where no step shows it."""
    trace = lines.evidence.trace
    record = _first_bent(lines, name, next(iter(seen.values())).direction)
    if record is None:
        return None
    leaf = trace.point.leaves[name]
    mask = torch.zeros(leaf.numel(), dtype=torch.bool, device=leaf.device)
    mask[list(seen)] = True
    between = all(line.sides is not None and line.sides.between(line.pytorch) for line in seen.values())
    number = "one of them or lies between them." if between else "neither of them, nor between them: it is rounding."
    reason = (
        f"`{operation_of(record.node)}` bends here to within rounding, though not exactly at its own input: the one-sided derivatives "
        f"differ. PyTorch's number is {number}"
    )
    instead = instead_of(trace, record, "kink", name) or instead_of(trace, record, "singular", name)
    return Finding("kink", reason, record.node, instead, mask.reshape(leaf.shape), lines.evidence.gradient.get(name))


def _first_bent(lines: Lines, name: str, direction: Tensor) -> StepRecord | None:
    """The first step whose result bends as the input moves, and nothing that it is given does."""
    trace = lines.evidence.trace
    refs = [ref for ref, value in trace.values.items() if name in trace.live[ref] and is_differentiable(value.dtype)]
    gaps = [_gaps(lines, name, step * direction, refs) for step in _STEPS]
    bent = {ref for ref in refs if all(ref in gap for gap in gaps) and _shrinks_like_a_corner(*(gap[ref] for gap in gaps))}
    return next((r for r in trace.records if bent & set(r.refs()) and not bent & set(r.parents)), None)


def _gaps(lines: Lines, name: str, by: Tensor, refs: Sequence[Ref]) -> dict[Ref, tuple[float, float]]:
    """How far each tensor's two sides are from a straight line, and what rounding may make of that; those alone that finite numbers are in."""
    trace, sides = lines.evidence.trace, list[dict[Ref, Tensor]]()
    for sign in (1.0, -1.0):
        if lines.moved(name, by, sign) is None:
            return {}
        results = trace.point.results()
        sides.append({ref: list(tensors_in(results[ref[0]]))[ref[1]] for ref in refs if ref[0] in results})
    gaps: dict[Ref, tuple[float, float]] = {}
    for ref, right in sides[0].items():
        left, here = sides[1][ref], trace.values[ref].detach()
        if ref[0].op != "placeholder" and left.shape == right.shape == here.shape:
            size = torch.maximum(torch.maximum(left.abs(), right.abs()), here.abs()).sum()
            gaps[ref] = float(((right - here) + (left - here)).abs().sum()), _NOISE * torch.finfo(here.dtype).eps * float(size)
    return gaps


def _shrinks_like_a_corner(coarse: tuple[float, float], fine: tuple[float, float]) -> bool:
    low, high = _SHRINKS
    return fine[0] > fine[1] and low * fine[0] < coarse[0] < high * fine[0]
