"""The part of a Function that makes whole numbers of whole numbers: what alone may wrap around, and little beside the rest."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, fx

from app.program.errors import tensors_in
from app.program.function import Function, GraphFact
from app.program.graph_runner import GraphRunner
from app.program.semantics.graph_values import reachable


def whole_part(function: Function, *, of_inputs: bool = False) -> Function | None:
    """Of `function` the steps that make whole numbers of whole numbers, for such may wrap around, and what leads to them; None without.

    Their results are its outputs. Where random numbers are drawn it is all of `function`.

    Arguments:
        of_inputs: those alone to which an input leads; what constants give is the same in the next query.
    """
    if not _has_whole_steps(function.pattern):
        return None
    graph = function.graph
    on_the_way = reachable([graph.output_node()], lambda node: node.all_input_nodes)
    steps = [node for node in graph.nodes if node in on_the_way and _makes_whole_of_whole(node)]
    if of_inputs:
        behind = reachable([node for node in graph.nodes if node.op == "placeholder"], lambda node: node.users)
        steps = [step for step in steps if step in behind]
    if not steps or function.random:
        return function if steps else None
    part, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    needed = reachable(steps, lambda node: node.all_input_nodes)
    for node in graph.nodes:
        if node.op == "placeholder" or node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(tuple(copies[step] for step in steps))
    names = tuple(f"step{k}" for k in range(len(steps)))
    return replace(function, held_graph=part, call=GraphRunner(part, function.dtype), outputs=names)


def _makes_whole_of_whole(node: fx.Node) -> bool:
    value = node.meta.get("val")
    sources = [source for each in node.all_input_nodes for source in tensors_in(each.meta.get("val"))]
    is_moved = node.target is operator.getitem
    return bool(sources) and not is_moved and isinstance(value, Tensor) and all(map(holds_integers, (*sources, value)))


_has_whole_steps: Final = GraphFact(lambda graph: any(map(_makes_whole_of_whole, graph.nodes)))


def is_integer(dtype: torch.dtype) -> bool:
    """Whether it holds whole numbers; truth values are none."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def holds_integers(tensor: Tensor) -> bool:
    """Whether its dtype is one of whole numbers."""
    return is_integer(tensor.dtype)
