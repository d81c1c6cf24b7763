"""Why PyTorch's own derivative may differ from finite differences: a kink, a jump, or a path taken out of the gradient."""

from __future__ import annotations

from typing import Any, Final

import torch

from app.catalogue.facts import sentence
from app.engine.explain.differences.purposes import IMPLICIT, by_convention
from app.engine.explain.disconnections import SHAPE_ONLY, cuts
from app.engine.explain.evidence import evidence_at
from app.engine.explain.findings import called_step
from app.engine.explain.verdicts import of_input
from app.engine.stepwise.detached import is_detaching
from app.engine.stepwise.point import Point, name_of
from app.engine.stepwise.trace import StepTrace, is_drawn_implicitly, trace_steps
from app.engine.tensors import is_differentiable

# Steps of a longer program are not looked at one by one: for 150 unrolled steps of Adam, 4,700 calls, that took 40 s.
_LOOKED_AT: Final = 1500


def disagreement(point: Point, name: str) -> dict[str, Any] | None:
    """Code and sentence, as JSON; None where nothing suspicious is found."""
    if len(point.nodes) > _LOOKED_AT:
        return _cut_path(point.once(trace_steps), name)
    with torch.enable_grad():
        seen = evidence_at(point)
        purpose = by_convention(seen, name)
        if purpose is not None and is_drawn_implicitly(purpose):
            return {"code": "convention", "message": sentence(IMPLICIT)}
        gravest = of_input(seen, name)[0]
        if gravest.verdict in ("singular", "kink", "piecewise_constant"):
            return {"code": gravest.verdict, "message": f"{called_step(gravest.node)}{gravest.reason}"}
        return _cut_path(seen.trace, name)


def _cut_path(trace: StepTrace, name: str) -> dict[str, Any] | None:
    floating = {ref for ref in trace.outputs if is_differentiable(trace.values[ref].dtype)}
    for cut in cuts(trace, name, floating):
        if cut.node is not None and name_of(cut.node) not in SHAPE_ONLY:
            return {
                "code": "cut_path",
                "message": f"{called_step(cut.node)}A path from `{name}` to the output is not in PyTorch's derivative, though the value "
                f"depends on it: {cut.reason}",
            }
    return None


def constant_path(point: Point, name: str) -> str | None:
    """Which detached value that hangs on the input differences took as a constant, as the derivative does; None where none does."""
    trace = point.once(trace_steps)
    node = next((cut.node for cut in cuts(trace, name) if cut.node is not None and is_detaching(cut.node)), None)
    if node is None:
        return None
    return f"{called_step(node)}What is detached there is a constant to PyTorch, and to these differences: a path from `{name}` ends in it."
