"""What a hook that changes the gradient makes of it, in words: by how much it multiplies it, and what to write instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, fx

from app.engine.explain.evidence import weights
from app.engine.explain.findings import Finding
from app.engine.stepwise.point import name_of
from app.engine.stepwise.trace import StepRecord, step_vjp
from app.engine.tensors import is_differentiable

_HOOK: Final = "register_hook"
# Of the gradient: of float64, in which one factor for all elements is seen but for some roundings.
_SAME: Final = 1e-10
# Differences of a function are off by some 1e-13 where they settle well (measured): numbers nearer than this may be equal.
_RIGHT: Final = 1e-7
_LEFT_OUT: Final = "Leave the hook out where the gradient should be that of the function."


@dataclass(frozen=True, slots=True)
class HookEffect:
    """What the hooks of one tensor make of its gradient.

    Attributes:
        does: to go on after "The hook".
        factor: that by which they multiply it; None where there is not one for all elements and gradients.
    """

    does: str
    instead: str
    factor: float | None


def is_hook(node: fx.Node) -> bool:
    return name_of(node) == _HOOK


def effect_of(record: StepRecord) -> HookEffect:
    """Of the step of a hook, asked with random gradients."""
    once, twice = _ratio(record, 1.0), _ratio(record, 2.0)
    if once is None or twice is None or abs(once - twice) > _SAME * abs(once):
        does = "changes the gradient, and not by one factor for all elements and gradients"
        return HookEffect(does, f"{_LEFT_OUT} To clip gradients, change them after they are computed.", None)
    if once == 0:
        return HookEffect("sets the gradient to zero", f"{_LEFT_OUT} To cut a path on purpose, write `.detach()`.", 0.0)
    does = "turns the sign of the gradient" if once == -1 else f"multiplies the gradient by {once:.10g}"
    return HookEffect(does, f"{_LEFT_OUT} To scale a gradient on purpose, scale the loss.", once)


def of_hook(record: StepRecord, mask: Tensor, taken: Tensor | None, own: Tensor | None) -> Finding:
    """The finding on an input whose gradient is another than that of the function because of a hook.

    Arguments:
        mask: the elements of the input, of its shape like the others.
        taken, own: what PyTorch gives and the derivative of the function, for a cotangent of ones; None where unknown.
    """
    effect = effect_of(record)
    reason = f"The hook {effect.does}, so that what PyTorch gives is not the derivative of the function."
    if own is None or taken is None or not bool(torch.isfinite(own[mask][0])):
        return Finding("singular", reason, record.node, effect.instead, mask, taken, own)
    if torch.allclose(own[mask], taken[mask], rtol=_RIGHT, atol=0.0):
        reason = f"The hook {effect.does}: for a cotangent of ones PyTorch gives the derivative of the function, for others it need not."
        return Finding("differentiable", reason, record.node, effect.instead)
    where = f" at element {mask.nonzero().tolist()[0]}" if mask.ndim else ""
    reason += f" PyTorch gives {float(taken[mask][0]):.8g}{where}, where the derivative is {float(own[mask][0]):.8g}."
    return Finding("singular", reason, record.node, effect.instead, mask, taken, own)


def _ratio(record: StepRecord, size: float) -> float | None:
    """What one random gradient of that size is multiplied by; None where each element is by its own, or by a complex number."""
    cotangents = [size * weights(o) if is_differentiable(o.dtype) and o.requires_grad else None for o in record.outputs]
    cotangent = next((c for c in cotangents if c is not None), None)
    returned = step_vjp(record, cotangents)[0]
    if cotangent is None or not cotangent.numel() or returned is None or returned.shape != cotangent.shape:
        return None
    ratios = (returned / cotangent).reshape(-1)
    if ratios.is_complex() or not bool(((ratios - ratios[0]).abs() <= _SAME * ratios[0].abs()).all()):
        return None
    return float(ratios[0])
