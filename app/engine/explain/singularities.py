"""Points where there is no derivative: where it is infinite or NaN, where the value jumps or its domain ends, where it bends."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from app.catalogue.facts import operations_with, sentence, values
from app.engine.explain.evidence import Evidence, weights
from app.engine.explain.expression_text import called
from app.engine.explain.findings import Finding, at_step, breaking, instead_of, operation_of, shown
from app.engine.stepwise.conditioning import is_singular, matrix_of
from app.engine.stepwise.degenerate_points import is_degenerate
from app.engine.stepwise.first_nonfinite import broken_derivative, broken_value, is_written
from app.engine.stepwise.one_sided import FINE, Marks, displaced, random_direction
from app.engine.stepwise.point import REFUSALS, Ref, all_finite, name_of
from app.engine.stepwise.trace import StepRecord, StepTrace, needed_for, step_vjp
from app.engine.tensors import is_differentiable

# Of a jump, what an element's rounding changes the outputs by: the nearest look from both sides is some 5000 roundings apart.
_STEEP: Final = 1e-3

_SINGULAR: Final = "The matrix is singular here, to rounding: there is no derivative, and the numbers are rounding."

# Times what the outputs are apart so far away: 1e6 and more at the poles that were looked at; 4 and 16 give the same reports (7 measured).
_POLE: Final = 8.0


def singular(evidence: Evidence, name: str) -> Iterator[Finding]:
    trace = evidence.trace
    ref = trace.leaves[name]
    gradient = evidence.weighted.get(ref)
    broken = None if gradient is None else ~torch.isfinite(gradient)
    seen = torch.zeros(trace.values[ref].shape, dtype=torch.bool, device=trace.values[ref].device)
    if broken is not None and bool(broken.any()):
        seen = broken
        yield _first_broken(evidence, evidence.weighted, name, broken)
    undefined = {
        ref_: ~torch.isfinite(trace.values[ref_]) for ref_ in trace.outputs if is_differentiable(trace.values[ref_].dtype)
    }
    undefined = {ref_: mask for ref_, mask in undefined.items() if bool(mask.any()) and name in trace.live[ref_]}
    if undefined:
        reached = trace.backward(
            {r: torch.where(m, weights(trace.values[r], k), 0) for k, (r, m) in enumerate(undefined.items())}
        ).get(ref)
        mask = torch.zeros_like(seen) if reached is None else (reached != 0)
        culprits = _culprits(trace, undefined, name) if bool(mask.any()) else None
        if culprits is not None and not bool(culprits.any()):
            if not bool(seen.any()):  # no derivative says which element it is
                yield _undefined(trace, next(iter(undefined)), None, name)
            return
        mask = mask if culprits is None else culprits
        if bool((mask & ~seen).any()):
            yield _undefined(trace, next(iter(undefined)), mask & ~seen, name)
        elif not bool(seen.any()) and _is_computed_of(trace, undefined, name):
            yield _undefined(trace, next(iter(undefined)), None, name)


def _culprits(trace: StepTrace, undefined: Collection[Ref], name: str) -> Tensor | None:
    """Elements of the input that lead to where a step first made infinity or NaN of finite numbers; None where that is not of this input.

    None of them where every derivative on the way is zero (`log(relu(x))`).
    """
    broken = broken_value(trace, needed_for(trace, undefined))
    if broken is None or not any(name in trace.live[parent] for parent in broken[0].parents):
        return None
    record, ref = broken
    bad = ~torch.isfinite(trace.values[ref])
    cotangents = trace.backward(_seeds(trace, record, bad, name)).get(trace.leaves[name])
    return torch.zeros_like(trace.values[trace.leaves[name]], dtype=torch.bool) if cotangents is None else cotangents != 0


def _is_computed_of(trace: StepTrace, undefined: Collection[Ref], name: str) -> bool:
    """Whether the step that made an output NaN or infinite was given what comes from the input, although PyTorch's derivative of it is zero.

    Infinity that is written down, as of a mask, is meant.
    """
    broken = broken_value(trace, needed_for(trace, undefined))
    if broken is None or (is_written(trace, broken[0]) and not bool(torch.isnan(trace.values[broken[1]]).any())):
        return False
    return any(name in trace.live[parent] for parent in broken[0].parents)


def undefined_outputs(trace: StepTrace, name: str) -> Iterator[Finding]:
    """Outputs that are NaN, though no derivative leads there from the input: the softmax of a row that is masked whole."""
    for ref in dict.fromkeys(trace.outputs):
        if (
            name in trace.depends[ref]
            and is_differentiable(trace.values[ref].dtype)
            and bool(torch.isnan(trace.values[ref]).any())
        ):
            yield _undefined(trace, ref, None, name)


def singular_matrix(evidence: Evidence, name: str, refs: Collection[Ref]) -> Finding | None:
    """A step between the input and `refs` whose matrix rounding alone tells from one that it has no derivative at: its numbers mean nothing.

    An exact zero of a factorisation is 1e-17 on another machine.
    """
    trace = evidence.trace
    needed = needed_for(trace, refs)
    for record in trace.records:
        if needed.isdisjoint(record.refs()) or not any(name in trace.live[parent] for parent in record.parents):
            continue
        outputs = [o.detach() for o in record.outputs]
        if is_degenerate(record.node, record.inputs[0].detach(), outputs):
            return at_step(trace, record, "singular", sentence(values("degenerate")[name_of(record.node)]), "singular", name)
        source = matrix_of(record.node)
        matrices = [i.detach() for (node, _), i in zip(record.parents, record.inputs, strict=True) if node is source]
        if any(is_singular(record.node, matrix) for matrix in matrices):
            return at_step(trace, record, "singular", _SINGULAR, "singular", name)
    return None


def singular_output(evidence: Evidence, ref: Ref) -> Iterator[Finding]:
    trace = evidence.trace
    value = trace.values[ref]
    mask = ~torch.isfinite(value)
    if bool(mask.any()):
        yield _undefined(trace, ref, mask, None)
        return
    cotangents = evidence.weighted if len(set(trace.outputs)) == 1 else trace.backward({ref: weights(value)})
    for name, leaf in trace.leaves.items():
        if leaf in cotangents and name in trace.live[ref] and not bool(torch.isfinite(cotangents[leaf]).all()):
            finding = _first_broken(evidence, cotangents, name, None)
            yield Finding(finding.verdict, finding.reason, finding.node, finding.instead)
            return


def _first_broken(evidence: Evidence, cotangents: dict[Ref, Tensor], name: str, mask: Tensor | None) -> Finding:
    """The first step, in the order of the backward pass, that made a finite cotangent infinite or NaN on its way to the input."""
    trace = evidence.trace
    broken = broken_derivative(trace, cotangents, name)
    if broken is None:
        return Finding("singular", "The derivative is not finite here.", None, None, mask)
    record, parent = broken.record, broken.parent
    bad = ~torch.isfinite(broken.cotangent)
    if (source := _unbounded_factor(trace, record, parent, bad)) is not None:
        return _undefined(trace, source, mask, name)
    operand = breaking(trace, record) or parent
    at = shown(trace.values[operand], bad)
    unused = [c for c in broken.incoming if c is not None and c.shape == bad.shape and not bool((c[bad] != 0).any())]
    operation = operation_of(record.node)
    if _is_arbitrary(record, bad, trace.values[parent]):
        if is_degenerate(record.node, trace.values[parent], [o.detach() for o in record.outputs]):
            reason = sentence(values("degenerate")[name_of(record.node)])
            return Finding("singular", reason, record.node, instead_of(trace, record, "singular", name, parent), mask)
        reason = (
            f"The vectors of `{operation}` are determined up to a factor e^(i phi), and what depends on it has no derivative."
        )
        return Finding("singular", reason, record.node, instead_of(trace, record, "phase", name, parent), mask)
    x = called(trace, operand, "its input" if operand is parent else "its divisor")
    if unused:
        own = dict(zip(record.parents, step_vjp(record, [torch.ones_like(o) for o in record.outputs]), strict=True))[parent]
        is_nan = own is not None and bool(torch.isnan(own[bad]).all())
        reason = (
            f"The derivative of `{operation}` is {'not a number' if is_nan else 'infinite'}{f' at {x} = {at}' if at else ''}, and although "
            f"nothing of its result is used there (cotangent 0), 0 · {'NaN' if is_nan else '∞'} is NaN."
        )
        instead = None if _is_chosen_from(trace, record) else instead_of(trace, record, "singular", name, parent)
        instead = instead or instead_of(trace, record, "unselected", name, parent)
        return Finding("singular", reason, record.node, instead, mask)
    if at and not all_finite(trace.values[parent][bad]):
        # What it is the derivative of is not finite there: the step that made that value is to blame, not this one.
        return _undefined(trace, parent, mask, name)
    reason = f"The derivative of `{operation}` is {_kinds(broken.cotangent, bad, trace.values[operand], x, 'not a number')}."
    return Finding("singular", reason, record.node, instead_of(trace, record, "singular", name, parent), mask)


def _unbounded_factor(trace: StepTrace, record: StepRecord, parent: Ref, bad: Tensor) -> Ref | None:
    """What is not finite among the others that a product is of: the derivative by one factor is the other, log(x) in x log(x)."""
    if name_of(record.node) not in operations_with("combines", "product"):
        return None
    others = [p for p in record.parents if p != parent and not all_finite(trace.values[p])]
    return others[0] if others and all_finite(trace.values[parent][bad]) else None


def _is_chosen_from(trace: StepTrace, record: StepRecord) -> bool:
    """Whether some step after this one takes some elements and leaves others, as `where` does."""
    choosers = operations_with("chooses")
    behind = set(record.refs())
    for later in trace.records[trace.records.index(record) + 1 :]:
        if not behind.isdisjoint(later.parents):
            if name_of(later.node) in choosers:
                return True
            behind.update(later.refs())
    return False


def _is_arbitrary(record: StepRecord, bad: Tensor, value: Tensor) -> bool:
    """Whether a step gave NaN because its complex vectors' phases were asked for."""
    is_of_vectors = name_of(record.node) in operations_with("phase") and any(output.is_complex() for output in record.outputs)
    return is_of_vectors and bool(bad.all()) and all_finite(value)


