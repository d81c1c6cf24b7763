"""Branches that a program took on the values of tensors, as findings: the derivative is that of the branch, and where it flips."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.program.function import RAISED, RAN, Branch, Function

_COMPARISONS: Final = (">", ">=", "<", "<=", "==", "!=", "gt", "ge", "lt", "le", "eq", "ne")
# A report names so many lines that branch, the first ones: of 454 pasted programs 31 branch, on six at most.
_LIMIT: Final = 20


_BOTH_SIDES: Final = "`where(condition, a, b)` has both sides in one formula; near the flip the derivative still jumps."
AS_TENSOR: Final = "Keep the tensor: without `item`, `float`, `int` or `tolist` the derivative passes."


def reading(function: Function, name: str) -> dict[str, Any] | None:
    """Of an input that only plain numbers are read from: where the first is read, as the reason and the way out."""
    placeholders = [node.name for node in function.graph.nodes if node.op == "placeholder"]
    for branch in function.branches:
        if placeholders[function.leaves.index(name)] in branch.inputs:
            step = branch.step
            because = {"line": step.line, "text": step.text, "operation": step.operation, "reason": _reason(branch)}
            return {"because": because, "instead": AS_TENSOR}
    return None


def branch_findings(function: Function) -> list[dict[str, Any]]:
    """One finding for each place of the text where a value decided how the program goes on."""
    by_place: dict[tuple[int, int], Branch] = {}
    for branch in function.branches:
        place = branch.step.line, branch.step.column
        if place not in by_place:
            if len(by_place) < _LIMIT:
                by_place[place] = branch
        elif _nearness(branch) < _nearness(by_place[place]):
            by_place[place] = branch  # of the turns of a loop, the one that is nearest to its flip
    return [
        {
            "verdict": "differentiable",
            "because": {
                "line": branch.step.line,
                "text": branch.step.text,
                "operation": branch.step.operation,
                "reason": _reason(branch),
            },
            "instead": _BOTH_SIDES if isinstance(branch.value, bool) or branch.value in (RAISED, RAN) else AS_TENSOR,
            "elements": [],
        }
        for branch in by_place.values()
    ]


def at_its_flip(branch: Branch) -> bool:
    """Whether the two sides of a condition are equal here."""
    return isinstance(branch.value, bool) and _margin(branch.node) == 0


def is_number(branch: Branch) -> bool:
    """Whether a plain number was read, of which a program may make anything: `int(x)`."""
    return isinstance(branch.value, int | float) and not isinstance(branch.value, bool)


def inputs_of(function: Function, node: fx.Node) -> set[str]:
    """The inputs that a tensor is computed from."""
    waiting, seen = [node], {node}
    while waiting:
        new = [source for source in waiting.pop().all_input_nodes if source not in seen]
        seen.update(new)
        waiting += new
    placeholders = [each for each in function.graph.nodes if each.op == "placeholder"]
    return {name for name, each in zip(function.leaves, placeholders, strict=False) if each in seen}


def _nearness(branch: Branch) -> float:
    margin = _margin(branch.node) if isinstance(branch.value, bool) else None
    return math.inf if margin is None else margin


def _reason(branch: Branch) -> str:
    if not isinstance(branch.value, bool):
        if branch.value in (RAISED, RAN):
            return (
                f"Inside `try` this step {branch.value} for these values, and the derivative is that of what follows from it."
            )
        if isinstance(branch.value, str):
            return (
                "The values are read here as plain numbers: no derivative passes them, and the result holds for these numbers."
            )
        return f"A plain number is read here ({branch.value!r}): no derivative passes it, and the result holds for this number."
    words = f"The condition is {branch.value} here, and the derivative is that of this branch alone"
    margin = _margin(branch.node)
    if margin is None:
        return f"{words}; it flips where the condition does."
    if margin == 0:
        return (
            f"{words}; the two sides are equal, so that the point lies where it flips, and the other branch may have another."
        )
    return f"{words}; it flips where the two sides are equal, and they are {margin:.6g} apart."


def _margin(node: fx.Node) -> float | None:
    """How far apart the two sides of a comparison are at this point."""
    step = node.meta.get("step")
    if step is None or step.operation not in _COMPARISONS or len(node.args) != 2:
        return None
    sides = [arg.meta["val"] if isinstance(arg, fx.Node) else arg for arg in node.args]
    try:
        left, right = (torch.as_tensor(side, dtype=torch.float64) for side in sides)
        apart: Tensor = (left - right).abs()
        return float(apart.min()) if apart.numel() else None
    except (RuntimeError, TypeError, ValueError):  # complex or without values: nothing is known of the distance
        return None
