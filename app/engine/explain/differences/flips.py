"""Inputs that lie exactly where a condition of the program flips: the program read anew beside the point, where it follows the other branch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import torch

from app.engine.explain.branches import AS_TENSOR, at_its_flip, inputs_of, is_number
from app.engine.explain.differences.own_derivative import element_of
from app.engine.explain.evidence import Evidence
from app.engine.explain.findings import Finding
from app.engine.stepwise.point import REFUSALS, Point, Points
from app.engine.stepwise.quotients import UNSETTLED, OneSided, Sides, sides, steps_between
from app.engine.tensors import is_differentiable
from app.errors import PullbackError
from app.program.function import Branch

# Reading a program takes a millisecond: ten times for each of so many elements, the first ones, of each input.
_ELEMENTS: Final = 4
_INPUTS: Final = 3  # and of so many inputs: those of a condition are one or two
_STEPS: Final = steps_between(2.0**-14, 2.0**-30)
_ROUNDINGS: Final = 16 * 2.0**-52
# Of a jump the last rise is as large as the first; that of sqrt(x) is a 256th.
_JUMPS: Final = 0.5
# A jump of what is made of a plain number is at least this large beside the outputs, or 1: no rounding of a step with larger numbers.
_LARGE_JUMP: Final = 2.0**-20
_NONE: Final = "there is no derivative, and the number that PyTorch gives means nothing."
_BLENDED: Final = (
    "To pass from one branch to the other smoothly, blend them: `s = sigmoid((a - b) / t)` of the two sides of the condition."
)


def of_flips(points: Points, evidence: Evidence, names: Iterable[str]) -> dict[str, list[Finding]]:
    """Where the program jumps or bends by another branch: of each input along which it does."""
    branches = points.function.branches if points.elsewhere is not None else ()
    flipping = [*filter(at_its_flip, branches), *filter(is_number, branches)]
    reaching = {name: branch for branch in reversed(flipping) for name in inputs_of(points.function, branch.node)}
    looked = [name for name in names if name in reaching and name in evidence.gradient][:_INPUTS]
    findings = {name: _of_flip(points, evidence, name, reaching[name]) for name in looked}
    return {name: [finding] for name, finding in findings.items() if finding is not None}


def _of_flip(points: Points, evidence: Evidence, name: str, branch: Branch) -> Finding | None:
    leaf, gradient = evidence.trace.point.leaves[name], evidence.gradient[name]
    if not leaf.is_floating_point():
        return None
    mask = torch.zeros(leaf.numel(), dtype=torch.bool, device=leaf.device)
    seen: dict[int, tuple[bool, Sides]] = {}
    for index in range(min(leaf.numel(), _ELEMENTS)):
        jumps, both = _along(points, evidence, name, index, is_number(branch))
        if jumps or (both.settled and both.agree(float(gradient.reshape(-1)[index])) is False):
            mask[index], seen[index] = True, (jumps, both)
    if not seen:
        return None
    first, (jumps, both) = next(iter(seen.items()))
    mask, taken = mask.reshape(leaf.shape), float(gradient.reshape(-1)[first])
    along = f"along element {element_of(leaf, first)} " if leaf.ndim else ""
    if is_number(branch):
        words = f"A plain number is read in line {branch.step.line}, and {along}what is made of it jumps here: {_NONE}"
        return Finding("singular", words, branch.node, AS_TENSOR, mask)
    words = f"The condition flips exactly here, and {along}"
    if jumps:
        return Finding("singular", f"{words}the value jumps: {_NONE}", branch.node, _BLENDED, mask)
    if both.differentiable:
        words += f"the derivative is {both.value:.6g} from both sides; the branch that is followed gives {taken:.6g}."
    else:
        words += f"the branches bend: the slope is {_slope(both.left)} on one side and {_slope(both.right)} on the other. "
        words += f"PyTorch takes {taken:.6g}."
    return Finding("kink", words, branch.node, _BLENDED, mask, gradient)


def _slope(side: OneSided) -> str:
    return f"{0.0 if abs(side.value) <= side.doubt else side.value:.6g}"


def _along(points: Points, evidence: Evidence, name: str, index: int, alone: bool) -> tuple[bool, Sides]:
    """Whether the program jumps along an element, and its derivatives from both sides, of the sum of its outputs.

    Arguments:
        alone: whether it jumps is all that is asked: the slopes of what is made of a plain number are not PyTorch's anyway.
    """
    trace = evidence.trace
    leaf = trace.point.leaves[name]
    base = [trace.values[ref].detach() for ref in trace.outputs]
    size = float(leaf.reshape(-1)[index].abs()) or 1.0

    def rise(t: float) -> float:
        moved = leaf.clone().reshape(-1)
        moved[index] += t * size
        leaves = {**trace.point.leaves, name: moved.reshape(leaf.shape)}
        try:
            with torch.no_grad():
                outputs = Point(points.read_at(leaves), leaves, points.seed, wide=trace.point.wide).run({})
        except (*REFUSALS, PullbackError):
            return math.nan
        if [o.shape for o in outputs] != [o.shape for o in base]:
            return math.nan
        return sum(float((o - b).sum()) for o, b in zip(outputs, base, strict=True) if is_differentiable(b.dtype))

    rises = {sign * h: rise(sign * h) for h in (_STEPS[:: len(_STEPS) - 1] if alone else _STEPS) for sign in (1.0, -1.0)}
    noise = (_LARGE_JUMP if alone else _ROUNDINGS) * (
        1.0 + sum(float(b.abs().sum()) for b in base if is_differentiable(b.dtype))
    )
    first, last = _STEPS[0], _STEPS[-1]
    jumps = any(abs(rises[sign * last]) > max(_JUMPS * abs(rises[sign * first]), noise) for sign in (1.0, -1.0))
    return jumps, UNSETTLED if alone else sides(lambda t: rises[t], noise, _STEPS).per(size)


def without_elements(finding: Finding) -> Finding:
    """The same of an output."""
    return replace(finding, mask=None, subgradient=None)