def _kinds(broken: Tensor, among: Tensor, operand: Tensor | None, name: str, nan: str) -> str:
    """`infinite at x = 0 and NaN at x = -1`: what `broken` is where it is not finite, and at which element of what it is made of.

    `among`: only there. `nan`: the word for NaN.
    """
    words = []
    for word, mask in (("infinite", among & torch.isinf(broken)), (nan, among & torch.isnan(broken))):
        if bool(mask.any()):
            at = "" if operand is None else shown(operand, mask)
            words.append(f"{word} at {name} = {at}" if at else word)
    return " and ".join(words)


def _undefined(trace: StepTrace, ref: Ref, mask: Tensor | None, name: str | None) -> Finding:
    """The value itself is not finite: the first step, forwards, that made it so."""
    broken = broken_value(trace, needed_for(trace, {ref}))
    if broken is None:
        odd = [leaf for leaf, r in trace.leaves.items() if not all_finite(trace.values[r])]
        whose = name if name in odd else next(iter(odd), None)
        reason = f"The input `{whose}` itself holds NaN or infinity." if whose else "The value is not finite."
        return Finding("singular", reason, mask=mask)
    record, undefined = broken
    value = trace.values[undefined]
    like = breaking(trace, record) or next(
        (p for p in record.parents if trace.values[p].shape == value.shape and trace.values[p].dtype != torch.bool), None
    )
    among = ~torch.isfinite(value)
    if mask is not None and mask.shape == value.shape and bool((among & mask).any()):
        among &= mask
    operand, of = (None, "") if like is None else (trace.values[like], called(trace, like, "its argument"))
    reason = (
        f"The value of `{operation_of(record.node)}` is {_kinds(value, among, operand, of, 'NaN')}, so there is no derivative."
    )
    return Finding("singular", reason, record.node, instead_of(trace, record, "value", name or "x"), mask)


