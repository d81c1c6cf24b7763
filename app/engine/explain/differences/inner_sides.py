"""Elements that lie on the end of a domain, seen from its inside: a step refuses, or gives NaN for, whatever lies on their other side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from app.engine.explain.differences.lines import Lines, Seen
from app.engine.explain.differences.own_derivative import element_of
from app.engine.explain.findings import Finding, at_step, operation_of
from app.engine.stepwise.point import all_finite
from app.engine.stepwise.quotients import OneSided
from app.engine.stepwise.trace import StepRecord


def inner_side(seen: Seen) -> OneSided | None:
    """The derivative from the inside of the domain that ends on this line; None where none does, or it does not settle."""
    if seen.end is None or seen.sides is None:
        return None
    side = seen.sides.left if seen.end > 0 else seen.sides.right
    return side if math.isfinite(side.doubt) else None


def at_ends(lines: Lines, name: str, ended: Mapping[int, Seen]) -> Iterator[Finding]:
    """Findings on elements (flat index) whose `inner_side` is known."""
    trace = lines.evidence.trace
    by_step: dict[StepRecord | None, list[int]] = {}
    for index, seen in ended.items():
        by_step.setdefault(_outside(lines, name, seen), []).append(index)
    taken = lines.evidence.gradient.get(name)
    for record, indices in by_step.items():
        leaf = trace.point.leaves[name]
        mask = torch.zeros(leaf.numel(), dtype=torch.bool, device=leaf.device)
        mask[indices] = True
        mask = mask.reshape(leaf.shape)
        operation = "the function" if record is None else f"`{operation_of(record.node)}`"
        reason = f"The domain of {operation} ends here: the derivative exists from one side only."
        finding = at_step(trace, record, "kink", reason, "edge", name, mask, taken)
        yield from_inside(lines, name, finding, {index: ended[index] for index in indices})


def from_inside(lines: Lines, name: str, finding: Finding, ended: Mapping[int, Seen]) -> Finding:
    """The finding that a domain ends, with the derivative from the inside where PyTorch gives another."""
    mask, taken = finding.mask, finding.subgradient
    if mask is None or taken is None or not any(_is_off(seen) for seen in ended.values()):
        return finding
    own = _from_inside(lines, name, ended)
    off = [index for index, seen in ended.items() if _is_off(seen) and bool(torch.isfinite(own.reshape(-1)[index]))]
    if not off:
        return finding
    gives, first = (float(of.reshape(-1)[off[0]]) for of in (taken, own))
    where = f" at element {element_of(mask, off[0])}" if len(ended) > 1 else ""
    words = f" PyTorch gives {gives:.6g}{where}, which is wrong: it is {first:.6g}."
    return replace(finding, reason=finding.reason + words, derivative=own)


def _is_off(seen: Seen) -> bool:
    side = inner_side(seen)
    return side is not None and side.is_not(seen.pytorch)


def _outside(lines: Lines, name: str, seen: Seen) -> StepRecord | None:
    """The first step that has no value, or none that is finite, on the other side."""
    trace = lines.evidence.trace
    lines.moved(name, seen.direction, seen.end or 0.0)
    results = trace.point.results()
    for record in trace.records:
        if record.node not in results or not all_finite(results[record.node]):
            return record
    return None


def _from_inside(lines: Lines, name: str, indices: Iterable[int]) -> Tensor:
    """The derivative of the sum of all outputs from the inside, of the input's shape; NaN where it was not looked for or does not settle."""
    trace = lines.evidence.trace
    whole = Lines(lines.evidence, lines.refs, ones=True)
    leaf = trace.point.leaves[name]
    own = torch.full_like(leaf, torch.nan).reshape(-1)
    for index in indices:
        seen = whole.element(name, index)
        side = inner_side(seen)
        own[index] = side.value / seen.unit if side is not None and side.settled else torch.nan
    return own.reshape(leaf.shape)
