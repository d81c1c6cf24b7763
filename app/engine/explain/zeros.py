"""Gradients that are zero in every element, though a path leads to the output: the step at which they become zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from app.catalogue.facts import operations_with
from app.engine.explain.evidence import Evidence
from app.engine.explain.expression_text import called
from app.engine.explain.findings import Finding, operation_of
from app.engine.stepwise.point import Hole, Ref, name_of
from app.engine.stepwise.trace import StepRecord, StepTrace, step_vjp
from app.engine.tensors import NAMES


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
    joined = _joined(trace, cotangents, name)
    # Where non-zero shares cancel, no single step makes the gradient zero.
    cancels = any(_is_zero(cotangents.get(ref)) for ref in joined)
    for record in () if cancels else reversed(trace.records):
        rows = _shares(trace, record, cotangents, name)
        if rows and all(_is_zero(row) for row in rows.values()):
            return _at(trace, record, next(iter(rows)), cotangents, _zero_of(trace, name))
    what = "The paths to the output" if leaf in joined else "Paths on the way to the output"
    return Finding("differentiable", f"{_zero_of(trace, name)}: {what[0].lower()}{what[1:]} cancel each other.")


def _zero_of(trace: StepTrace, name: str) -> str:
    dtype = trace.point.leaves[name].dtype
    where = "" if trace.point.wide or dtype == torch.float64 else f" in {NAMES.get(dtype, str(dtype))}"
    return f"PyTorch's gradient is zero in every element{where}"


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


def _at(trace: StepTrace, record: StepRecord, parent: Ref, cotangents: Mapping[Ref, Tensor], zero_of: str) -> Finding:
    operation, value = operation_of(record.node), trace.values[parent]
    function = name_of(record.node)
    x = called(trace, parent, "its input")
    incoming = [cotangents.get(ref) for ref in record.refs()]
    if function in operations_with("combines", "difference") and len(record.parents) == 1:
        why = f"`{operation}` takes {x} from itself"
    elif function in operations_with("combines", "product") and _has_zero_factor(trace, record, parent):
        why = f"`{operation}` multiplies {x} by zero"
    elif function in operations_with("chooses"):
        why = f"`{operation}` takes nothing of {x} here"
    elif _underflows(record, parent, incoming):
        why = (
            f"the gradient that reaches `{operation}` is so small that what it passes to {x} is no longer a number of its dtype"
        )
    elif _is_flat(record, parent):
        why = f"the slope of `{operation}` is 0, or too small for its dtype, at {_range(x, value)}"
    elif _are_equal(incoming):
        why = f"`{operation}` maps equal cotangents to zero (its outputs are tied to each other, as those of a softmax are by their sum)"
    else:
        why = f"of the gradient that reaches `{operation}` nothing passes to {x} here"
    return Finding("differentiable", f"{zero_of}: {why}.", record.node)


def _has_zero_factor(trace: StepTrace, record: StepRecord, parent: Ref) -> bool:
    """Whether another factor of a product is zero, or the input itself where it is multiplied by itself."""
    args, kwargs = trace.arguments[record.node]
    linear = name_of(record.node) == "linear"
    bias = (args[2] if len(args) > 2 else kwargs.get("bias")) if linear else None
    refs = [ref for ref in record.parents if not (isinstance(bias, Hole) and ref == bias.ref)]
    tensors = dict(zip(record.parents, record.inputs, strict=True))
    numbers = [a for a in (*args, *kwargs.values()) if isinstance(a, int | float | complex)]
    if any(number == 0 for number in numbers):
        return True
    squared = len(refs) == 1 and not numbers
    return any(_is_zero(tensors[ref].detach()) for ref in refs if squared or ref != parent)


def _passed(record: StepRecord, parent: Ref, incoming: Sequence[Tensor | None]) -> Tensor | None:
    return dict(zip(record.parents, step_vjp(record, incoming), strict=True)).get(parent)


def _underflows(record: StepRecord, parent: Ref, incoming: Sequence[Tensor | None]) -> bool:
    """Whether a step passes nothing only because the product with so small a cotangent is no number of the dtype."""
    largest = max((float(c.abs().max()) for c in incoming if c is not None and c.numel()), default=0.0)
    if not largest:
        return False
    row = _passed(record, parent, [None if c is None else c / largest for c in incoming])
    return (
        row is not None
        and row.numel() > 0
        and bool((row != 0).any())
        and float(row.abs().max()) * largest < torch.finfo(row.dtype).tiny
    )


def _are_equal(incoming: Sequence[Tensor | None]) -> bool:
    """Whether there are several cotangents, all the same."""
    known = [c.reshape(-1) for c in incoming if c is not None]
    flat = torch.cat(known) if len({c.dtype for c in known}) == 1 else torch.zeros(0)
    return flat.numel() > 1 and bool((flat == flat[0]).all())


def _is_flat(record: StepRecord, parent: Ref) -> bool:
    """Whether a step passes nothing to that input, whatever reaches it."""
    incoming = [torch.linspace(1.0, 2.0, max(1, o.numel()), dtype=o.real.dtype, device=o.device).reshape(o.shape).to(o.dtype)
                if o.requires_grad else None for o in record.outputs]  # fmt: skip
    return _is_zero(_passed(record, parent, incoming))


def _range(name: str, value: Tensor) -> str:
    """The one number that a tensor holds, or from where to where its numbers go, with its name."""
    if value.is_complex() or not value.numel() or bool(torch.isnan(value).any()):
        return "this point"
    low, high = float(value.min()), float(value.max())
    return f"{name} = {low:.6g}" + ("" if low == high else f" to {high:.6g}")
