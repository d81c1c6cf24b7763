"""Paths that end or go flat: the steps at which no derivative passes, or one that is zero almost everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import torch

from app.catalogue.facts import operations_with
from app.engine.explain.differences.hook_effects import effect_of, is_hook
from app.engine.explain.evidence import Evidence
from app.engine.explain.findings import Finding, instead_of, operation_of
from app.engine.explain.formulas import formula_of
from app.engine.explain.singularities import seen_at
from app.engine.stepwise.detached import is_detaching
from app.engine.stepwise.one_sided import random_direction
from app.engine.stepwise.point import REFUSALS, Ref, all_finite, name_of
from app.engine.stepwise.trace import StepRecord, StepTrace, needed_for, writes
from app.engine.tensors import NAMES, is_differentiable
from app.program.differentiation.custom_functions import APPLY

SHAPE_ONLY: Final = operations_with("shape_only")
# What is taken out of the computation by a call of another name → the kind of way out, and what the call does.
_GRADIENT: Final = "grad"
_TAKING_OUT: Final = {
    "tensor": ("copied", "copies the numbers of tensors alone: no gradient passes it"),
    _GRADIENT: ("taken", "gives numbers here: without `create_graph=True` no gradient passes a gradient"),
}
_OVERWRITING: Final = ("fill_", "zero_", "fill", "full_like")
_ORDINALS: Final = ("first", "second", "third", "last")


def cuts(trace: StepTrace, name: str, outputs: set[Ref] | None = None) -> Iterator[Finding]:
    """The steps at which a path from the input to an output ends."""
    needed = trace.needed if outputs is None else needed_for(trace, outputs)
    for record in trace.records:
        if not any(name in trace.live[p] for p in record.parents):
            continue
        for k, ref in enumerate(record.refs()):
            if ref in needed and name not in trace.live[ref]:
                what, reason = _cut(trace, record, k, name)
                yield Finding("disconnected", reason, record.node, instead_of(trace, record, what, name))
                break


def _cut(trace: StepTrace, record: StepRecord, k: int, name: str) -> tuple[str, str]:
    operation, function, output = operation_of(record.node), name_of(record.node), record.outputs[k]
    if function in _TAKING_OUT and record.node.target is torch.Tensor.detach:
        what, does = _TAKING_OUT[function]
        return what, f"`{operation}` {does}."
    if is_detaching(record.node):
        return "detach", f"`{operation}` takes the value out of the computation on purpose: no gradient passes it."
    if function in _OVERWRITING or writes(record.node):
        return "overwritten", f"`{operation}` overwrites all values, and nothing of `{name}` is left in them."
    if function in SHAPE_ONLY and output.dtype != torch.bool:
        return "shape", f"`{operation}` uses only the shape of `{name}`, not its values."
    kind = NAMES.get(output.dtype, str(output.dtype))
    if output.dtype == torch.bool:
        return "boolean", f"`{operation}` gives truth values ({kind}): {steps_over('boolean')}."
    if not is_differentiable(output.dtype):
        which = f"`{operation}`" if len(record.outputs) == 1 else f"The {_ORDINALS[min(k, 3)]} result of `{operation}`"
        return (
            "integer",
            f"{which} {'gives' if len(record.outputs) == 1 else 'is'} whole numbers ({kind}): {steps_over('integer')}.",
        )
    if len(record.outputs) > 1 and not any(record.passes[k]) and any(any(row) for row in record.passes):
        return "formula", f"The {_ORDINALS[min(k, 3)]} result of `{operation}` has no derivative in PyTorch, others have."
    if operation.endswith(APPLY):
        return "own_backward", f"The `backward` of `{operation.removesuffix(APPLY)}` gives no gradient by this argument (None)."
    if not any(any(row) for row in record.passes):
        if formula_of(record.outputs) is not None:
            return "formula", f"`{operation}` passes no derivative with these arguments: PyTorch gives zero."
        of = " of complex numbers" if any(tensor.is_complex() for tensor in record.inputs) else ""
        return "formula", f"PyTorch has no derivative formula for `{operation}`{of}."
    return "argument", f"PyTorch's `{operation}` has no derivative with respect to this argument."


def steps_over(what: str) -> str:
    value = "truth value" if what == "boolean" else "whole number"
    return f"a {value} does not move when the input moves a little, it only jumps, so no derivative passes"


def discrete_maker(trace: StepTrace, ref: Ref) -> StepRecord | None:
    """The step at which a floating value became discrete on its way to `ref`; where none did, the step that made it."""
    maker, needed = trace.maker, needed_for(trace, {ref})
    for record in trace.records:
        floats = any(is_differentiable(trace.values[p].dtype) and trace.depends[p] for p in record.parents)
        if floats and any(r in needed and not is_differentiable(trace.values[r].dtype) for r in record.refs()):
            return record
    return maker.get(ref)


def flat(evidence: Evidence, name: str, outputs: Iterable[Ref]) -> Finding:
    """The step on the way from the input to `outputs` that leaves only a derivative of zero."""
    trace = evidence.trace
    needed = needed_for(trace, outputs)
    for record in trace.records:
        for k, ref in enumerate(record.refs()):
            at = [
                j for j, p in enumerate(record.parents) if name in trace.live[p] and record.passes[k][j] and record.flat[k][j]
            ]
            if ref not in needed or not at:
                continue
            operation = operation_of(record.node)
            if name_of(record.node) not in operations_with("flat") and _moves(trace, record, k, at[0]):
                return _withheld(trace, record, name)
            reason = (
                f"`{operation}` is constant between its jumps: its derivative is zero almost everywhere{_zero(evidence, name)}."
            )
            mask = seen_at(evidence, name, record, ("jump",))
            if mask is not None and bool(mask.any()):
                reason += " This point lies on a jump."
            what = "slope" if name_of(record.node) == _GRADIENT else "flat"
            return Finding("piecewise_constant", reason, record.node, instead_of(trace, record, what, name), mask)
    return Finding("piecewise_constant", "The derivative is zero almost everywhere.")


def _withheld(trace: StepTrace, record: StepRecord, name: str) -> Finding:
    """The finding on a step that gives zero for the derivative of what moves."""
    if is_hook(record.node):
        effect = effect_of(record)
        reason = f"The hook {effect.does}, so that what PyTorch gives is not the derivative of the function."
        return Finding("piecewise_constant", reason, record.node, effect.instead)
    operation = operation_of(record.node)
    whose = f"The `backward` of `{operation.removesuffix(APPLY)}`" if operation.endswith(APPLY) else f"PyTorch's `{operation}`"
    what = "own_backward" if operation.endswith(APPLY) else "zero"
    reason = f"{whose} passes a derivative of zero, although its value moves with this argument."
    return Finding("piecewise_constant", reason, record.node, instead_of(trace, record, what, name))


def _zero(evidence: Evidence, name: str) -> str:
    """That PyTorch gives that zero, where it does: not where a step before makes NaN of it."""
    trace = evidence.trace
    gradient = evidence.weighted.get(trace.leaves[name])
    finite = all_finite([trace.values[ref] for ref in trace.outputs])
    return ", and PyTorch gives zero" if finite and gradient is not None and not bool((gradient != 0).any()) else ""


def _moves(trace: StepTrace, record: StepRecord, k: int, j: int) -> bool:
    """Whether output k moves in proportion to input j: PyTorch's zero is then a choice, not the derivative (`normal`)."""
    inputs = [tensor.detach() for tensor in record.inputs]
    by = random_direction(inputs[j], 0)
    far, near = 2.0**-9, 2.0**-13
    moved = []
    for step in (far, near):
        try:
            output = trace.again(record, [*inputs[:j], inputs[j] + step * by, *inputs[j + 1 :]])[k]
        except REFUSALS:
            return False
        if output.shape != record.outputs[k].shape:
            return False
        moved.append((output - record.outputs[k].detach()).abs())
    ratio = far / near
    return bool(((moved[1] > 0) & (moved[0] > 0.8 * ratio * moved[1]) & (moved[0] < 1.2 * ratio * moved[1])).any())