# Points where the function bends, jumps or ends.


def jumps(evidence: Evidence, name: str) -> Iterator[Finding]:
    marks = evidence.jumps.get(name)
    if marks is None or not bool((marks.jump | marks.singular | marks.edge).any()):
        return
    trace = evidence.trace
    kinds = ("jump", "switch") if bool(marks.jump.any()) else ("singular",) if bool(marks.singular.any()) else ("edge",)
    record = _suspect(evidence, name, kinds)
    verdict, reason = _words(evidence, record, kinds[0])
    mask = None if record is None else seen_at(evidence, name, record, kinds)
    gradient = evidence.weighted.get(trace.leaves[name])
    if gradient is not None and not bool(torch.isfinite(gradient).all()):
        mask = None if mask is None else mask & torch.isfinite(gradient)
        if mask is None or not bool(mask.any()):
            return  # said already, with the step that broke the derivative
    if gradient is not None and mask is not None and bool(mask.any()):
        mask = mask & ~_is_too_steep(evidence, name, gradient)
        if not bool(mask.any()):
            return
    yield at_step(trace, record, verdict, reason, kinds[0], name, mask, _taken(evidence, name, verdict))


def _is_too_steep(evidence: Evidence, name: str, gradient: Tensor) -> Tensor:
    """Elements beside a pole, as pi / 2 of tan: steps to both sides of it look like a jump, and are nothing beside the value itself.

    Their last bits change the outputs at their finite gradient by as much as these seem to jump.
    """
    trace, point = evidence.trace, evidence.trace.point
    leaf = point.leaves[name]
    by = random_direction(leaf, 100)
    try:
        with torch.no_grad():
            right, left = (point.run({name: displaced(leaf, side * FINE[1], by)}) for side in (1, -1))
    except REFUSALS:
        return torch.zeros_like(leaf, dtype=torch.bool)
    gap, size = 0.0, 0.0
    for k, (ref, a, b) in enumerate(zip(trace.outputs, right, left, strict=True)):
        if a.shape == b.shape == trace.values[ref].shape and is_differentiable(a.dtype):
            gap += float((weights(a, k) * (a - b)).abs().nan_to_num(0, 0, 0).sum())
            size += float((weights(a, k) * trace.values[ref]).abs().nan_to_num(0, 0, 0).sum())
    by_a_bit = gradient.abs() * leaf.abs() * torch.finfo(leaf.dtype).eps
    return torch.isfinite(gradient) & (by_a_bit > _STEEP * gap) & (size > _POLE * gap)


