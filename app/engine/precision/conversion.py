"""What is lost before anything is computed: numbers that the dtype asked for cannot hold, and what their rounding does to the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.dtypes import dtype_name
from app.engine.notes import Notes
from app.engine.precision.digits import ROUNDED_ZERO, full_digits, largest, right_digits
from app.engine.precision.reference import reference
from app.engine.precision.runs import array_of
from app.engine.stepwise.point import REFUSALS, Point, Ref, to_double
from app.engine.stepwise.trace import StepTrace, trace_steps
from app.engine.tensors import is_differentiable
from app.program.function import Function

# Rounding the inputs costs a well-conditioned function a digit at most; a word is said of twice that, or of 40 % of what the dtype holds.
_LOSS: Final = 2.0
_SHARE: Final = 0.4


def say_what_conversion_loses(
    function: Function,
    sent: Mapping[str, Tensor],
    leaves: Mapping[str, Tensor],
    cotangents: Mapping[str, Tensor],
    seed: int | None,
    notes: Notes,
) -> None:
    """A note `rounded_inputs` on each input whose derivative, and on each output which, the rounding of the inputs alone moves a lot.

    The function is run in float64 at the numbers as they were sent and at the rounded ones.

    Arguments:
        sent: the input tensors as they came; leaves: in the dtype that is computed in.
        cotangents: output → tensor of its shape.
    """
    rounded = [name for name, leaf in leaves.items() if is_differentiable(leaf.dtype) and _is_rounded(sent[name], leaf)]
    if not rounded:
        return
    try:
        there, here = (trace_steps(Point(function, tensors, seed)) for tensors in (sent, leaves))
        right, now = (_results(trace, cotangents) for trace in (there, here))
    except REFUSALS:
        return
    dtype = max((leaves[name].dtype for name in rounded), key=lambda d: torch.finfo(d).eps)
    lost = _lost(now, right, dtype)
    if lost:  # (1 - cos x) / x² at 1e-3: float64 itself may have lost them at both
        there_exactly, here_exactly = (_exact_results(trace, cotangents, dtype) for trace in (there, here))
        lost = _lost(here_exactly, there_exactly, dtype)
    for path, worst in lost.items():
        what = f"the derivative by `{path}`" if path in leaves else f"the output `{path.removeprefix('output.')}`"
        notes.say("rounded_inputs", _message(what, rounded, dtype, worst, full_digits(dtype)), path)


def _lost(now: Mapping[str, Any], right: Mapping[str, Any], dtype: torch.dtype) -> dict[str, float]:
    """The digits that are left of what has lost many."""
    whole, lost = full_digits(dtype), {}
    scale = max((largest(value) for value in right.values()), default=0.0)
    for path, value in right.items():
        if path in now and now[path].shape == value.shape:
            worst = float(right_digits(now[path], value, dtype, scale, ROUNDED_ZERO).min(initial=whole))
            if whole - worst > max(_LOSS, _SHARE * whole):
                lost[path] = worst
    return lost


def _is_rounded(sent: Tensor, leaf: Tensor) -> bool:
    return bool((to_double(sent) != to_double(leaf)).logical_and(~torch.isnan(sent)).any())


def _results(trace: StepTrace, cotangents: Mapping[str, Tensor]) -> dict[str, Any]:
    """Input → derivative of Σ cotangent·output, and `output.NAME` → value."""
    refs, seeds = _seeds(trace, cotangents)
    reached = trace.backward(seeds)
    outputs = {f"output.{name}": array_of(trace.values[refs[name]]) for name in cotangents}
    return {name: array_of(reached[ref].detach()) for name, ref in trace.leaves.items() if ref in reached} | outputs


def _exact_results(trace: StepTrace, cotangents: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Any]:
    """The same in as many digits as are needed to judge `dtype`; nothing where these are not to be had."""
    refs, seeds = _seeds(trace, cotangents)
    right = reference(trace, seeds, [dtype])
    if right.doubt is not None:
        return {}
    outputs = {f"output.{name}": right.run.values[refs[name]] for name in cotangents}
    return {name: right.run.cotangents[ref] for name, ref in trace.leaves.items() if ref in right.run.cotangents} | outputs


def _seeds(trace: StepTrace, cotangents: Mapping[str, Tensor]) -> tuple[dict[str, Ref], dict[Ref, Tensor]]:
    """Output → its tensor, and the cotangents of these."""
    refs = dict(zip(trace.point.function.outputs, trace.outputs, strict=True))
    return refs, {refs[name]: to_double(cotangent.detach()) for name, cotangent in cotangents.items()}


def _message(what: str, rounded: list[str], dtype: torch.dtype, worst: float, whole: float) -> str:
    names = ", ".join(f"`{name}`" for name in rounded)
    return (
        f"The numbers sent for {names} do not fit {dtype_name(dtype)}: rounding them leaves about {worst:.1f} of {whole:.1f} digits of {what} "
        "right, whatever is computed with them; `digits` judges by the rounded numbers. Ask in float64, or, where only differences count, "
        "subtract an offset (a mean, a first element) before converting."
    )
