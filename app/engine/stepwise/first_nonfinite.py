"""Finds the step that first made a value, or a cotangent on its way back, infinite or NaN."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.engine.stepwise.point import Ref, all_finite
from app.engine.stepwise.trace import StepRecord, StepTrace, step_vjp


@dataclass(frozen=True, slots=True)
class BrokenDerivative:
    """`record` was given finite cotangents `incoming` and gave the non-finite `cotangent` to its input `parent`."""

    record: StepRecord
    incoming: Sequence[Tensor | None]
    parent: Ref
    cotangent: Tensor


def broken_value(trace: StepTrace, among: Collection[Ref]) -> tuple[StepRecord, Ref] | None:
    """The first step that made one of the tensors `among` non-finite out of finite ones, and that tensor."""
    for record in trace.records:
        ref = next((ref for ref in record.refs() if ref in among and not all_finite(trace.values[ref])), None)
        if ref is not None and all(all_finite(trace.values[parent]) for parent in record.parents):
            return record, ref
    return None


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
