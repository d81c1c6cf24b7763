"""What differences of the whole Function say of the derivative that PyTorch gives: confirmed, wrong and whose fault it is, or unknown.

Cost, in runs of the whole Function: five for each element looked at (all, or those that move a suspicious step), up to 30 for one that is
not confirmed at once; for inputs of many elements five for each of two random lines, and a search where these disagree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, fx

from app.catalogue.facts import operations_with
from app.engine.explain.differences.hook_effects import is_hook, of_hook
from app.engine.explain.differences.inner_sides import at_ends, from_inside, inner_side
from app.engine.explain.differences.lines import ONE_ELEMENT, Lines, Seen
from app.engine.explain.differences.own_derivative import own_derivatives, with_own_derivative
from app.engine.explain.differences.purposes import by_convention, said_of_convention
from app.engine.explain.differences.rounded_points import at_jumps, is_bent, rounded_corner, too_coarse
from app.engine.explain.differences.step_rules import has_wrong_rule
from app.engine.explain.differences.suspects import Suspects
from app.engine.explain.disconnections import SHAPE_ONLY, cuts
from app.engine.explain.evidence import LARGE, Evidence, weights, weights_of
from app.engine.explain.findings import Finding, instead_of, operation_of
from app.engine.explain.singularities import singular_matrix
from app.engine.stepwise.detached import WITHHELD
from app.engine.stepwise.flatness import LookAt, is_constant_between_jumps
from app.engine.stepwise.one_sided import perturbed
from app.engine.stepwise.point import REFUSALS, Ref, argument_of, name_of
from app.engine.stepwise.trace import StepRecord, step_vjp
from app.engine.tensors import is_differentiable
from app.program.differentiation.custom_functions import APPLY

_ALL: Final = 32  # so many elements are looked at one by one; of more, those that move a suspicious step
_SUSPICIOUS: Final = 24  # fewer than `_ALL`, as random directions come on top; 3 to 96 give the same reports (measured)
_RANDOM: Final = 2  # directions of all others: one could be hidden by chance
UNKNOWN: Final = (
    "Differences cannot tell whether the number is right here: they do not settle (rounding, or a function that changes faster than "
    "they can follow)."
)

_STOPPED: Final = (
    "There are more elements than were looked at one by one: of the others differences cannot tell, and they may be alike."
)
_MULTIPLIED: Final = "Multiply what `backward` returns by the gradient that it is given."
# Of the derivative: a rule of PyTorch's off by less is right, and its numbers have lost digits; 5e-4 to 4e-3 give the same reports (measured).
_LOST: Final = 1e-3


def cross_checked(evidence: Evidence, name: str, findings: Sequence[Finding]) -> list[Finding]:
    """The findings on an input, and what the differences add to them."""
    trace = evidence.trace
    refs = tuple(ref for ref in dict.fromkeys(trace.outputs) if name in trace.live[ref])
    leaf = trace.values[trace.leaves[name]]
    if not evidence.directions or not refs or not leaf.numel():
        return list(findings)
    if (matrix := singular_matrix(evidence, name, refs)) is not None:
        others = [finding for finding in findings if finding.node is not matrix.node or finding.verdict == "singular"]
        findings = others if any(finding.node is matrix.node for finding in others) else [matrix, *others]
    if (special := by_convention(evidence, name)) is not None:
        return [*findings, *said_of_convention(Lines(evidence, refs), name, special)]
    if matrix is not None:
        return list(findings)
    if not findings and (flat := _constant(evidence, name, refs)) is not None:
        return [flat]
    lines = Lines(evidence, refs)
    lines.forwards_left //= len(trace.point.floating)
    known = torch.zeros(leaf.shape, dtype=torch.bool, device=leaf.device)
    for finding in findings:
        known |= True if finding.mask is None else finding.mask
    findings = [with_own_derivative(lines, name, _on_its_own_elements(lines, name, finding)) for finding in findings]
    blamed = {finding.node for finding in findings}
    return [*findings, *_looked_at(lines, name, known | ~torch.isfinite(leaf), blamed)]


def _on_its_own_elements(lines: Lines, name: str, finding: Finding) -> Finding:
    """A finding of a jump, an infinite derivative or an end without those elements along which the whole is smooth, if others are left.

    The rank of a matrix jumps, and not with each of its rows.
    """
    gradient = lines.gradient(name)
    mask = finding.mask
    ends = finding.verdict == "kink" and any(
        r.node is finding.node and _does(lines.evidence, r) == "ends" for r in lines.evidence.steps
    )
    if (finding.verdict != "singular" and not ends) or mask is None or gradient is None or int(mask.sum()) > _SUSPICIOUS:
        return finding
    stays = mask.clone().reshape(-1)
    seen: dict[int, Seen] = {}
    for index in (mask & torch.isfinite(gradient)).reshape(-1).nonzero().reshape(-1).tolist():
        if lines.forwards_left < ONE_ELEMENT:
            return finding
        seen[index] = lines.worse(name, index)
        stays[index] = seen[index].agrees is not True
    finding = replace(finding, mask=stays.reshape(mask.shape)) if bool(stays.any()) else finding
    return from_inside(lines, name, finding, seen) if ends else finding


def cross_checked_output(evidence: Evidence, ref: Ref) -> list[Finding]:
    """What the differences of one output along its inputs show; asked only after its inputs."""
    trace = evidence.trace
    names = [
        name for name in sorted(trace.live[ref]) if any(f.verdict != "differentiable" for f in evidence.checked.get(name, ()))
    ]
    findings: list[Finding] = []
    for name in names:
        leaf = trace.values[trace.leaves[name]]
        if len({r for r in trace.outputs if trace.live[r]}) > 1:
            lines = Lines(evidence, (ref,))
            lines.forwards_left //= len(trace.point.floating) * len(trace.outputs)
            findings += _looked_at(lines, name, ~torch.isfinite(leaf), set())
        else:
            findings += evidence.checked[name]
    return [replace(f, mask=None, subgradient=None, derivative=None) for f in findings if f.verdict in ("kink", "singular")]


def constant_output(evidence: Evidence, ref: Ref) -> list[Finding]:
    """Of one output, whether it is constant between its jumps in all inputs, whatever the others are."""
    trace = evidence.trace
    names = sorted(trace.live[ref])
    flat = [
        evidence.directions and by_convention(evidence, name) is None and _constant(evidence, name, (ref,)) for name in names
    ]
    return [finding for finding in flat[:1] if finding and all(flat)]


def _constant(evidence: Evidence, name: str, refs: Sequence[Ref]) -> Finding | None:
    """A whole that is constant between its jumps, though none of its steps is: x - x % 1."""
    trace, point = evidence.trace, evidence.trace.point
    gradient = trace.backward(weights_of(trace, refs)).get(trace.leaves[name])
    size = sum(tensor.numel() for tensor in trace.values.values())
    if gradient is None or size > LARGE or bool((gradient != 0).any()):
        return None

    def look_among(others: Mapping[str, Tensor]) -> LookAt:
        def look(at: Tensor) -> tuple[Tensor, bool] | None:
            own = at.clone().requires_grad_()
            try:
                outputs = dict(zip(trace.outputs, point.run({**others, name: own}), strict=True))
                chosen = [outputs[ref] for ref in refs if outputs[ref].requires_grad]
                cotangents = [weights(outputs[ref], trace.outputs.index(ref)) for ref in refs if outputs[ref].requires_grad]
                gradients = torch.autograd.grad(chosen, [own], cotangents, allow_unused=True)
            except REFUSALS:
                return None
            whole = torch.cat([torch.view_as_real(o).reshape(-1) if o.is_complex() else o.reshape(-1) for o in chosen])
            return whole.detach(), gradients[0] is None or not bool((gradients[0] != 0).any())

        return look

    others = {n: perturbed(point.leaves[n], 1.0, 9 + k) for k, n in enumerate(point.floating) if n != name}
    # Among other inputs too: atan2(y, x) is constant in x between its jumps only where y is 0.
    if not all(is_constant_between_jumps(look_among(at), point.leaves[name]) for at in ({}, others)[: 1 + bool(others)]):
        return None
    return Finding(
        "piecewise_constant",
        "The whole is constant between its jumps: its derivative is zero almost everywhere, and PyTorch gives zero.",
    )


def _looked_at(lines: Lines, name: str, known: Tensor, blamed: Set[fx.Node | None]) -> Iterator[Finding]:
    """Findings on the elements of an input that are not known to be singular or a kink already, because of the steps `blamed`."""
    evidence = lines.evidence
    suspects = Suspects(evidence, name)
    rest = ~known.reshape(-1)
    few = int(rest.sum()) <= _ALL
    moved = known if few else suspects.moved_by(suspects.records)
    indices = (rest if few else rest & moved.reshape(-1)).nonzero().reshape(-1).tolist()
    seen: dict[int, Seen] = {}
    for index in indices if few else indices[:_SUSPICIOUS]:
        if lines.forwards_left < ONE_ELEMENT:
            break
        seen[index] = lines.worse(name, index)
    unknown = False
    if not few:
        others = (rest & ~moved.reshape(-1)).reshape(known.shape)
        for number in range(_RANDOM):
            if lines.forwards_left < ONE_ELEMENT or not bool(others.any()):
                break
            line = lines.random(name, number, others)
            unknown |= line.agrees is None
            if line.agrees is False:
                index = _step_seen_on(lines, name, number, others)
                if index is None:
                    unknown = True
                else:
                    seen[index] = lines.worse(name, index)
    yield from _findings(lines, name, seen, suspects, unknown, blamed)
    if len(seen) < len(indices) and any(line.agrees is False for line in seen.values()):
        yield Finding("differentiable", _STOPPED)


def _step_seen_on(lines: Lines, name: str, number: int, mask: Tensor) -> int | None:
    """The element that makes a random line disagree: the half that does, again and again."""
    indices = mask.reshape(-1).nonzero().reshape(-1)
    while len(indices) > 1:
        for half in (indices[: len(indices) // 2], indices[len(indices) // 2 :]):
            if lines.forwards_left < ONE_ELEMENT:
                return None
            part = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
            part[half] = True
            if lines.random(name, number, part.reshape(mask.shape)).agrees is False:
                indices = half
                break
        else:
            return None
    return int(indices[0])


def _findings(
    lines: Lines,
    name: str,
    seen: dict[int, Seen],
    suspects: Suspects,
    unknown: bool,
    blamed: Set[fx.Node | None],
) -> Iterator[Finding]:
    wrong: dict[tuple[StepRecord | None, fx.Node | None, bool], list[int]] = {}
    cut_at: dict[fx.Node | None, Finding | None] = {}
    ended = {index: line for index, line in seen.items() if inner_side(line) is not None}
    seen = {index: line for index, line in seen.items() if index not in ended}
    yield from at_ends(lines, name, ended)
    beside = {i: s for i, s in seen.items() if is_bent(s) and suspects.first([i], suspects.records) is None}
    if beside and (corner := rounded_corner(lines, name, beside)) is not None:
        yield corner
        seen = {index: line for index, line in seen.items() if index not in beside}
    for index, line in seen.items():
        if line.agrees is False and line.sides is not None:
            why = _blame(suspects, index)
            if why is None:
                unknown = True
            else:
                step, ending = why
                settles = ending is not None or line.sides.differentiable
                key = (step, None if ending is None else ending.node, settles)
                cut_at[key[1]] = ending
                wrong.setdefault(key, []).append(index)
    for (step, node, settles), indices in wrong.items():
        yield _wrong(lines, name, {index: seen[index] for index in indices}, step, cut_at[node], settles)
    open_ones = [index for index, line in seen.items() if line.agrees is None]
    yield from (jumping := list(at_jumps(open_ones, suspects)))
    if unknown or (open_ones and not jumping):
        yield Finding("differentiable", UNKNOWN)
    cancelled = [index for index, line in seen.items() if line.agrees]
    others = (lines.evidence.jumps.keys() | lines.evidence.kinks.keys()) - {name}  # for which the whole does
    for turns in () if wrong or others else suspects.alike():
        record = suspects.first(cancelled, [r for r in turns if r.node not in blamed])
        if record is not None:
            yield Finding(
                "differentiable",
                f"`{operation_of(record.node)}` {_does(lines.evidence, record)} exactly here, but the whole does not, as far as differences "
                "tell: its derivatives from both sides are the one that PyTorch gives.",
                record.node,
            )


def _blame(suspects: Suspects, index: int) -> tuple[StepRecord | None, Finding | None] | None:
    """The step, or the cut path, for which PyTorch's derivative is another than that of the function; None where none is to blame."""
    evidence, name, trace = suspects.evidence, suspects.name, suspects.evidence.trace
    if (suspect := suspects.first([index], suspects.records)) is not None:
        return suspect, None
    for record in trace.records:
        if (
            any(name in trace.live[p] for p in record.parents)
            and trace.needed & set(record.refs())
            and has_wrong_rule(trace, record, evidence.weighted)
        ):
            return record, None
    floating = {ref for ref in trace.outputs if is_differentiable(trace.values[ref].dtype)}
    for cut in cuts(trace, name, floating):
        if cut.node is not None and name_of(cut.node) not in SHAPE_ONLY | operations_with("detaches"):
            return None, cut
    for record in suspects.records[:_SUSPICIOUS]:  # behind a derivative of zero: relu(x ** 3)
        if any(name in trace.live[p] for p in record.parents) and not bool(suspects.moved_by([record]).any()):
            return record, None
    return None


