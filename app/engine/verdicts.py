"""What the numbers of a survey mean for each input and output: findings, the gravest first.

Knows the verdicts of the contract (section 4) and their order. Refuses to know JSON, and to compute anything beyond a backward pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, fx

from app.engine.local import Local, Ran, pulled
from app.engine.probe import Marks
from app.engine.survey import Survey, weights
from app.engine.tensors import NAMES, is_differentiable
from app.engine.ways_out import way_out
from app.engine.widened import Ref, name_of, step_of

# Gravest first. A piecewise constant path has no derivative that could be singular; a kink is harmless beside an infinite derivative.
ORDER: Final = ("disconnected", "not_differentiable", "piecewise_constant", "singular", "kink", "differentiable")
_SHAPE_ONLY: Final = frozenset(
    {"zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like", "empty_like", "isnan"}
)
_DETACHING: Final = frozenset({"detach", "stop_gradient", "data"})
_AXIS_SECOND: Final = frozenset(
    {
        "argmax",
        "argmin",
        "max",
        "min",
        "amax",
        "amin",
        "median",
        "mode",
        "sort",
        "argsort",
        "cummax",
        "cummin",
        "softmax",
        "log_softmax",
    }
)
_PARTIAL: Final = 3
_ORDINALS: Final = ("first", "second", "third", "last")


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One thing found out about an input or an output.

    Attributes:
        node: the step that is the cause; None where there is none.
        mask: the elements concerned; None where all are, or none in particular.
        subgradient: the gradient that PyTorch takes, of the input's shape; only of kinks.
    """

    verdict: str
    reason: str
    node: fx.Node | None = None
    instead: str | None = None
    mask: Tensor | None = None
    subgradient: Tensor | None = None


def of_input(survey: Survey, name: str) -> list[Finding]:
    """Findings on one input, gravest first; never empty."""
    local = survey.local
    ref = local.leaves[name]
    leaf = local.values[ref]
    if not is_differentiable(leaf.dtype):
        kind = NAMES.get(leaf.dtype, str(leaf.dtype))
        return [
            Finding(
                "not_differentiable",
                f"`{name}` is {kind}: it cannot change by a little, so nothing can be differentiated by it.",
            )
        ]
    if not any(name in local.depends[out] for out in local.outputs):
        used = any(ref in ran.parents for ran in local.ran)
        why = f"nothing that is computed from `{name}` reaches an output" if used else f"`{name}` is never used"
        return [Finding("disconnected", f"{why[0].upper() + why[1:] if used else why}.")]
    cuts = list(_cuts(local, name))
    if not any(name in local.live[out] for out in local.outputs):
        return cuts or [Finding("disconnected", f"No derivative leads from `{name}` to an output.")]
    if not any(name in local.firm[out] for out in local.outputs):
        return [_flat(survey, name)]
    found = [*_singular(survey, name), *_jumps(survey, name), *_kinks(survey, name)]
    found.sort(key=lambda finding: ORDER.index(finding.verdict))
    rest = [
        Finding(
            "differentiable",
            f"One of the paths from `{name}` ends here, the others do not: {cut.reason}",
            cut.node,
            cut.instead,
        )
        for cut in cuts[:_PARTIAL]
        if name_of(cut.node) not in _SHAPE_ONLY  # type: ignore[arg-type]
    ]
    return [*(found or [Finding("differentiable", "")]), *rest]


