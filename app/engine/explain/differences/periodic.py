"""Steps that jump at whole numbers, where differences are too coarse for that: beside 1e9 a jump by 1 is hard to see, beside 1e180 none is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from app.engine.explain.differences.suspects import Suspects
from app.engine.explain.evidence import Evidence, is_at_jump, is_coarse, period_of
from app.engine.explain.findings import Finding, at_step, instead_of, operation_of
from app.engine.stepwise.trace import StepRecord

_NONE: Final = "there is no derivative, and the number that PyTorch gives means nothing."


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
