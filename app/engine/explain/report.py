"""The differentiability report (docs/contract.md, section 4, `explain`): why a gradient is None, zero, NaN, or one of several."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from app.catalogue.better_rules import FORMULAS
from app.engine.explain.branches import branch_findings, reading
from app.engine.explain.differences.cross_check import UNKNOWN
from app.engine.explain.differences.flips import of_flips, without_elements
from app.engine.explain.evidence import LARGE, Evidence, evidence_at, weights_of
from app.engine.explain.findings import ORDER, Finding
from app.engine.explain.formulas import formula_of
from app.engine.explain.verdicts import of_input, of_output
from app.engine.stepwise.point import REFUSALS, Points, Ref, step_of
from app.engine.stepwise.trace import StepRecord, StepTrace
from app.program.errors import tensors_in
from app.program.function import Function

# A report lists so many places of elements and says that there are more: a screen full; those of 111 pasted programs list ten at most.
_ELEMENTS: Final = 50
_SMALL: Final = 32  # elements of an input whose doubts a witness is asked about: as many as differences look at one by one

# The name of an input, and a cotangent of each output that it moves → whether PyTorch's derivative is right there, from both sides.
Witness: TypeAlias = Callable[[str, Mapping[str, Tensor]], bool]


def explain(points: Points, wrt: Sequence[str] | None, witness: Witness | None = None) -> dict[str, Any]:
    """The report, as JSON values.

    Arguments:
        points: those to be differentiated by are floating; random operations draw the same numbers in every run.
        wrt: names that come first in the report; all are reported.
        witness: asked about a small input whose derivative float64's differences leave in doubt.

    Raises:
        What PyTorch raises where the Function cannot be run at these leaves.
    """
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the answer's own road has warned
        function = points.function
        # In the dtypes that were sent, where a step insists on them.
        seen = points.widest(evidence_at)
        as_sent = cache(lambda: _as_sent(points, seen))
        names = sorted(function.leaves, key=lambda name: name not in (wrt or ()))
        flips = of_flips(points, seen, names)
        of_flip = [without_elements(flip) for (flip,) in flips.values()][:1]
        report: dict[str, Any] = {
            "inputs": {name: _entry(_of_input(seen, name, as_sent, witness), flips.get(name, [])) for name in names},
            "outputs": {name: _entry(of_output(seen, k), of_flip) for k, name in enumerate(function.outputs)},
            "steps": _steps(seen.trace),
        }
        for name, entry in report["inputs"].items():
            read = (
                reading(function, name)
                if entry["verdict"] == "disconnected" and "line" not in (entry["because"] or {})
                else None
            )
            if read is not None:
                entry |= read
                entry["findings"] = [{**entry["findings"][0], **read}, *entry["findings"][1:]]
        beside = [*branch_findings(function), *_of_leaves(function)]
        for entry in (*report["inputs"].values(), *report["outputs"].values()) if beside else ():
            if function.remarks and entry["verdict"] == "disconnected" and "line" not in entry["because"]:
                entry |= {**_of_leaves(function)[0], "verdict": "disconnected"}
            said = [finding["because"] for finding in entry["findings"]]
            entry["findings"] = [*entry["findings"], *(finding for finding in beside if finding["because"] not in said)]
        if not seen.directions and seen.weighted:
            report["probed"] = False  # too large, or not to be had in float64: kinks and jumps are not reported
        return report


def _of_input(seen: Evidence, name: str, as_sent: Callable[[], Evidence | None], witness: Witness | None) -> Sequence[Finding]:
    """The findings, without the doubt that differences leave where the witness has none."""
    findings = of_input(seen, name, as_sent)
    trace = seen.trace
    if witness is None or trace.values[trace.leaves[name]].numel() > _SMALL or all(f.reason != UNKNOWN for f in findings):
        return findings
    cotangents = weights_of(trace, [ref for ref in trace.outputs if name in trace.live[ref]])
    named = {
        output: cotangents[ref]
        for output, ref in zip(trace.point.function.outputs, trace.outputs, strict=True)
        if ref in cotangents
    }
    if not witness(name, named):
        return findings
    return [f for f in findings if f.reason != UNKNOWN] or [Finding("differentiable", "")]


def _as_sent(points: Points, seen: Evidence) -> Evidence | None:
    """What is seen in the dtypes that were sent; None where these are as wide, or it would take much memory beside what is seen already."""
    trace = seen.trace
    as_wide = all(leaf.dtype == points.leaves[name].dtype for name, leaf in trace.point.leaves.items()) and not any(
        _is_cast(trace, ref) for record in trace.records for ref in record.refs()
    )
    if not trace.point.wide or as_wide or sum(tensor.numel() for tensor in trace.values.values()) > LARGE:
        return None
    try:
        return evidence_at(points.narrow)
    except REFUSALS:
        return None


def _is_cast(trace: StepTrace, ref: Ref) -> bool:
    """Whether the program itself computes a number that a derivative passes in less than float64, as `x.half()` does."""
    node, k = ref
    own = list(tensors_in(node.meta.get("val")))[k:]
    return bool(trace.live[ref] and own) and own[0].dtype != trace.values[ref].dtype


def _of_leaves(function: Function) -> list[dict[str, Any]]:
    """What PyTorch says of the program's leaves and `backward()` calls; the derivative that is asked for here has it or not all the same."""
    return [
        {
            "verdict": "differentiable",
            "because": {"line": r.step.line, "text": r.step.text, "operation": r.step.operation, "reason": f"{r.reason}."},
            "instead": r.instead,
            "elements": [],
        }
        for r in function.remarks
    ]


