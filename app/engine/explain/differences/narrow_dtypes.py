"""What is so in the dtypes that were sent alone: numbers that they cannot hold, and kinks that their rounding puts the point on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce
from typing import Final

import torch
from torch import Tensor

from app.catalogue.dtypes import dtype_name
from app.catalogue.facts import instead
from app.engine.explain.evidence import Evidence, gradient_at, weights
from app.engine.explain.findings import Finding, instead_of, operation_of
from app.engine.explain.singularities import singular
from app.engine.stepwise.one_sided import random_like
from app.engine.stepwise.point import name_of
from app.engine.stepwise.trace import StepRecord, step_vjp
from app.engine.tensors import is_differentiable

# Two gradients that differ by more are of different branches: bfloat16, the coarsest, is off by 0.4 % an operation.
_APART: Final = 0.05
# Neighbours of the point, so many roundings of its dtype away: beyond what a constant and a few steps are rounded by. At a kink the
# gradients of the near and the far ones of one side are alike, of what is only steep they are not.
_ROUNDINGS: Final = (4.0, 16.0)
# Of what the gradient changes by between the far ones, a kink makes nearly all between the near ones; a slope makes a quarter, 4 of 16.
_AT_ONCE: Final = 0.8
_WIDER: Final = "Send the numbers as float64."
_NO_CAST: Final = "Leave out the cast, or keep what is cast in a wider dtype."


def of_narrow(wide: Evidence, narrow: Evidence, name: str, known: Tensor) -> Iterator[Finding]:
    """Findings on an input where its gradient in the sent dtype is another than in float64.

    Arguments:
        known: elements of the input that something was found out about in float64.
    """
    floating = (v.dtype for v in narrow.trace.values.values() if is_differentiable(v.dtype))
    dtype = max(floating, key=lambda d: torch.finfo(d).eps)
    wider = _WIDER if dtype == narrow.trace.point.leaves[name].dtype else _NO_CAST
    gradient = narrow.gradient.get(name)
    for finding in singular(narrow, name):
        elements = ~known if finding.mask is None else finding.mask & ~known
        if gradient is not None and not bool((elements & ~torch.isfinite(gradient)).any()):
            # A value overflows, and PyTorch's derivative is a number all the same.
            finding = replace(
                finding, verdict="differentiable", reason=finding.reason.replace(", so there is no derivative", "")
            )
        if bool(elements.any()):
            words = f"In {dtype_name(dtype)}: {finding.reason[0].lower()}{finding.reason[1:]} In float64 it is finite."
            yield replace(finding, reason=words, mask=elements, instead=finding.instead or wider)
    mask = _at_a_kink(wide, narrow, name)
    if mask is None or not bool((mask & ~known).any()):
        return
    mask = mask & ~known
    record = _other_branch(wide, narrow, name)
    if record is None:
        return
    words = (
        f"In {dtype_name(dtype)} the point cannot be told from a kink of `{operation_of(record.node)}`: the one-sided derivatives differ "
        "there, and rounding decides which PyTorch takes. In float64 the point is beside it."
    )
    way = instead_of(wide.trace, record, "kink", name)
    yield Finding("kink", words, record.node, way or _WIDER, mask, narrow.gradient.get(name))


def _at_a_kink(wide: Evidence, narrow: Evidence, name: str) -> Tensor | None:
    """Elements whose gradient in the sent dtype is that of another branch, which is reached within its rounding."""
    ours, right = narrow.weighted.get(narrow.trace.leaves[name]), wide.weighted.get(wide.trace.leaves[name])
    leaf = wide.trace.point.leaves[name]
    if ours is None or right is None or leaf.is_complex():
        return None
    ours = ours.to(right.dtype)
    size = torch.maximum(ours.abs(), right.abs())
    is_off = torch.isfinite(ours) & torch.isfinite(right) & ((ours - right).abs() > _APART * size)
    if not bool(is_off.any()):
        return None
    eps = torch.finfo(narrow.trace.point.leaves[name].dtype).eps
    ulp = eps * torch.where(leaf != 0, leaf.abs(), leaf.abs().amax())
    is_kink = torch.zeros_like(is_off)
    for direction in (torch.ones_like(leaf), random_like(leaf, 210).sign()):
        at: dict[float, Tensor] = {}
        for far in _ROUNDINGS:
            for sign in (1.0, -1.0):
                gradients: Mapping[str, Tensor] | None = gradient_at(wide, {name: leaf + sign * far * ulp * direction})
                if gradients is None:
                    return None
                at[sign * far] = gradients[name]
        near, far = _ROUNDINGS
        largest = reduce(torch.maximum, (g.abs() for g in at.values()))
        alike = [(at[s * near] - at[s * far]).abs() <= _APART * largest for s in (1.0, -1.0)]
        low, high = torch.minimum(at[far], at[-far]), torch.maximum(at[far], at[-far])
        at_once = (at[near] - at[-near]).abs() > _AT_ONCE * (high - low)
        is_between = (ours >= low - _APART * largest) & (ours <= high + _APART * largest)
        is_kink |= alike[0] & alike[1] & at_once & (high - low > _APART * largest) & is_between
    return is_off & is_kink


def _other_branch(wide: Evidence, narrow: Evidence, name: str) -> StepRecord | None:
    """The first step that bends, or comes after a comparison, and whose own rule gives something else in the sent dtype.

    Those of smooth steps do too where numbers cancel, as in a product of matrices.
    """
    records = {record.node: record for record in narrow.trace.records}
    flips = False
    for record in wide.trace.records:
        other = records.get(record.node)
        if other is None:
            continue
        flips |= any(
            not is_differentiable(a.dtype) and not torch.equal(a, b) for a, b in zip(record.outputs, other.outputs, strict=True)
        )
        may_be_kink = flips or record in wide.steps or instead("kink", name_of(record.node)) is not None
        if not may_be_kink or not any(name in wide.trace.live[parent] for parent in record.parents):
            continue
        rows = zip(_rows(record), _rows(other), strict=True)
        if any(a is not None and b is not None and _are_apart(a, b) for a, b in rows):
            return record
    return None


def _rows(record: StepRecord) -> list[Tensor | None]:
    return step_vjp(
        record,
        [weights(o, k) if is_differentiable(o.dtype) and o.requires_grad else None for k, o in enumerate(record.outputs)],
    )


def _are_apart(right: Tensor, ours: Tensor) -> bool:
    ours = ours.to(right.dtype)
    return ours.shape == right.shape and bool(((ours - right).abs() > _APART * torch.maximum(ours.abs(), right.abs())).any())