def of_output(survey: Survey, index: int) -> list[Finding]:
    """Findings on one output, gravest first; never empty."""
    local = survey.local
    ref = local.outputs[index]
    value = local.values[ref]
    if not is_differentiable(value.dtype):
        maker = _discrete_maker(local, ref)
        kind = NAMES.get(value.dtype, str(value.dtype))
        what = "boolean" if value.dtype == torch.bool else "integer"
        reason = f"The result is {kind}: {_steps_over(what)}."
        return [_at(local, maker, "not_differentiable", reason, what)]
    if not local.depends[ref]:
        return [Finding("disconnected", "It depends on no floating input.")]
    if not local.live[ref]:
        cuts = [cut for name in sorted(local.depends[ref]) for cut in _cuts(local, name, {ref})]
        return cuts[:1] or [Finding("disconnected", "No derivative leads here from any input.")]
    if not local.firm[ref]:
        return [_flat(survey, next(iter(sorted(local.live[ref]))))]
    marks = survey.outputs[index] if survey.outputs is not None else None
    found = [*_singular_output(survey, ref), *(_marked_output(survey, ref, marks) if marks is not None else [])]
    return sorted(found, key=lambda finding: ORDER.index(finding.verdict)) or [Finding("differentiable", "")]


# Cut and flat paths.


def _cuts(local: Local, name: str, outputs: set[Ref] | None = None) -> Iterator[Finding]:
    """The steps at which a path from the input to an output ends."""
    needed = local.needed if outputs is None else _needed_for(local, outputs)
    for ran in local.ran:
        if not any(name in local.live[p] for p in ran.parents):
            continue
        for k, ref in enumerate(ran.refs()):
            if ref in needed and name not in local.live[ref]:
                what, reason = _cut(local, ran, k, name)
                yield Finding("disconnected", reason, ran.node, _instead(local, ran, what, name))
                break


def _needed_for(local: Local, outputs: set[Ref]) -> set[Ref]:
    needed = set(outputs)
    for ran in reversed(local.ran):
        if any(ref in needed for ref in ran.refs()):
            needed.update(ran.parents)
    return needed


def _cut(local: Local, ran: Ran, k: int, name: str) -> tuple[str, str]:
    operation, function, output = _operation(ran.node), name_of(ran.node), ran.outputs[k]
    if function in _DETACHING:
        return "detach", f"`{operation}` takes the value out of the computation on purpose: no gradient passes it."
    if function in _SHAPE_ONLY:
        return "shape", f"`{operation}` uses only the shape of `{name}`, not its values."
    kind = NAMES.get(output.dtype, str(output.dtype))
    if output.dtype == torch.bool:
        return "boolean", f"`{operation}` gives truth values ({kind}): {_steps_over('boolean')}."
    if not is_differentiable(output.dtype):
        which = f"`{operation}`" if len(ran.outputs) == 1 else f"The {_ORDINALS[min(k, 3)]} result of `{operation}`"
        return (
            "integer",
            f"{which} {'gives' if len(ran.outputs) == 1 else 'is'} whole numbers ({kind}): {_steps_over('integer')}.",
        )
    if ran.refused or not any(any(row) for row in ran.passes):
        return "formula", f"PyTorch has no derivative formula for `{operation}`."
    return "argument", f"PyTorch's `{operation}` has no derivative with respect to this argument."


def _steps_over(what: str) -> str:
    thing = "truth value" if what == "boolean" else "whole number"
    return f"a {thing} does not move when the input moves a little, it only jumps, so no derivative passes"


def _discrete_maker(local: Local, ref: Ref) -> Ran | None:
    """The step at which a floating value became discrete on its way to `ref`; where none did, the step that made it."""
    maker, needed = local.maker, _needed_for(local, {ref})
    for ran in local.ran:
        floats = any(is_differentiable(local.values[p].dtype) and local.depends[p] for p in ran.parents)
        if floats and any(r in needed and not is_differentiable(local.values[r].dtype) for r in ran.refs()):
            return ran
    return maker.get(ref)


def _flat(survey: Survey, name: str) -> Finding:
    local = survey.local
    for ran in local.ran:
        for k, ref in enumerate(ran.refs()):
            flat = [j for j, p in enumerate(ran.parents) if name in local.live[p] and ran.passes[k][j] and ran.flat[k][j]]
            if ref not in local.needed or not flat:
                continue
            operation = _operation(ran.node)
            reason = f"`{operation}` is constant between its jumps: its derivative is zero almost everywhere, and PyTorch gives zero."
            mask = _seen_at(survey, name, ran, ("jump",))
            if mask is not None and bool(mask.any()):
                reason += " This point lies on a jump."
            return Finding("piecewise_constant", reason, ran.node, _instead(local, ran, "flat", name), mask)
    return Finding("piecewise_constant", "The derivative is zero almost everywhere.")


