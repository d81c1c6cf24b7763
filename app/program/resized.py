"""A Function for other sizes: the same steps, with other numbers among their arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from operator import itemgetter
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

    def __init__(self, pattern: fx.Graph, arguments: Callable[[], Mapping[fx.Node, Arguments]]) -> None:
        self.pattern, self._arguments = pattern, arguments

    @cached_property
    def graph(self) -> fx.Graph:
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        arguments = self._arguments()
        for node in self.pattern.nodes:
            args, kwargs = arguments.get(node, (node.args, node.kwargs))
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
    longer = call.with_more_turns(turns.nodes, turns.handed_on, turns.rows, more)
    return function.run_as(LongerGraph(function.pattern, turns, more), longer)


class Resizing:
    """Makes a Function for other numbers among the arguments of its steps.

    Arguments:
        arguments: of the steps that take such numbers, with nodes of another graph in the place of these.
        registers: of those nodes, in the lists of which `function` is handed one.
    """

    def __init__(self, function: Function, arguments: Mapping[fx.Node, Arguments], registers: Mapping[fx.Node, int]) -> None:
        self._function, self._arguments, self._registers = function, arguments, registers
        self._call = cast(GraphRunner, function.call)  # only of programs are there arguments that come of sizes
        self._plain: list[
            tuple[int, Callable[[list[Any]], Any]]
        ] = []  # registers of the call, and what reads what stands there
        self._others: dict[fx.Node, Arguments] = {}  # that stand in no registers of their own
        for node, (args, kwargs) in arguments.items():
            first = self._call.first_plain(node)
            plain = [value for value in args if not (isinstance(value, fx.Node) and self._is_step(value))]
            if first is None:
                continue
            if any(map(self._is_step, _nodes_in(plain))) or not all(map(self._is_step, _nodes_in(kwargs))):
                self._others[node] = args, kwargs
                continue
            numbered = [(register, value) for register, value in enumerate(plain, first) if _nodes_in(value)]
            self._plain += [(register, self._reader(value)) for register, value in numbered]

    def function(self, values: list[Any]) -> Function:
        """The Function for the numbers in these registers."""
        call = self._call.with_plain([(register, read(values)) for register, read in self._plain])
        if self._others:
            call = call.with_arguments({node: self._filled(each, values) for node, each in self._others.items()})
        return self._function.run_as(ResizedGraph(self._function.pattern, lambda: self._all_filled(values)), call)

    def _all_filled(self, values: list[Any]) -> dict[fx.Node, Arguments]:
        return {node: self._filled(each, values) for node, each in self._arguments.items()}

    def _is_step(self, node: fx.Node) -> bool:
        return node.graph is self._function.pattern

    def _reader(self, value: Any) -> Callable[[list[Any]], Any]:
        return itemgetter(self._registers[value]) if isinstance(value, fx.Node) else lambda values: self._filled(value, values)

    def _filled(self, value: Any, values: list[Any]) -> Any:
        return fx.map_arg(value, lambda node: node if self._is_step(node) else values[self._registers[node]])


def _nodes_in(value: Any) -> list[fx.Node]:
    nodes: list[fx.Node] = []
    fx.map_arg(value, nodes.append)
    return nodes
