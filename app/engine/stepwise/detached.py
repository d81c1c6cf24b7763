"""What a Function detaches: a constant to whoever detached it, though its value moves with the inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from app.catalogue.facts import operations_with
from app.engine.stepwise.point import Point, name_of
from app.program.semantics.aliases import value_only


def is_detaching(node: fx.Node) -> bool:
    """Whether a step takes a value out of the autograd graph on purpose."""
    return node.op == "call_function" and (node.target is torch.Tensor.detach or name_of(node) in operations_with("detaches"))


def detached_values(point: Point) -> dict[fx.Node, Any]:
    """The steps that detach, each with what it gives at the point: `Point.run` holds it there."""
    detaching = [node for node in point.nodes if is_detaching(node)]
    if not detaching:
        return {}
    with torch.no_grad():
        point.run({})
    results, written = point.results(), _written_behind(point.function.graph)
    return {node: results[node] for node in detaching if node in results and node not in written}


def _written_behind(graph: fx.Graph) -> set[fx.Node]:
    """What leads to values that are written where autograd does not look (`y.data[0] = 5`): the rest of `y` moves with it."""
    behind: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.target is value_only:
            behind.update(node.args[1:2])
        elif node in behind and node.target is not torch.Tensor.detach:
            behind.update(node.all_input_nodes)
    return behind
