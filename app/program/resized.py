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

    is_longer = False

    def __init__(self, pattern: fx.Graph, arguments: Mapping[fx.Node, Arguments]) -> None:
        self.pattern, self._arguments = pattern, arguments

    @cached_property
    def graph(self) -> fx.Graph:
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in self.pattern.nodes:
            args, kwargs = self._arguments.get(node, (node.args, node.kwargs))
            copies[node] = _copied(graph, node, node.name, args, kwargs, copies)
        return graph


def _copied(
    graph: fx.Graph, node: fx.Node, name: str | None, args: Any, kwargs: Any, copies: Mapping[fx.Node, fx.Node]
) -> fx.Node:
    """A node like another, with other arguments; named by what it calls where there is no name.

    They come after it is made, past the setters of its attributes: what looks through them takes two thirds of `node_copy`.
    """
    copied = graph.create_node(node.op, node.target, None, None, name, node.type)
    copied._update_args_kwargs(fx.map_arg(args, copies.__getitem__), fx.map_arg(kwargs, copies.__getitem__))
    copied.meta.update(node.meta)
    return copied


@dataclasses.dataclass(frozen=True)
class Turns:
    """A turn of a loop in a graph that is the pattern of others, and what comes after it.

    Attributes:
        nodes: the calls of that turn.
        handed_on: what it takes of the turn before it → what it leaves in the place of it.
        rows: of that turn and each after it, its calls that take the row of its number, `x[t]`.
    """

    nodes: tuple[fx.Node, ...]
    handed_on: Mapping[fx.Node, fx.Node]
    rows: tuple[tuple[fx.Node, ...], ...]


class LongerGraph:
    """A graph with more turns of a loop, copied when somebody looks at it.

    Attributes:
        pattern: the graph that it is a copy of, but for these turns.
    """

    is_longer = True

    def __init__(self, pattern: fx.Graph, turns: Turns, more: int) -> None:
        self.pattern, self._turns, self._more = pattern, turns, more

    @cached_property
    def graph(self) -> fx.Graph:
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        later = {node for nodes in self._turns.rows[1:] for node in nodes}
        within = set(self._turns.nodes)

        def copied(node: fx.Node, more: int) -> None:
            args = (node.args[0], cast(int, node.args[1]) + more) if more else node.args
            copies[node] = _copied(graph, node, None, args, node.kwargs, copies)

        for node in self.pattern.nodes:
            if node is self._turns.nodes[0]:
                for number in range(self._more + 1):
                    for step in self._turns.nodes:
                        copied(step, number if step in self._turns.rows[0] else 0)
                    if number < self._more:
                        copies |= {taken: copies[left] for taken, left in self._turns.handed_on.items()}
            elif node not in within:
                copied(node, self._more if node in later else 0)
        return graph


def repeated(function: Function, turns: Turns, more: int) -> Function:
    """`function` with a turn of its loop `more` times more."""
    call = cast(GraphRunner, function.call)
    return dataclasses.replace(
        function,
        held_graph=LongerGraph(function.pattern, turns, more),
        call=call.with_more_turns(turns.nodes, turns.handed_on, turns.rows, more),
    )


def resized(function: Function, arguments: Mapping[fx.Node, Arguments]) -> Function:
    """`function` with other arguments for some of its steps."""
    call = cast(GraphRunner, function.call)  # only of programs are there arguments that come of sizes
    return dataclasses.replace(
        function, held_graph=ResizedGraph(function.pattern, arguments), call=call.with_arguments(arguments)
    )