def kinks(evidence: Evidence, name: str) -> Iterator[Finding]:
    mask = evidence.kinks.get(name)
    gradient = evidence.weighted.get(evidence.trace.leaves[name])
    if mask is None or gradient is None:
        return
    mask = mask & torch.isfinite(gradient)
    marks = evidence.jumps.get(name)
    if marks is not None and bool(marks.jump.any()):
        jumper = _suspect(evidence, name, ("jump", "switch"))
        jumping = None if jumper is None else seen_at(evidence, name, jumper, ("jump", "switch"))
        mask = torch.zeros_like(mask) if jumping is None else mask & ~jumping
    elif marks is not None and bool(marks.edge.any()) and not bool(marks.singular.any()):
        ending = _suspect(evidence, name, ("edge",))
        ended = None if ending is None else seen_at(evidence, name, ending, ("edge",))
        mask = mask if ended is None else mask & ~ended  # said already: the domain ends there
    if not bool(mask.any()):
        return
    record = _suspect(evidence, name, ("kink", "switch", "edge"))
    if record is None and marks is not None:
        return  # no step bends: the gradient of what jumps or runs away is not continuous beside the point either
    record = record or _suspect(evidence, name, ("jump",))
    verdict, reason = _words(evidence, record, "kink")
    taken = _taken(evidence, name, verdict)
    yield at_step(evidence.trace, record, verdict, reason + _choice(taken, mask), "kink", name, mask, taken)


def _choice(taken: Tensor | None, mask: Tensor) -> str:
    """Which of the subgradients PyTorch takes, where it is the same in all elements."""
    if taken is None or taken.is_complex():
        return ""
    chosen = torch.unique(taken[mask])
    return f" PyTorch takes {chosen.item():.6g} there." if len(chosen) == 1 else ""


