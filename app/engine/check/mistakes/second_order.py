"""Mistakes in a Hessian: the Gauss-Newton matrix, or the outer product of gradients, in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from app.engine.check.mistakes.case import Case, Claim, place_of
from app.engine.check.objective import Curvature
from app.engine.stepwise.point import REFUSALS, Ref
from app.engine.stepwise.trace import StepRecord, StepTrace

_ELEMENTS: Final = 64  # of a tensor between input and output whose curvature is left out
# Of a program: each asks for a matrix of its own, of up to 64 × 64 second derivatives; longer ones are not named.
_STEPS: Final = 40


def gauss_newton(case: Case) -> Iterator[Claim]:
    """Jᵀ·∇²L·J, where L is what follows a step and J the derivative of what comes before: the curvature of that is left out."""
    objective = case.objective
    if not isinstance(objective, Curvature) or len(case.trace.records) > _STEPS:
        return
    gradient = objective.values({})
    outer = torch.outer(gradient, gradient).reshape(case.ours.shape)
    if case.fits(outer):
        yield Claim(
            "outer_product", "Yours is the outer product of the gradient with itself, g·gᵀ: it has no second derivatives."
        )
    for record in case.trace.records:
        ref = (record.node, 0)
        tensor = case.trace.values[ref]
        if len(record.outputs) != 1 or not tensor.dtype.is_floating_point or tensor.numel() > _ELEMENTS:
            continue
        if case.name not in case.trace.live[ref] or ref in case.trace.outputs:
            continue
        matrix = _matrix(case.trace, objective, ref)
        if matrix is not None and case.fits(matrix.reshape(case.ours.shape)):
            yield Claim(
                "gauss_newton",
                f"Yours is the Gauss-Newton matrix Jᵀ·∇²L·J: the second derivative of what leads to this step{place_of(record.node)} is "
                "left out.",
            )
            return


def _matrix(trace: StepTrace, objective: Curvature, ref: Ref) -> Tensor | None:
    """Jᵀ·H·J, shape [n, n]: J the derivative of the tensor `ref` by the input, H the Hessian of the objective by that tensor."""
    middle = trace.values[ref]
    leaf = trace.leaves[objective.name]
    try:
        basis = torch.eye(middle.numel(), dtype=middle.dtype, device=middle.device).reshape(-1, *middle.shape)
        rows = [trace.backward({ref: row}).get(leaf) for row in basis]
        jacobian = torch.stack([torch.zeros_like(trace.values[leaf]) if row is None else row for row in rows]).reshape(
            len(rows), -1
        )
        with torch.enable_grad():
            moved = middle.detach().clone().requires_grad_()
            total = _after(trace, objective, ref, moved)
            if total is None or not total.requires_grad:
                return None
            (gradient,) = torch.autograd.grad(total, moved, create_graph=True)
            if not gradient.requires_grad:
                return None
            hessian = torch.stack(
                [torch.autograd.grad(part, moved, retain_graph=True)[0].reshape(-1) for part in gradient.reshape(-1)]
            )
    except REFUSALS:
        return None
    return jacobian.T @ hessian @ jacobian


def _after(trace: StepTrace, objective: Curvature, ref: Ref, moved: Tensor) -> Tensor | None:
    """The objective as a function of the tensor `ref` alone."""
    values: dict[Ref, Tensor] = {ref: moved}
    for record in trace.records:
        if any(parent in values for parent in record.parents) and record.node is not ref[0]:
            _run_again(trace, record, values)
    outputs = dict(zip(objective.point.function.outputs, trace.outputs, strict=True))
    row = objective.gradient_of.rows[0]
    parts = [(c * values.get(outputs[n], trace.values[outputs[n]])).sum() for n, c in row.items()]
    return torch.stack(parts).sum() if parts else None


def _run_again(trace: StepTrace, record: StepRecord, values: dict[Ref, Tensor]) -> None:
    inputs = [values.get(parent, tensor.detach()) for parent, tensor in zip(record.parents, record.inputs, strict=True)]
    values.update(zip(record.refs(), trace.again(record, inputs), strict=True))