# Points where the derivative is not finite.


def _singular(survey: Survey, name: str) -> Iterator[Finding]:
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


def _singular_output(survey: Survey, ref: Ref) -> Iterator[Finding]:
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
        for parent, cotangent in zip(ran.parents, pulled(ran, incoming), strict=True):
            if cotangent is None or name not in local.live[parent] or bool(torch.isfinite(cotangent).all()):
                continue
            bad = ~torch.isfinite(cotangent)
            at = _shown(local.values[parent], bad)
            zero = [c for c in incoming if c is not None and c.shape == bad.shape and not bool((c[bad] != 0).any())]
            operation, x = _operation(ran.node), _called(local, parent, "its input")
            if zero:
                reason = (
                    f"The derivative of `{operation}` is infinite at {x} = {at}, and although nothing of its result is used there "
                    "(cotangent 0), 0 · ∞ is NaN."
                )
                return Finding("singular", reason, ran.node, _instead(local, ran, "unselected", name, parent), mask)
            kind = "infinite" if bool(torch.isinf(cotangent[bad]).all()) else "not a number"
            where = f" at {x} = {at}" if at else ""
            reason = f"The derivative of `{operation}` is {kind}{where}."
            return Finding("singular", reason, ran.node, _instead(local, ran, "singular", name, parent), mask)
    return Finding("singular", "The derivative is not finite here.", None, None, mask)


def _undefined(local: Local, ref: Ref, mask: Tensor, name: str | None) -> Finding:
    """The value itself is not finite: the first step, forwards, that made it so."""
    needed = _needed_for(local, {ref})
    for ran in local.ran:
        made = [r for r in ran.refs() if r in needed and not _finite(local.values[r])]
        if made and all(_finite(local.values[p]) for p in ran.parents):
            value = local.values[made[0]]
            kind = "NaN" if bool(torch.isnan(value).any()) else "infinite"
            bad = ~torch.isfinite(value)
            at = next((_shown(local.values[p], bad) for p in ran.parents if local.values[p].shape == value.shape), "")
            x = next((_called(local, p, name or "x") for p in ran.parents if local.values[p].shape == value.shape), "")
            reason = (
                f"The value of `{_operation(ran.node)}` is {kind}{f' at {x} = {at}' if at else ''}, so there is no derivative."
            )
            return Finding("singular", reason, ran.node, _instead(local, ran, "value", name or "x"), mask)
    whose = next((leaf for leaf, r in local.leaves.items() if not _finite(local.values[r])), None)
    return Finding(
        "singular", f"The input `{whose}` itself holds NaN or infinity." if whose else "The value is not finite.", mask=mask
    )


def _finite(value: Tensor) -> bool:
    return not is_differentiable(value.dtype) or bool(torch.isfinite(value).all())


# Points where the function bends, jumps or ends.


def _jumps(survey: Survey, name: str) -> Iterator[Finding]:
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
    mask = None if ran is None else _seen_at(survey, name, ran, kinds)
    yield _at(local, ran, verdict, reason, kinds[0], name, mask, _taken(survey, name, verdict))


def _kinks(survey: Survey, name: str) -> Iterator[Finding]:
    mask = survey.bends.get(name)
    gradient = survey.weighted.get(survey.local.leaves[name])
    if mask is None or gradient is None:
        return
    mask = mask & torch.isfinite(gradient)
    marks = survey.jumps.get(name)
    if marks is not None and bool(marks.jump.any()):
        jumper = _suspect(survey, name, ("jump", "switch"))
        jumping = None if jumper is None else _seen_at(survey, name, jumper, ("jump", "switch"))
        mask = torch.zeros_like(mask) if jumping is None else mask & ~jumping
    if not bool(mask.any()):
        return
    ran = _suspect(survey, name, ("kink", "switch", "edge"))
    verdict, reason = _words(survey, ran, "kink")
    taken = _taken(survey, name, verdict)
    yield _at(survey.local, ran, verdict, reason + _choice(taken, mask), "kink", name, mask, taken)