def marked_output(evidence: Evidence, ref: Ref, marks: Marks) -> Iterator[Finding]:
    names = sorted(evidence.trace.live[ref] & set(evidence.moving))
    for kind in marks.kinds():
        mask = getattr(marks, kind)
        name = names[0] if names else ""
        also = ("switch",) if kind in ("kink", "jump") else ()
        record = next((r for n in names if (r := _suspect(evidence, n, (kind, *also)))), None)
        verdict, reason = _words(evidence, record, kind)
        yield at_step(evidence.trace, record, verdict, reason, kind, name, mask)


def _words(evidence: Evidence, record: StepRecord | None, kind: str) -> tuple[str, str]:
    operation = "the function" if record is None else f"`{operation_of(record.node)}`"
    if kind == "jump":
        return (
            "singular",
            f"The value of {operation} jumps here: there is no derivative, and the number that PyTorch gives means nothing.",
        )
    if kind == "singular":
        return "singular", f"The difference quotient of {operation} grows without bound here: the derivative is infinite."
    if kind == "edge":
        return "kink", f"The domain of {operation} ends here: the derivative exists from one side only."
    seen = [] if record is None else [k for marks in evidence.steps[record] for k in marks.kinds()]
    if record is not None and "kink" not in seen and "switch" in seen:
        return "kink", f"The outcome of {operation} flips exactly here, and the one-sided derivatives of the result differ."
    if record is not None and "kink" not in seen and "jump" in seen:
        return "kink", f"{operation} jumps exactly here, and the one-sided derivatives of the result differ."
    return "kink", f"The one-sided derivatives of {operation} differ here."


def _taken(evidence: Evidence, name: str, verdict: str) -> Tensor | None:
    return evidence.gradient.get(name) if verdict == "kink" else None


def _suspect(evidence: Evidence, name: str, kinds: Sequence[str]) -> StepRecord | None:
    """The first step on the way from the input that was seen to do one of `kinds`, the earlier of the kinds first."""
    for kind in kinds:
        for record, marks in evidence.steps.items():
            if any(bool(getattr(m, kind).any()) for m in marks) and any(
                name in evidence.trace.depends[p] for p in record.parents
            ):
                return record
    return None


def seen_at(evidence: Evidence, name: str, record: StepRecord, kinds: Sequence[str]) -> Tensor | None:
    """Elements of the input that move what the step was seen to do it at; None where that cannot be told."""
    return seen_at_any(evidence, name, [record], kinds)


def seen_at_any(evidence: Evidence, name: str, records: Sequence[StepRecord], kinds: Sequence[str]) -> Tensor | None:
    """The same of any of the steps, by one backward pass for all."""
    trace, seeds = evidence.trace, dict[Ref, Tensor]()
    for number, record in enumerate(records):
        own: dict[Ref, Tensor] = {}
        for mark in evidence.steps.get(record, ()):
            mask = torch.stack([getattr(mark, kind) for kind in kinds]).any(0)
            if bool(mask.any()):
                own |= _seeds(trace, record, mask, name, number)
        seeds |= {ref: seeds[ref] + seed if ref in seeds else seed for ref, seed in own.items()}
    cotangents = trace.backward(seeds).get(trace.leaves[name]) if seeds else None
    return None if cotangents is None else cotangents != 0


def _seeds(trace: StepTrace, record: StepRecord, mask: Tensor, name: str, number: int = 0) -> dict[Ref, Tensor]:
    """Random cotangents of what a step is given, where its result is under the mask, or of all of it where shapes do not say where.

    Others for each `number`, so that those of two steps do not cancel.
    """
    seeds = {}
    for k, parent in enumerate(record.parents):
        value = trace.values[parent]
        if name not in trace.depends[parent] or not is_differentiable(value.dtype):
            continue
        here = (
            mask.to(torch.float64).sum_to_size(value.shape) > 0
            if _widens(value, mask)
            else torch.ones_like(value, dtype=torch.bool)
        )
        seeds[parent] = torch.where(here, weights(value, k + number), 0)
    return seeds


def _widens(value: Tensor, mask: Tensor) -> bool:
    pairs = zip(reversed(value.shape), reversed(mask.shape), strict=False)
    return value.ndim <= mask.ndim and all(ours in (1, expected) for ours, expected in pairs)
