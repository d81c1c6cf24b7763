"""Says of a derivative that is not finite where it is so and which step made it first.

Knows how to follow a backward pass step by step. Refuses to know why a step is singular (explain says that).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from app.engine.replay import replay
from app.engine.stepwise.point import all_finite
from app.program.function import Step

if TYPE_CHECKING:
    from app.engine.kinds import Job

_DERIVATIVES = ("gradient", "vjp", "jvp", "jacobian", "hessian", "hvp", "fisher", "fisher_diagonal")


def note_nonfinite(job: Job, tree: Mapping[str, Any]) -> None:
    """A note for each non-finite derivative in `tree`, naming the first step that made it."""
    bad = [path for kind in _DERIVATIVES if kind in tree for path, value in _leaves(tree[kind], kind) if not _finite(value)]
    if not bad:
        return
    step = None if job.prepared.samples is not None else first_step(job)
    made = "" if step is None else f" The first step that made it: line {step.line}, `{step.text}`."
    for path in bad:
        job.notes.say("non_finite", f"The derivative at `{path}` is infinite or NaN in places.{made}", path)


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _leaves(value, f"{path}.{name}")


def _finite(value: Tensor) -> bool:
    # The sum is finite wherever every element is, unless it overflows: then look closely.
    total = value.sum().item()
    if isinstance(total, complex):
        total = abs(total)
    return math.isfinite(total) or bool(torch.isfinite(value).all())


def first_step(job: Job) -> Step | None:
    """The step, in the order of the backward pass, that first turned a finite cotangent into one that is not.

    A step whose value is not finite already counts as the maker, for what follows from it cannot be finite.
    """
    values = replay(job.evaluation)
    steps = job.evaluation.function.steps()
    for node, step in steps:
        made_here = not all_finite(values.get(node)) and all(all_finite(values.get(n)) for n in node.all_input_nodes)
        if made_here:
            return step
    smooth = [v for v in _outputs(job, values) if v.requires_grad]
    if not smooth:
        return None
    reached = _cotangents(smooth, values)
    for node, step in reversed(steps):
        own = reached.get(node)
        if own is not None and not bool(torch.isfinite(own).all()):
            continue
        if any(n in reached and not bool(torch.isfinite(reached[n]).all()) for n in node.all_input_nodes):
            return step
    return None


def _outputs(job: Job, values: Mapping[fx.Node, Any]) -> list[Tensor]:
    (nodes,) = next(node for node in reversed(job.evaluation.function.graph.nodes) if node.op == "output").args
    return [values[node] for node in nodes if isinstance(values.get(node), Tensor)]


def _cotangents(smooth: list[Tensor], values: Mapping[fx.Node, Any]) -> dict[fx.Node, Tensor]:
    nodes = [node for node, value in values.items() if isinstance(value, Tensor) and value.requires_grad]
    found = torch.autograd.grad(
        smooth, [values[node] for node in nodes], [torch.ones_like(v) for v in smooth], allow_unused=True, retain_graph=True
    )
    return {node: g for node, g in zip(nodes, found, strict=True) if g is not None}