def _choice(taken: Tensor | None, mask: Tensor) -> str:
    """Which of the subgradients PyTorch takes, where it is the same in all elements."""
    if taken is None or taken.is_complex():
        return ""
    chosen = taken[mask].unique()
    return f" PyTorch takes {chosen.item():.6g} there." if len(chosen) == 1 else ""


def _marked_output(survey: Survey, ref: Ref, marks: Marks) -> Iterator[Finding]:
    names = sorted(survey.local.live[ref] & set(survey.moving))
    for kind in marks.kinds():
        mask = getattr(marks, kind)
        name = names[0] if names else ""
        also = ("switch",) if kind in ("kink", "jump") else ()
        ran = next((r for n in names if (r := _suspect(survey, n, (kind, *also)))), None)
        verdict, reason = _words(survey, ran, kind)
        yield _at(survey.local, ran, verdict, reason, kind, name, mask)


def _words(survey: Survey, ran: Ran | None, kind: str) -> tuple[str, str]:
    operation = "the function" if ran is None else f"`{_operation(ran.node)}`"
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


def _suspect(survey: Survey, name: str, kinds: Sequence[str]) -> Ran | None:
    """The first step on the way from the input that was seen to do one of `kinds`, the earlier of the kinds first."""
    for kind in kinds:
        for ran, marks in survey.steps.items():
            if any(bool(getattr(m, kind).any()) for m in marks) and any(name in survey.local.depends[p] for p in ran.parents):
                return ran
    return None


def _seen_at(survey: Survey, name: str, ran: Ran, kinds: Sequence[str]) -> Tensor | None:
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


# Words.


def _operation(node: fx.Node) -> str:
    step = step_of(node)
    return name_of(node) if step is None else step.operation


def _at(
    local: Local,
    ran: Ran | None,
    verdict: str,
    reason: str,
    what: str,
    name: str = "x",
    mask: Tensor | None = None,
    subgradient: Tensor | None = None,
) -> Finding:
    """The finding at a step, with the way out for `what` happened there."""
    if ran is None:
        return Finding(verdict, reason, mask=mask, subgradient=subgradient)
    return Finding(verdict, reason, ran.node, _instead(local, ran, what, name), mask, subgradient)


def _instead(local: Local, ran: Ran, what: str, name: str = "x", parent: Ref | None = None) -> str | None:
    if parent is None:
        candidates = [p for p in ran.parents if name in local.depends[p]] or [p for p in ran.parents if local.depends[p]]
        parent = candidates[0] if candidates else None
    x = _called(local, parent, "x") if parent is not None else "x"
    second = ran.node.args[1:2] if name_of(ran.node) in _AXIS_SECOND else ()
    dims = [a for a in (ran.node.kwargs.get("dim"), *second) if isinstance(a, int) and not isinstance(a, bool)]
    return way_out(what, name_of(ran.node), x=x, dim=dims[0] if dims else None)


_ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*) = ")


def _called(local: Local, ref: Ref, otherwise: str) -> str:
    """What the program calls this tensor: the input's name, or that of the variable that the step's line assigns."""
    for name, leaf in local.leaves.items():
        if leaf == ref:
            return name
    step = step_of(ref[0])
    found = _ASSIGNMENT.match(step.text) if step is not None else None
    if step is None or found is None:
        return otherwise
    same = [
        ran.node for ran in local.ran if (s := step_of(ran.node)) is not None and (s.line, s.text) == (step.line, step.text)
    ]
    return found[1] if same[-1] is ref[0] else otherwise


def _shown(value: Tensor, mask: Tensor) -> str:
    """The first value under the mask, for a sentence."""
    if value.shape != mask.shape or not bool(mask.any()):
        return ""
    return f"{value[mask][0].item():.6g}" if not value.is_complex() else str(value[mask][0].item())
