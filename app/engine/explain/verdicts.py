"""What the evidence means for each input and output: findings, the gravest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from app.engine.explain.differences.cross_check import constant_output, cross_checked, cross_checked_output
from app.engine.explain.differences.narrow_dtypes import of_narrow
from app.engine.explain.disconnections import SHAPE_ONLY, cuts, discrete_maker, flat, steps_over
from app.engine.explain.evidence import Evidence
from app.engine.explain.findings import ORDER, Finding, at_step
from app.engine.explain.singularities import jumps, kinks, marked_output, singular, singular_output, undefined_outputs
from app.engine.explain.zeros import zero
from app.engine.stepwise.point import Ref, name_of
from app.engine.stepwise.trace import StepTrace
from app.engine.tensors import NAMES, is_differentiable

# Paths that end, beside others that do not: so many are named, the others are alike. Of 25 reports none has more, and one has more than one.
_PARTIAL: Final = 3


def of_input(evidence: Evidence, name: str, as_sent: Callable[[], Evidence | None] = lambda: None) -> list[Finding]:
    """Findings on one input, gravest first; never empty.

    Arguments:
        as_sent: what is seen in the dtypes that were sent, where these are narrower: a gradient can be zero in them alone.
    """
    trace = evidence.trace
    ends = list(cuts(trace, name))
    if (unreached := _without_derivative(trace, name, ends)) is not None:
        return [*unreached, *undefined_outputs(trace, name)]
    if not any(name in trace.firm[out] for out in trace.outputs):
        return [*singular(evidence, name), flat(evidence, name, trace.outputs)]
    evidence.checked[name] = findings = cross_checked(
        evidence, name, [*singular(evidence, name), *jumps(evidence, name), *kinks(evidence, name)]
    )
    narrow = as_sent()
    if narrow is not None:
        findings = evidence.checked[name] = _with_narrow(evidence, narrow, name, findings)
    findings.sort(key=lambda finding: ORDER.index(finding.verdict))
    if all(finding.verdict == "differentiable" for finding in findings):
        findings = _with_zero(evidence, narrow, name, findings)
    return [*(findings or [Finding("differentiable", "")]), *_other_ends(name, ends, findings)]


def _other_ends(name: str, ends: list[Finding], findings: list[Finding]) -> list[Finding]:
    """Paths that end, beside others that do not."""
    said = [finding.node for finding in findings if finding.verdict == "disconnected"]
    return [
        Finding(
            "differentiable",
            f"One of the paths from `{name}` ends here, the others do not: {cut.reason}",
            cut.node,
            cut.instead,
        )
        for cut in ends[:_PARTIAL]
        if cut.node not in said and cut.node is not None and name_of(cut.node) not in SHAPE_ONLY
    ]


def _with_zero(evidence: Evidence, narrow: Evidence | None, name: str, findings: list[Finding]) -> list[Finding]:
    """The findings, before them why the gradient is zero, where it is: it can be so in the sent dtype alone, and in float64 alone."""
    nothing = zero(evidence, name)
    if narrow is not None:
        there = zero(narrow, name)
        nothing = there and (nothing or there)
    return findings if nothing is None else [nothing, *findings]


def _without_derivative(trace: StepTrace, name: str, ends: list[Finding]) -> list[Finding] | None:
    """What is to be said of an input that no derivative leads from: `ends` are where its paths end. None where one does."""
    ref = trace.leaves[name]
    leaf = trace.values[ref]
    if not is_differentiable(leaf.dtype):
        kind = NAMES.get(leaf.dtype, str(leaf.dtype))
        return [
            Finding(
                "not_differentiable",
                f"`{name}` is {kind}: it cannot change by a little, so nothing can be differentiated by it.",
            )
        ]
    if not any(name in trace.depends[out] for out in trace.outputs):
        used = any(ref in record.parents for record in trace.records)
        why = (
            f"nothing that is computed from `{name}` reaches an output"
            if used
            else f"no value of `{name}` is used, at most its shape"
        )
        return [Finding("disconnected", f"{why[0].upper() + why[1:]}.")]
    if not any(name in trace.live[out] for out in trace.outputs):
        ends.sort(
            key=lambda cut: cut.node is not None and name_of(cut.node) in SHAPE_ONLY
        )  # of these nothing else is to be said
        return ends or [Finding("disconnected", f"No derivative leads from `{name}` to an output.")]
    return None


def _with_narrow(evidence: Evidence, narrow: Evidence, name: str, findings: list[Finding]) -> list[Finding]:
    """The findings, and those of the dtype that was sent on the other elements."""
    known = torch.zeros_like(evidence.trace.point.leaves[name], dtype=torch.bool)
    for finding in findings:
        if finding.verdict != "differentiable":
            known |= True if finding.mask is None else finding.mask
    return [*findings, *of_narrow(evidence, narrow, name, known)]


def of_output(evidence: Evidence, index: int) -> list[Finding]:
    """Findings on one output, gravest first; never empty."""
    trace = evidence.trace
    ref = trace.outputs[index]
    value = trace.values[ref]
    if not is_differentiable(value.dtype):
        maker = discrete_maker(trace, ref)
        kind = NAMES.get(value.dtype, str(value.dtype))
        what = "boolean" if value.dtype == torch.bool else "integer"
        reason = f"The result is {kind}: {steps_over(what)}."
        return [at_step(trace, maker, "not_differentiable", reason, what)]
    if not trace.depends[ref]:
        return [Finding("disconnected", "It depends on no floating input.")]
    if not trace.live[ref]:
        ends = [cut for name in sorted(trace.depends[ref]) for cut in cuts(trace, name, {ref})]
        cut_off = ends[:1] or [Finding("disconnected", "No derivative leads here from any input.")]
        return [*cut_off, *singular_output(evidence, ref)] if bool(torch.isnan(value).any()) else cut_off
    if not trace.firm[ref]:
        return [*singular_output(evidence, ref), flat(evidence, min(trace.live[ref]), {ref})]
    marks = evidence.outputs[index] if evidence.outputs is not None else None
    findings = list(singular_output(evidence, ref))
    if marks is not None and _has_kink(evidence, ref):
        findings += [
            more for more in marked_output(evidence, ref, marks) if more.node not in [known.node for known in findings]
        ]
    if not findings:
        if all(_is_constant(evidence, name) for name in trace.live[ref]):
            return evidence.checked[min(trace.live[ref])]
        if len({other for other in trace.outputs if trace.live[other]}) > 1 and (constant := constant_output(evidence, ref)):
            return constant
        findings = cross_checked_output(evidence, ref)
    return sorted(findings, key=lambda finding: ORDER.index(finding.verdict)) or [Finding("differentiable", "")]


def _has_kink(evidence: Evidence, ref: Ref) -> bool:
    """Whether an input was found to be more than differentiable here: what else looks like a bend of the output is rounding."""
    checked = [evidence.checked.get(name) for name in evidence.trace.live[ref]]
    return any(known is None or any(f.verdict != "differentiable" for f in known) for known in checked)


def _is_constant(evidence: Evidence, name: str) -> bool:
    return any(finding.verdict == "piecewise_constant" for finding in evidence.checked.get(name, ()))
