"""A better formula for a step, and the walk over a Function's graph with such formulas in the place of some steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from app.engine.stepwise.point import Interpreter, Point


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A better formula for the value of `root`.

    Attributes:
        parts: what it is made of, nodes or plain values, in the order in which `compute` takes them.
        text: the formula in the program language; `{0}`, `{1}` stand for the parts.
    """

    root: fx.Node
    parts: tuple[Any, ...]
    compute: Callable[..., Tensor]
    text: str

    def value(self, values: Mapping[fx.Node, Any]) -> Tensor:
        return self.compute(*(values[part] if isinstance(part, fx.Node) else part for part in self.parts))


class Rewritten(Interpreter):
    """Walks the graph of `point`'s Function with better formulas in the place of some steps."""

    def __init__(self, point: Point, choice: Sequence[Rewrite]) -> None:
        super().__init__(point)
        self._choice = {rewrite.root: rewrite for rewrite in choice}

    def run_node(self, node: fx.Node) -> Any:
        rewrite = self._choice.get(node)
        return super().run_node(node) if rewrite is None else rewrite.value(self.env)


Matcher = Callable[[fx.Node], Iterator[Rewrite]]


def used(graph: fx.Graph, by_root: Mapping[fx.Node, Rewrite]) -> tuple[Rewrite, ...]:
    """Those that are still reached where all are put in their places, in the order of the steps: one may replace what another works on."""
    reached: set[fx.Node] = set()
    waiting: list[Any] = [node for node in graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node in reached:
            continue
        reached.add(node)
        rewrite = by_root.get(node)
        parts = node.all_input_nodes if rewrite is None else rewrite.parts
        waiting += [part for part in parts if isinstance(part, fx.Node)]
    return tuple(rewrite for root, rewrite in by_root.items() if root in reached)