def _wrong(
    lines: Lines, name: str, seen: dict[int, Seen], record: StepRecord | None, cut: Finding | None, settles: bool
) -> Finding:
    evidence = lines.evidence
    leaf = evidence.trace.point.leaves[name]
    mask = torch.zeros(leaf.numel(), dtype=torch.bool, device=leaf.device)
    mask[list(seen)] = True
    mask, taken = mask.reshape(leaf.shape), evidence.gradient.get(name)
    if cut is not None:
        reason = f"A path from `{name}` is not in PyTorch's derivative, though the value moves with it: {cut.reason}"
        return Finding("disconnected", reason, cut.node, cut.instead, mask)
    if record is None:
        return Finding("differentiable", UNKNOWN)
    verdict = "kink" if record in evidence.steps else "singular"
    operation = operation_of(record.node)
    if (coarse := too_coarse(evidence, record, name, mask)) is not None:
        return coarse
    if (argument := WITHHELD.get(name_of(record.node))) and argument_of(record.node, argument, None) is not None:
        return _withheld(record, argument, verdict, mask, taken)
    if is_hook(record.node) and settles and verdict == "singular":
        return of_hook(record, mask, taken, None if leaf.is_complex() else own_derivatives(lines, name, seen))
    if not settles:
        between = all(line.sides is not None and line.sides.between(line.pytorch) for line in seen.values())
        reason = f"The one-sided derivatives differ here, because of `{operation}`. PyTorch's number is "
        reason += "one of them or lies between them." if between else "neither of them, nor between them: it is wrong."
    elif record in evidence.steps:
        reason = (
            f"`{operation}` {_does(evidence, record)} exactly here, but the whole does not: it has a derivative, the same from both sides, "
            "and the number that PyTorch gives is wrong."
        )
    elif not (custom := operation.endswith(APPLY)) and (lost := _lost_digits(seen)) is not None:
        reason = (
            f"The number that PyTorch's rule for `{operation}` gives and that of differences have about {lost} digits in common: the rule "
            "is right, and rounding takes the others."
        )
        return Finding("differentiable", reason, record.node, instead_of(evidence.trace, record, verdict, name), mask)
    else:
        rule = f"the `backward` of `{operation.removesuffix(APPLY)}`" if custom else f"PyTorch's rule for `{operation}`"
        means = "which is not the derivative of its `forward`" if custom else "which is wrong here"
        reason = f"Differences of the function settle at another number than {rule}, {means}."
    own = own_derivatives(lines, name, seen) if settles and not leaf.is_complex() else None
    if verdict == "singular" and settles and not _is_linear(record):
        words = "does not grow with the gradient that reaches it, so that it is right for one cotangent at most"
        reason = f"{rule[0].upper()}{rule[1:]} {words}."
        if own is not None and taken is not None and torch.allclose(own[mask], taken[mask], rtol=_LOST, atol=0.0):
            return Finding("differentiable", f"{reason} For a cotangent of ones it is right here.", record.node, _MULTIPLIED)
    if own is not None and taken is not None and bool(torch.isfinite(own[mask][0])):
        where = f"at element {mask.nonzero().tolist()[0]} " if leaf.ndim else ""
        reason += f" PyTorch gives {float(taken[mask][0]):.6g} {where}where the derivative is {float(own[mask][0]):.6g}."
    return Finding(verdict, reason, record.node, instead_of(evidence.trace, record, verdict, name), mask, taken, own)


