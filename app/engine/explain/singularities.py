"""Points where there is no derivative: where it is infinite or NaN, where the value jumps or its domain ends, where it bends.

Knows how to find the step that is the cause, and the elements. Refuses to know paths that are cut everywhere, which are `cuts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from app.engine.explain.evidence import Survey, weights
from app.engine.explain.findings import Finding, at_step, called, instead_of, operation_of, shown
from app.engine.stepwise.one_sided import Marks
from app.engine.stepwise.point import Ref
from app.engine.stepwise.trace import StepRecord, StepTrace, needed_for, step_vjp
from app.engine.tensors import is_differentiable


def singular(survey: Survey, name: str) -> Iterator[Finding]:
    local = survey.local
    ref = local.leaves[name]
    gradient = survey.weighted.get(ref)
    broken = None if gradient is None else ~torch.isfinite(gradient)
    seen = torch.zeros(local.values[ref].shape, dtype=torch.bool, device=local.values[ref].device)
    if broken is not None and bool(broken.any()):
        seen = broken
        yield _first_broken(survey, survey.weighted, name, broken)
    undefined = {
        ref_: ~torch.isfinite(local.values[ref_]) for ref_ in local.outputs if is_differentiable(local.values[ref_].dtype)
    }
    undefined = {ref_: mask for ref_, mask in undefined.items() if bool(mask.any()) and name in local.live[ref_]}
    if undefined:
        reached = local.sweep({r: torch.where(m, weights(local.values[r]), 0) for r, m in undefined.items()}).get(ref)
        mask = torch.zeros_like(seen) if reached is None else (reached != 0)
        if bool((mask & ~seen).any()):
            yield _undefined(local, next(iter(undefined)), mask & ~seen, name)


def singular_output(survey: Survey, ref: Ref) -> Iterator[Finding]:
    local = survey.local
    value = local.values[ref]
    mask = ~torch.isfinite(value)
    if bool(mask.any()):
        yield _undefined(local, ref, mask, None)
        return
    swept = survey.weighted if len(set(local.outputs)) == 1 else local.sweep({ref: weights(value)})
    for name, leaf in local.leaves.items():
        if leaf in swept and name in local.live[ref] and not bool(torch.isfinite(swept[leaf]).all()):
            found = _first_broken(survey, swept, name, None)
            yield Finding(found.verdict, found.reason, found.node, found.instead)
            return


def _first_broken(survey: Survey, swept: dict[Ref, Tensor], name: str, mask: Tensor | None) -> Finding:
    """The first step, in the order of the backward pass, that made a finite cotangent infinite or NaN on its way to the input."""
    local = survey.local
    for ran in reversed(local.ran):
        incoming = [swept.get(ref) for ref in ran.refs()]
        if all(c is None for c in incoming) or any(c is not None and not bool(torch.isfinite(c).all()) for c in incoming):
            continue
        for parent, cotangent in zip(ran.parents, step_vjp(ran, incoming), strict=True):
            if cotangent is None or name not in local.live[parent] or bool(torch.isfinite(cotangent).all()):
                continue
            bad = ~torch.isfinite(cotangent)
            at = shown(local.values[parent], bad)
            zero = [c for c in incoming if c is not None and c.shape == bad.shape and not bool((c[bad] != 0).any())]
            operation, x = operation_of(ran.node), called(local, parent, "its input")
            if zero:
                reason = (
                    f"The derivative of `{operation}` is infinite at {x} = {at}, and although nothing of its result is used there "
                    "(cotangent 0), 0 · ∞ is NaN."
                )
                return Finding("singular", reason, ran.node, instead_of(local, ran, "unselected", name, parent), mask)
            kind = "infinite" if bool(torch.isinf(cotangent[bad]).all()) else "not a number"
            where = f" at {x} = {at}" if at else ""
            reason = f"The derivative of `{operation}` is {kind}{where}."
            return Finding("singular", reason, ran.node, instead_of(local, ran, "singular", name, parent), mask)
    return Finding("singular", "The derivative is not finite here.", None, None, mask)


def _undefined(local: StepTrace, ref: Ref, mask: Tensor, name: str | None) -> Finding:
    """The value itself is not finite: the first step, forwards, that made it so."""
    needed = needed_for(local, {ref})
    for ran in local.ran:
        made = [r for r in ran.refs() if r in needed and not _finite(local.values[r])]
        if made and all(_finite(local.values[p]) for p in ran.parents):
            value = local.values[made[0]]
            kind = "NaN" if bool(torch.isnan(value).any()) else "infinite"
            bad = ~torch.isfinite(value)
            at = next((shown(local.values[p], bad) for p in ran.parents if local.values[p].shape == value.shape), "")
            x = next((called(local, p, name or "x") for p in ran.parents if local.values[p].shape == value.shape), "")
            reason = f"The value of `{operation_of(ran.node)}` is {kind}{f' at {x} = {at}' if at else ''}, so there is no derivative."
            return Finding("singular", reason, ran.node, instead_of(local, ran, "value", name or "x"), mask)
    whose = next((leaf for leaf, r in local.leaves.items() if not _finite(local.values[r])), None)
    return Finding(
        "singular", f"The input `{whose}` itself holds NaN or infinity." if whose else "The value is not finite.", mask=mask
    )


def _finite(value: Tensor) -> bool:
    return not is_differentiable(value.dtype) or bool(torch.isfinite(value).all())


# Points where the function bends, jumps or ends.


def jumps(survey: Survey, name: str) -> Iterator[Finding]:
    marks = survey.jumps.get(name)
    if marks is None or not bool((marks.jump | marks.singular | marks.edge).any()):
        return
    local = survey.local
    gradient = survey.weighted.get(local.leaves[name])
    if gradient is not None and not bool(torch.isfinite(gradient).all()):
        return  # said already, with the step that broke the derivative
    kinds = ("jump", "switch") if bool(marks.jump.any()) else ("singular",) if bool(marks.singular.any()) else ("edge",)
    ran = _suspect(survey, name, kinds)
    verdict, reason = _words(survey, ran, kinds[0])
    mask = None if ran is None else seen_at(survey, name, ran, kinds)
    yield at_step(local, ran, verdict, reason, kinds[0], name, mask, _taken(survey, name, verdict))


def kinks(survey: Survey, name: str) -> Iterator[Finding]:
    mask = survey.bends.get(name)
    gradient = survey.weighted.get(survey.local.leaves[name])
    if mask is None or gradient is None:
        return
    mask = mask & torch.isfinite(gradient)
    marks = survey.jumps.get(name)
    if marks is not None and bool(marks.jump.any()):
        jumper = _suspect(survey, name, ("jump", "switch"))
        jumping = None if jumper is None else seen_at(survey, name, jumper, ("jump", "switch"))
        mask = torch.zeros_like(mask) if jumping is None else mask & ~jumping
    if not bool(mask.any()):
        return
    ran = _suspect(survey, name, ("kink", "switch", "edge"))
    verdict, reason = _words(survey, ran, "kink")
    taken = _taken(survey, name, verdict)
    yield at_step(survey.local, ran, verdict, reason + _choice(taken, mask), "kink", name, mask, taken)


def _choice(taken: Tensor | None, mask: Tensor) -> str:
    """Which of the subgradients PyTorch takes, where it is the same in all elements."""
    if taken is None or taken.is_complex():
        return ""
    chosen = torch.unique(taken[mask])
    return f" PyTorch takes {chosen.item():.6g} there." if len(chosen) == 1 else ""


def marked_output(survey: Survey, ref: Ref, marks: Marks) -> Iterator[Finding]:
    names = sorted(survey.local.live[ref] & set(survey.moving))
    for kind in marks.kinds():
        mask = getattr(marks, kind)
        name = names[0] if names else ""
        also = ("switch",) if kind in ("kink", "jump") else ()
        ran = next((r for n in names if (r := _suspect(survey, n, (kind, *also)))), None)
        verdict, reason = _words(survey, ran, kind)
        yield at_step(survey.local, ran, verdict, reason, kind, name, mask)


def _words(survey: Survey, ran: StepRecord | None, kind: str) -> tuple[str, str]:
    operation = "the function" if ran is None else f"`{operation_of(ran.node)}`"
    if kind == "jump":
        return (
            "singular",
            f"The value of {operation} jumps here: there is no derivative, and the number that PyTorch gives means nothing.",
        )
    if kind == "singular":
        return "singular", f"The difference quotient of {operation} grows without bound here: the derivative is infinite."
    if kind == "edge":
        return "kink", f"The domain of {operation} ends here: the derivative exists from one side only."
    seen = [] if ran is None else [k for marks in survey.steps[ran] for k in marks.kinds()]
    if ran is not None and "kink" not in seen and "switch" in seen:
        return "kink", f"The outcome of {operation} flips exactly here, and the one-sided derivatives of the result differ."
    return "kink", f"The one-sided derivatives of {operation} differ here."


def _taken(survey: Survey, name: str, verdict: str) -> Tensor | None:
    return survey.gradient.get(name) if verdict == "kink" else None


def _suspect(survey: Survey, name: str, kinds: Sequence[str]) -> StepRecord | None:
    """The first step on the way from the input that was seen to do one of `kinds`, the earlier of the kinds first."""
    for kind in kinds:
        for ran, marks in survey.steps.items():
            if any(bool(getattr(m, kind).any()) for m in marks) and any(name in survey.local.depends[p] for p in ran.parents):
                return ran
    return None


def seen_at(survey: Survey, name: str, ran: StepRecord, kinds: Sequence[str]) -> Tensor | None:
    """Elements of the input that move what the step was seen to do it at; None where that cannot be told."""
    local = survey.local
    marks = survey.steps.get(ran)
    if marks is None:
        return None
    seeds: dict[Ref, Tensor] = {}
    for mark in marks:
        mask = torch.stack([getattr(mark, kind) for kind in kinds]).any(0)
        if not bool(mask.any()):
            continue
        for parent in ran.parents:
            value = local.values[parent]
            if name not in local.depends[parent] or not is_differentiable(value.dtype):
                continue
            here = (
                mask.to(torch.float64).sum_to_size(value.shape) > 0
                if _widens(value, mask)
                else torch.ones_like(value, dtype=torch.bool)
            )
            seeds[parent] = torch.where(here, weights(value), 0)
    swept = local.sweep(seeds).get(local.leaves[name]) if seeds else None
    return None if swept is None else swept != 0


def _widens(value: Tensor, mask: Tensor) -> bool:
    pairs = zip(reversed(value.shape), reversed(mask.shape), strict=False)
    return value.ndim <= mask.ndim and all(ours in (1, theirs) for ours, theirs in pairs)