def _entry(findings: Sequence[Finding], flip: Sequence[Finding] = ()) -> dict[str, Any]:
    """The entry of an input or output; `flip`: what is seen beside the point, where a condition flips."""
    is_graver = any(ORDER.index(finding.verdict) < ORDER.index(findings[0].verdict) for finding in flip)
    findings = [*flip, *findings] if is_graver else [*findings, *flip]
    gravest = _finding(findings[0])
    return {**gravest, "findings": [_finding(finding) for finding in findings if finding.reason]}


def _finding(finding: Finding) -> dict[str, Any]:
    entry: dict[str, Any] = {"verdict": finding.verdict, "because": None, "instead": finding.instead}
    step = None if finding.node is None else step_of(finding.node)
    if step is not None:
        entry["because"] = {"line": step.line, "text": step.text, "operation": step.operation, "reason": finding.reason}
    elif finding.reason:
        entry["because"] = {"reason": finding.reason}
    where = [] if finding.mask is None else finding.mask.nonzero().tolist()
    entry["elements"] = where[:_ELEMENTS]
    if len(where) > _ELEMENTS:
        entry["elements_total"] = len(where)
    if finding.subgradient is not None and finding.mask is not None:
        entry["subgradient"] = [number(value) for value in finding.subgradient[finding.mask][:_ELEMENTS].tolist()]
    if finding.derivative is not None and finding.mask is not None:
        entry["derivative"] = [number(value) for value in finding.derivative[finding.mask][:_ELEMENTS].tolist()]
    return entry


def number(value: complex) -> Any:
    """A number as the contract writes it in JSON: non-finite ones as strings, complex ones as pairs."""
    if isinstance(value, complex):
        return [number(value.real), number(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _formula(record: StepRecord) -> str | None:
    target = record.node.target
    return (None if isinstance(target, str) else FORMULAS.get(target)) or formula_of(record.outputs)


def _steps(trace: StepTrace) -> list[dict[str, Any]]:
    steps = []
    for record in trace.records:
        step = step_of(record.node)
        if step is not None:
            steps.append(
                {
                    "line": step.line,
                    "text": step.text,
                    "operation": step.operation,
                    "formula": _formula(record),
                }
            )
    return steps
