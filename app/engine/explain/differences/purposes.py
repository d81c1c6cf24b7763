"""Steps whose derivative in PyTorch is another than that of their value on purpose: differences prove nothing against it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from app.catalogue.facts import sentence, values
from app.engine.explain.differences.lines import ONE_ELEMENT, Lines
from app.engine.explain.evidence import Evidence
from app.engine.explain.findings import Finding
from app.engine.stepwise.point import Hole, name_of
from app.engine.stepwise.read_triangles import taken_for_symmetric
from app.engine.stepwise.trace import StepRecord, is_drawn_implicitly

IMPLICIT: Final = "drawn_implicitly"
# Elements, to see whether the derivative of the value is another here: with ctc_loss behind a log_softmax it is not.
_LOOKS: Final = 8


def by_convention(evidence: Evidence, name: str) -> StepRecord | None:
    """The first of these steps on the way from an input; None where there is none."""
    trace = evidence.trace
    special = values("convention")
    for record in trace.records:
        step = name_of(record.node)
        half_read = {m.ref for m in taken_for_symmetric(step, trace.arguments[record.node]) if isinstance(m, Hole)}
        parents = half_read.union(record.parents if step in special or is_drawn_implicitly(record) else ())
        if any(name in trace.live[parent] for parent in parents) and trace.needed & set(record.refs()):
            return record
    return None


def said_of_convention(lines: Lines, name: str, record: StepRecord) -> Iterator[Finding]:
    """What is to be said of such a step where differences of the value show another derivative."""
    key = values("convention").get(name_of(record.node)) or (IMPLICIT if is_drawn_implicitly(record) else None)
    size = lines.evidence.trace.point.leaves[name].numel()
    for index in range(min(size, _LOOKS)) if key is not None else ():
        if lines.forwards_left < ONE_ELEMENT:
            return
        if lines.worse(name, index).agrees is False:
            yield Finding("differentiable", sentence(key or ""), record.node)
            return
