"""Whether a single step's derivative rule is wrong at the step's own inputs, by differences of the step alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from app.engine.explain.differences.inner_rounding import inner_rounding
from app.engine.explain.evidence import weights
from app.engine.stepwise.one_sided import random_like, scale_of
from app.engine.stepwise.point import REFUSALS, Ref
from app.engine.stepwise.quotients import sides, steps_between
from app.engine.stepwise.trace import StepRecord, StepTrace, step_vjp
from app.engine.tensors import is_differentiable

# A wrong rule may be right along one direction by chance; along two it hardly is. The steps are those of explain/differences/lines.py.
_DIRECTIONS: Final = 2
_STEPS: Final = steps_between(2.0**-6, 2.0**-48)


def has_wrong_rule(trace: StepTrace, record: StepRecord, reached: Mapping[Ref, Tensor]) -> bool:
    """Whether differences settle, along some direction, at another number than the step's own rule gives.

    Arguments:
        reached: the cotangents that reach the tensors: a rule that clips them is wrong for large ones alone.
    """
    random = [weights(o, k) if is_differentiable(o.dtype) and o.requires_grad else None for k, o in enumerate(record.outputs)]
    own = [None if c is None else reached.get(ref) for c, ref in zip(random, record.refs(), strict=True)]
    return any(_is_wrong(trace, record, cotangents, number) for cotangents in (random, own) for number in range(_DIRECTIONS))


def _is_wrong(trace: StepTrace, record: StepRecord, cotangents: Sequence[Tensor | None], number: int) -> bool:
    rows = step_vjp(record, cotangents)
    moves = {j: _direction(t, 40 * number + j) for j, t in enumerate(record.inputs) if rows[j] is not None}
    ours = sum(float((row.conj() * moves[j]).sum().real) for j, row in enumerate(rows) if row is not None)
    inputs = [tensor.detach() for tensor in record.inputs]
    noise = sum(
        torch.finfo(o.dtype).eps * float((c.abs() * o.detach().abs().clamp(min=torch.finfo(o.dtype).tiny)).sum())
        for o, c in zip(record.outputs, cotangents, strict=True)
        if c is not None
    )

    noise += inner_rounding(trace, record) * max(
        (float(c.abs().max()) for c in cotangents if c is not None and c.numel()), default=0.0
    )

    def rise(t: float) -> float:
        try:
            with torch.no_grad():
                outputs = trace.again(record, [x + t * moves[j] if j in moves else x for j, x in enumerate(inputs)])
        except REFUSALS:
            return math.nan
        total = 0.0
        for output, base, cotangent in zip(outputs, record.outputs, cotangents, strict=True):
            if cotangent is not None:
                if output.shape != base.shape:
                    return math.nan
                total += float((cotangent.conj() * (output - base.detach())).sum().real)
        return total

    return math.isfinite(ours) and sides(rise, 4 * noise, _STEPS).agree(ours) is False


def _direction(tensor: Tensor, number: int) -> Tensor:
    """Powers of two near the elements' magnitudes, of random signs, so that steps are exact."""
    scale = scale_of(tensor).clamp(min=torch.finfo(tensor.dtype).tiny)
    turn = random_like(tensor, number)
    return (torch.exp2(torch.floor(torch.log2(scale))) * (turn / turn.abs())).to(tensor.dtype)
