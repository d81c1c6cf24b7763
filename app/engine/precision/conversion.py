"""What is lost before anything is computed: numbers that the dtype asked for cannot hold, and what their rounding does to the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.dtypes import dtype_name
from app.engine.notes import Notes
from app.engine.precision.digits import ROUNDED_ZERO, full_digits, largest, right_digits
from app.engine.precision.runs import array_of
from app.engine.stepwise.point import REFUSALS, Point, to_double
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
    whole = full_digits(dtype)
    scale = max(largest(array_of(value)) for value in right.values())
    for path, value in right.items():
        if path not in now or now[path].shape != value.shape:
            continue
        digits = right_digits(array_of(now[path]), array_of(value), dtype, scale, ROUNDED_ZERO)
        worst = float(digits.min(initial=whole))
        if whole - worst > max(_LOSS, _SHARE * whole):
            what = f"the derivative by `{path}`" if path in leaves else f"the output `{path.removeprefix('output.')}`"
            notes.say("rounded_inputs", _message(what, rounded, dtype, worst, whole), path)


def _is_rounded(sent: Tensor, leaf: Tensor) -> bool:
    return bool((to_double(sent) != to_double(leaf)).logical_and(~torch.isnan(sent)).any())


def _results(trace: StepTrace, cotangents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Input → derivative of Σ cotangent·output, and `output.NAME` → value."""
    refs = dict(zip(trace.point.function.outputs, trace.outputs, strict=True))
    seeds = {refs[name]: to_double(cotangent.detach()) for name, cotangent in cotangents.items()}
    reached = trace.backward(seeds)
    outputs: dict[str, Any] = {f"output.{name}": trace.values[refs[name]] for name in cotangents}
    return {name: reached[ref].detach() for name, ref in trace.leaves.items() if ref in reached} | outputs


def _message(what: str, rounded: list[str], dtype: torch.dtype, worst: float, whole: float) -> str:
    names = ", ".join(f"`{name}`" for name in rounded)
    return (
        f"The numbers sent for {names} do not fit {dtype_name(dtype)}: rounding them leaves about {worst:.1f} of {whole:.1f} digits of {what} "
        "right, whatever is computed with them; `digits` judges by the rounded numbers. Ask in float64, or, where only differences count, "
        "subtract an offset (a mean, a first element) before converting."
    )