def _withheld(record: StepRecord, argument: str, verdict: str, mask: Tensor, taken: Tensor | None) -> Finding:
    operation = operation_of(record.node)
    reason = f"`{operation}` gives what `{argument}` names no gradient on purpose, although its value moves with it: it is not trained."
    return Finding(verdict, reason, record.node, f"Leave out `{argument}` where the gradient should pass.", mask, taken)


def _is_linear(record: StepRecord) -> bool:
    """Whether a step's rule gives twice as much of twice the cotangents; an own `backward` need not."""
    once = [weights(o, k) if is_differentiable(o.dtype) and o.requires_grad else None for k, o in enumerate(record.outputs)]
    rows = step_vjp(record, once), step_vjp(record, [None if c is None else 2 * c for c in once])
    pairs = [(a, b) for a, b in zip(*rows, strict=True) if a is not None and b is not None]
    return all(torch.allclose(2 * a, b, rtol=_LOST, atol=0.0, equal_nan=True) for a, b in pairs)


def _lost_digits(seen: dict[int, Seen]) -> int | None:
    """How many digits PyTorch's numbers have at least, where they are the derivative but for digits that rounding took; else None."""
    apart = max(
        abs(s.sides.value - s.pytorch) / abs(s.sides.value) if s.sides is not None and s.sides.value else 1.0
        for s in seen.values()
    )
    return math.floor(-math.log10(apart)) if 0 < apart < _LOST else None


def _does(evidence: Evidence, record: StepRecord) -> str:
    kinds = {kind for marks in evidence.steps[record] for kind in marks.kinds()}
    if "jump" in kinds:
        return "jumps"
    if "singular" in kinds:
        return "has an infinite derivative"
    if "edge" in kinds:
        return "ends"
    return "bends" if "kink" in kinds else "flips"
