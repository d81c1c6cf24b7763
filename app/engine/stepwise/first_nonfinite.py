"""Finds the step that first made a value, or a cotangent on its way back, infinite or NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from app.engine.stepwise.point import Ref, all_finite
from app.engine.stepwise.trace import StepRecord, StepTrace, step_vjp
from app.engine.tensors import is_differentiable


@dataclass(frozen=True, slots=True)
class BrokenDerivative:
    """`record` was given finite cotangents `incoming` and gave the non-finite `cotangent` to its input `parent`."""

    record: StepRecord
    incoming: Sequence[Tensor | None]
    parent: Ref
    cotangent: Tensor


def broken_value(trace: StepTrace, among: Collection[Ref]) -> tuple[StepRecord, Ref] | None:
    """The first step that made one of the tensors `among` non-finite out of finite ones, and that tensor.

    Infinity that is written down (a mask) is meant: then it is the first step that makes NaN of it.
    """
    written = [record for record in trace.records if is_written(trace, record)]
    return (
        _first(trace, [record for record in trace.records if record not in written], among, _is_odd)
        or _first(trace, trace.records, among, _has_nan)
        or _first(trace, written, among, _is_odd)
    )


def _first(
    trace: StepTrace, records: Sequence[StepRecord], among: Collection[Ref], is_it: Callable[[Tensor], bool]
) -> tuple[StepRecord, Ref] | None:
    for record in records:
        ref = next((ref for ref in record.refs() if ref in among and is_it(trace.values[ref])), None)
        if ref is not None and not any(is_it(trace.values[parent]) for parent in record.parents):
            return record, ref
    return None


def _is_odd(tensor: Tensor) -> bool:
    return not all_finite(tensor)


def is_written(trace: StepTrace, record: StepRecord) -> bool:
    """Whether infinity is a plain argument of a step."""
    return any(isinstance(value, float) and math.isinf(value) for value in tree_leaves(trace.arguments[record.node]))


def _has_nan(tensor: Tensor) -> bool:
    return is_differentiable(tensor.dtype) and bool(torch.isnan(tensor).any())


def broken_derivative(trace: StepTrace, cotangents: Mapping[Ref, Tensor], name: str | None = None) -> BrokenDerivative | None:
    """The first step, in the order of the backward pass, that made a non-finite cotangent out of finite ones.

    Each step's own share is looked at, for a tensor's cotangent is the sum of what several steps give.

    Arguments:
        cotangents: of every tensor that the backward pass reached.
        name: only on the way to this input.
    """
    for record in reversed(trace.records):
        incoming = [cotangents.get(ref) for ref in record.refs()]
        if all(c is None for c in incoming) or any(c is not None and not bool(torch.isfinite(c).all()) for c in incoming):
            continue
        for parent, cotangent in zip(record.parents, step_vjp(record, incoming), strict=True):
            if cotangent is None or (name is not None and name not in trace.live[parent]):
                continue
            if not bool(torch.isfinite(cotangent).all()):
                return BrokenDerivative(record, incoming, parent, cotangent)
    return None
