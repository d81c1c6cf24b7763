"""Functions that hold for all shapes of the same ranks: built once, and run step by step on the values of the next shape.

A Function is a graph of calls; what it gives for other shapes its own steps say, where no size had a say in how it was read. Of a
program its nodes know what the reading asked of them (a loop over the rows of a matrix: how many there are): where all that was asked
has the same answer, the program is read alike. Reading, binding and drawing up a graph are then left out, which is most of a plan.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.bounded_cache import BoundedCache
from app.engine.planning.bounded_counter import BoundedCounter, UnboundedError, is_small
from app.engine.planning.build import Built, Leaf, Real, function_bytes, leaves_of, lists_of
from app.errors import PullbackError
from app.program.errors import REFUSALS
from app.program.graph_runner import floating_default
from app.program.semantics.questions import answers_alike
from app.query import Query

# Of all graphs: chosen, some 500 programs of 20 steps, which the signatures of Preparer mostly share.
_BYTES_LIMIT: Final = 32 << 20
# Of one text: as many lengths of its loops are kept. Chosen: to look which holds takes some µs.
_READINGS: Final = 8

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A Function that was built, as it is run again.

    Attributes:
        placeholders: its inputs, in the order of its leaves.
        steps: its calls, each with the form of its result.
        asking: the nodes that were asked for more than rank and dtype while it was read.
        outputs: the nodes of its outputs.
    """

    built: Built
    placeholders: tuple[fx.Node, ...]
    steps: tuple[tuple[fx.Node, Any], ...]
    asking: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]

    @classmethod
    def of(cls, built: Built) -> _Reading:
        nodes = list(built.function.graph.nodes)
        return cls(
            built,
            tuple(node for node in nodes if node.op == "placeholder"),
            tuple((node, _form(node.meta["val"])) for node in nodes if node.op == "call_function"),
            tuple(node for node in nodes if "asked" in node.meta),
            nodes[-1].args[0],
        )

    def is_of(self, shapes: Shapes) -> bool:
        """Whether inputs of these shapes answer what was asked of inputs alone."""
        asking = [node for node in self.asking if node.op == "placeholder"]
        if not asking:
            return True
        names = zip(self.placeholders, self.built.function.leaves, strict=True)
        inputs = {node: torch.empty(shapes[name], device="meta") for node, name in names}
        return all(answers_alike(node, inputs) for node in asking)

    def run(self, shapes: Shapes, real: Real) -> Built | None:
        """What the steps give for these shapes; None where one of them fails, or gives what has another form or another answer."""
        function, counter = self.built.function, BoundedCounter()
        leaves = real({leaf.name: leaf.dtype for leaf in self.built.leaves})
        try:
            with counter, torch.no_grad(), floating_default(function.dtype), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = self._values(leaves)
        except (UnboundedError, PullbackError, *REFUSALS):
            return None
        if values is None or counter.has_read or not all(answers_alike(node, values) for node in self.asking):
            return None
        return Built(
            function,
            tuple(Leaf(leaf.name, shapes[leaf.name], leaf.dtype) for leaf in self.built.leaves),
            counter.cost(function.graph, values.__getitem__),
            tuple(values[node] for node in self.outputs),
        )

    def _values(self, leaves: Mapping[str, Tensor]) -> dict[fx.Node, Any] | None:
        """Of every node; None where one has another rank or number of members than when the Function was built.

        Each graph is walked once, for the first query of new extents, which waits for it: fx.Interpreter would take 95 µs where this takes
        33, for ten small steps.
        """
        names = zip(self.placeholders, self.built.function.leaves, strict=True)
        values: dict[fx.Node, Any] = {node: leaves[name] for node, name in names}
        for node, form in self.steps:
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = value = node.target(*args, **kwargs)  # type: ignore[operator]
            if _form(value) != form:
                return None
        return values


def _form(value: Any) -> Any:
    """Ranks and dtypes, in the structure of the result."""
    if isinstance(value, Tensor):
        return value.dim(), value.dtype
    return [_form(member) for member in value] if isinstance(value, list | tuple) else None


def _holds_empty(value: Any) -> bool:
    """Whether a tensor of it is empty: of such `dropout` draws nothing, of others it does."""
    if isinstance(value, Tensor):
        return value.numel() == 0
    return isinstance(value, list | tuple) and any(map(_holds_empty, value))


class SameRanks:
    """Functions by all that was asked but the extents of their inputs."""

    def __init__(self) -> None:
        self._known: BoundedCache[Any, tuple[_Reading, ...]] = BoundedCache(_BYTES_LIMIT, _bytes)

    def built(self, query: Query, shapes: Shapes, real: Real) -> Built | None:
        """The Function for these shapes, with their own cost and outputs; None where it has to be built."""
        if not is_small(shapes.values()):
            return None
        known = self._known.get(_key(query, shapes), ())
        reading = next((reading for reading in known if reading.is_of(shapes)), None)
        return None if reading is None else reading.run(shapes, real)

    def learn(self, query: Query, shapes: Shapes, built: Built) -> None:
        """Keep what was built, where it holds for other shapes."""
        function = built.function
        is_fixed = function.static and not (function.modified or function.branches)
        is_fixed = is_fixed and not (function.random and query.operation is not None)  # which may hang on how it is called
        if not is_fixed or built.by_failure or any(_holds_empty(node.meta.get("val")) for node in function.graph.nodes):
            return
        key = _key(query, shapes)
        self._known.keep(key, (_Reading.of(built), *self._known.get(key, ())[: _READINGS - 1]))


def _bytes(known: tuple[_Reading, ...]) -> int:
    return sum(function_bytes(reading.built.function) for reading in known)


def _key(query: Query, shapes: Shapes) -> Any:
    leaves = tuple([(name, len(shapes[name]), data.dtype, data.bare) for name, data in leaves_of(query.inputs)])
    asked = query.operation, query.program, query.function, repr(query.parameters), query.dtype, query.wrt, query.seed is None
    return leaves, lists_of(query.inputs), asked
