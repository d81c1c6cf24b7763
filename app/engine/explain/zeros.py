"""Gradients that are zero in every element, though a path leads to the output: the step at which they become zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from app.engine.explain.evidence import Evidence
from app.engine.explain.expression_text import called
from app.engine.explain.findings import Finding, operation_of
from app.engine.stepwise.point import Ref, name_of
from app.engine.stepwise.trace import StepRecord, StepTrace, step_vjp
from app.engine.tensors import is_differentiable

_PRODUCTS: Final = frozenset({"mul", "multiply", "matmul", "mm", "bmm", "mv", "dot", "inner", "outer", "linear", "einsum"})
_DIFFERENCES: Final = frozenset({"sub", "subtract"})
# Choosing ones by what they do: where what is chosen does not come from the input, nothing does.
_CHOOSING: Final = frozenset(
    {"where", "getitem", "gather", "index_select", "masked_select", "masked_fill", "dropout", "setitem"}
)


def zero(evidence: Evidence, name: str) -> Finding | None:
    """Of an input whose gradient is zero in every element: why, as far as a single step or a sum of paths says it."""
    trace = evidence.trace
    leaf = trace.leaves[name]
    ones = {ref: torch.ones_like(trace.values[ref]) for ref in dict.fromkeys(trace.outputs) if trace.live[ref]}
    is_by_ones = not _is_zero(evidence.weighted.get(leaf))
    if is_by_ones and not _is_zero(evidence.gradient.get(name)):
        return None
    if is_by_ones and any(
        not _is_zero(trace.backward({ref: one}).get(leaf)) for ref, one in ones.items() if name in trace.live[ref]
    ):
        return None  # p and 1 - p: of each output the gradient is not zero
    cotangents = trace.backward(ones) if is_by_ones else evidence.weighted
    for record in reversed(trace.records):
        rows = _shares(trace, record, cotangents, name)
        if rows and all(_is_zero(row) for row in rows.values()):
            return _at(trace, record, next(iter(rows)))
    what = "The paths to the output" if leaf in _joined(trace, cotangents, name) else "Paths on the way to the output"
    return Finding(
        "differentiable", f"PyTorch's gradient is zero in every element: {what[0].lower()}{what[1:]} cancel each other."
    )


def _is_zero(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.numel() > 0 and not bool((tensor != 0).any())


def _shares(trace: StepTrace, record: StepRecord, cotangents: Mapping[Ref, Tensor], name: str) -> dict[Ref, Tensor]:
    """What a step that some derivative reaches passes to those of its inputs that come from `name`."""
    incoming = [cotangents.get(ref) for ref in record.refs()]
    if all(c is None or _is_zero(c) for c in incoming) or not any(name in trace.live[p] for p in record.parents):
        return {}
    rows = zip(record.parents, step_vjp(record, incoming), strict=True)
    return {parent: row for parent, row in rows if row is not None and name in trace.live[parent]}


def _joined(trace: StepTrace, cotangents: Mapping[Ref, Tensor], name: str) -> set[Ref]:
    """Tensors that several shares reach, which are not zero one by one."""
    seen: set[Ref] = set()
    joined: set[Ref] = set()
    for record in trace.records:
        for parent, row in _shares(trace, record, cotangents, name).items():
            if not _is_zero(row):
                (joined if parent in seen else seen).add(parent)
    return joined


def _at(trace: StepTrace, record: StepRecord, parent: Ref) -> Finding:
    operation, value = operation_of(record.node), trace.values[parent]
    function = name_of(record.node)
    x = called(trace, parent, "its input")
    others = [t for p, t in zip(record.parents, record.inputs, strict=True) if p != parent and is_differentiable(t.dtype)]
    if function in _DIFFERENCES and len(record.parents) == 1:
        why = f"`{operation}` takes {x} from itself"
    elif function in _PRODUCTS and (not others or any(_is_zero(t.detach()) for t in others)):
        why = f"`{operation}` multiplies {x} by zero"
    elif function in _CHOOSING:
        why = f"`{operation}` takes nothing of {x} here"
    elif not _is_flat(record, parent):
        why = f"`{operation}` maps equal cotangents to zero (its outputs are tied to each other, as those of a softmax are by their sum)"
    else:
        why = f"the slope of `{operation}` is 0, or too small for its dtype, at {x} = {_range(value)}"
    return Finding("differentiable", f"PyTorch's gradient is zero in every element: {why}.", record.node)


def _is_flat(record: StepRecord, parent: Ref) -> bool:
    """Whether a step passes nothing to that input, whatever reaches it."""
    incoming = [torch.linspace(1.0, 2.0, max(1, o.numel()), dtype=o.real.dtype, device=o.device).reshape(o.shape).to(o.dtype)
                if o.requires_grad else None for o in record.outputs]  # fmt: skip
    return _is_zero(dict(zip(record.parents, step_vjp(record, incoming), strict=True)).get(parent))


def _range(value: Tensor) -> str:
    """The one number that a tensor holds, or from where to where its numbers go."""
    if value.is_complex() or not value.numel():
        return "this point"
    low, high = float(value.min()), float(value.max())
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
