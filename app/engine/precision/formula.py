"""A better formula for a step, and the walk over a Function's graph with such formulas in the place of some steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, fx

from app.engine.explain.expression_text import TooLongError, call_text, written
from app.engine.stepwise.point import Interpreter, Point, Ref, step_of
from app.engine.stepwise.trace import StepTrace


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


def formula_text(trace: StepTrace, choice: Sequence[Rewrite]) -> str:
    """What to write: for the step where it is one, else for the right-hand side of the first line that depends on all of them."""
    try:
        text = _of_a_line(trace, choice) if len(choice) > 1 else ""
    except TooLongError:
        text = ""
    return text or "; ".join(_text(trace, rewrite, {}) for rewrite in choice)


def _of_a_line(trace: StepTrace, choice: Sequence[Rewrite]) -> str:
    """The right-hand side of the first line that depends on all of them; nothing where none does."""
    by_root = {rewrite.root: rewrite for rewrite in choice}
    reach: dict[fx.Node, set[fx.Node]] = {}
    named: dict[Ref, str] = {}
    line, text = None, ""
    for record in trace.records:
        node = record.node
        reach[node] = set().union(*(reach.get(source, set()) for source in node.all_input_nodes))
        if node in by_root:
            reach[node] = reach[node] | {node}
            named[node, 0] = _bracketed(_text(trace, by_root[node], named))
        elif reach[node]:
            named[node, 0] = call_text(trace, node, named, inside=True)
        step = step_of(node)
        if len(reach[node]) == len(by_root) and step is not None and line in (None, step.line):
            line, text = step.line, named[node, 0] if node in by_root else call_text(trace, node, named)
    return text


_CALL: Final = re.compile(r"[\w.]+\([^()]*\)")


def _bracketed(text: str) -> str:
    return text if _CALL.fullmatch(text) else f"({text})"


def _text(trace: StepTrace, rewrite: Rewrite, named: Mapping[Ref, str]) -> str:
    text = rewrite.text
    for i, part in enumerate(rewrite.parts):
        bare = written(trace, part, named=named)
        # A whole argument of a call needs no brackets of its own.
        text = re.sub(rf"(?<=[(])\{{{i}\}}(?=[,)])|(?<=, )\{{{i}\}}(?=[,)])", bare.replace("\\", r"\\"), text)
        text = text.replace(f"{{{i}}}", written(trace, part, inside=True, named=named))
    return text
