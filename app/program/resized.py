"""A Function for other sizes: the same steps, with other numbers among their arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

from torch import fx

from app.program.function import Function
from app.program.graph_runner import GraphRunner

# Of a step: its positional and keyword arguments, with nodes of the graph in the place of tensors.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class ResizedGraph:
    """A graph with other arguments for some of its steps, copied when somebody looks at it: 15 µs a step, which an answer needs not.

    Attributes:
        pattern: the graph that it is a copy of.
    """

    def __init__(self, pattern: fx.Graph, arguments: Mapping[fx.Node, Arguments]) -> None:
        self.pattern, self._arguments = pattern, arguments

    @cached_property
    def graph(self) -> fx.Graph:
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in self.pattern.nodes:
            args, kwargs = self._arguments.get(node, (node.args, node.kwargs))
            # What it is called with comes after: `create_node` looks through arguments for symbolic numbers, for half of its time.
            copied = copies[node] = graph.create_node(node.op, node.target, None, None, node.name, node.type)
            copied.args = fx.map_arg(args, copies.__getitem__)
            if kwargs:
                copied.kwargs = fx.map_arg(kwargs, copies.__getitem__)
            copied.meta = node.meta.copy()
        return graph


def resized(function: Function, arguments: Mapping[fx.Node, Arguments]) -> Function:
    """`function` with other arguments for some of its steps."""
    call = cast(GraphRunner, function.call)  # only of programs are there arguments that come of sizes
    return dataclasses.replace(
        function, held_graph=ResizedGraph(function.pattern, arguments), call=call.with_arguments(arguments)
    )
