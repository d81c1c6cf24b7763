"""What a Function detaches: a constant to whoever detached it, though its value moves with the inputs."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import torch
from torch import fx

from app.catalogue.facts import operations_with, values
from app.engine.stepwise.point import Point, argument_of, name_of
from app.engine.stepwise.trace import trace_steps
from app.program.semantics.aliases import value_only

# Operation → the argument that names rows which get no gradient.
WITHHELD: Final = values("withholds")


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


def with_withheld_detached(point: Point, seed: int | None) -> Point:
    """The same where the rows that get no gradient on purpose (`padding_idx`) are detached in so many words; the point itself without any."""
    rows = {node: row for node in point.nodes if (row := _withheld_row(node)) is not None}
    if not rows:
        return point
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    graph.output(graph.graph_copy(point.function.graph, copies))
    for node, row in rows.items():
        weight = next(source for source in node.all_input_nodes if source is node.args[1])
        _detach_row(graph, copies[node], row, len(point.once(trace_steps).values[weight, 0]))
    return Point(dataclasses.replace(point.function, held_graph=graph), point.leaves, seed, wide=point.wide)


def _withheld_row(node: fx.Node) -> int | None:
    row = argument_of(node, WITHHELD[name_of(node)], None) if name_of(node) in WITHHELD else None
    return row if isinstance(row, int) and len(node.args) > 1 and isinstance(node.args[1], fx.Node) else None


def _detach_row(graph: fx.Graph, node: fx.Node, row: int, rows: int) -> None:
    weight, row = node.args[1], row % rows
    with graph.inserting_before(node):
        detached = graph.call_function(torch.Tensor.detach, (weight,))
        spans = [(weight, 0, row), (detached, row, 1), (weight, row + 1, rows - row - 1)]
        parts = [graph.call_function(torch.narrow, (of, 0, start, length)) for of, start, length in spans if length]
        whole = graph.call_function(torch.cat, (parts,))
    for new in (detached, *parts, whole):
        new.meta = {"step": node.meta.get("step")}
    node.args = (node.args[0], whole, *node.args[2:])


def _written_behind(graph: fx.Graph) -> set[fx.Node]:
    """What leads to values that are written where autograd does not look (`y.data[0] = 5`): the rest of `y` moves with it."""
    behind: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.target is value_only:
            behind.update(node.args[1:2])
        elif node in behind and node.target is not torch.Tensor.detach:
            behind.update(node.all_input_nodes)
    return behind
