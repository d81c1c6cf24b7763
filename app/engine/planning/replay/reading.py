"""A Function that was built, run step by step for the shapes that come next.

A Function is a graph of calls; what it gives for other shapes its own steps say, where no size had a say in how it was read. Of a
program its nodes know what the reading asked of them (a loop over the rows of a matrix: how many there are): where all that was asked
has the same answer, the program is read alike. Reading, binding and drawing up a graph are then left out, which is most of a plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from torch import fx

from app.engine.planning.bounded_counter import BoundedCounter, UnboundedError
from app.engine.planning.build import Built, Leaf, Real, function_bytes
from app.engine.planning.replay.registers import Shapes, form, tensor_bytes
from app.engine.planning.replay.row_loops import Loop, RowLoop, loop_of
from app.engine.planning.replay.step_costs import Quietly
from app.engine.planning.replay.steps import Inputs, Registers, Steps
from app.errors import PullbackError
from app.program.errors import REFUSALS
from app.program.function import Function
from app.program.resized import repeated
from app.program.semantics import sizes
from app.program.semantics.questions import Answered, answered, compared_with


class Reading:
    """A Function that was built, as it is run again. How its steps are run is worked out when they are for the first time.

    Attributes:
        built: as it was built.
        bytes: that it takes.
    """

    def __init__(self, built: Built, loop: RowLoop | None = None) -> None:
        self.built, self._row_loop = built, loop
        nodes = list(built.function.graph.nodes)
        self._placeholders = tuple(node for node in nodes if node.op == "placeholder")
        constant: set[fx.Node] = set()
        for node in nodes:
            if node.op == "call_function" and constant.issuperset(
                [*node.all_input_nodes, *sizes.nodes_of(node.meta.get("sized"))]
            ):
                constant.add(node)
        asking = [node for node in nodes if "asked" in node.meta]
        self._asking = tuple([node for node in asking if node not in constant or not constant.issuperset(compared_with(node))])
        inputs, known = set(self._placeholders), set(nodes)
        questions = [each for each in answered(self._asking) if known.issuperset(each.nodes())]
        self._asked_of_inputs = [each for each in questions if inputs.issuperset(each.nodes())]
        self._asked_of_steps = [each for each in questions if not inputs.issuperset(each.nodes())]
        self._constant = frozenset(constant)
        self.bytes = function_bytes(built.function) + sum([tensor_bytes(node.meta["val"]) for node in constant])

    def drawn_up(self) -> Iterator[None]:
        """Works out how it is run again, some milliseconds of a long program in parts, before somebody asks."""
        for part in ("_inputs", "_steps", "_loop", "_inputs_but_for_turns"):
            getattr(self, part)
            yield

    @cached_property
    def _inputs(self) -> Inputs:
        return Inputs(self._placeholders, self.built.leaves, self._asked_of_inputs)

    @cached_property
    def _steps(self) -> Steps:
        has_turns = self._row_loop is not None
        return Steps(self.built, self._inputs, self._constant, self._asked_of_steps, has_turns=has_turns)

    @cached_property
    def _loop(self) -> Loop | None:
        return None if self._row_loop is None else loop_of(self.built.function, self._row_loop)

    def has_steps_of(self, other: Reading) -> bool:
        """Whether the same steps stand in both, of which the same was asked: of a program with its weights, and without them."""
        return self._described_steps == other._described_steps

    @cached_property
    def _described_steps(self) -> list[Any]:
        steps = [node for node in self.built.function.graph.nodes if node.op == "call_function" and node not in self._constant]
        return [(node.name, form(node.meta["val"]), list(node.meta.get("asked", {}).values())) for node in steps]

    def is_like(self, other: Reading) -> bool:
        """Whether the same steps stand in both, with the same answers to what was asked: then they hold for the same sizes."""
        are_as_many = len(self.built.function.graph.nodes) == len(other.built.function.graph.nodes)
        return are_as_many and self._described == other._described

    @cached_property
    def _described(self) -> list[Any]:
        answers = [list(node.meta["asked"].values()) for node in self._asking]
        steps = [node for node in self.built.function.graph.nodes if node.op == "call_function" and node not in self._constant]
        return [*answers, *[(node.name, form(node.meta["val"])) for node in steps]]

    def begun(self, shapes: Shapes) -> list[Any] | None:
        """What `run` begins with; None where inputs of these shapes answer otherwise than its own what was asked of inputs alone."""
        return self._inputs.begun(shapes)

    def more_turns(self, shapes: Shapes) -> int:
        """How many turns more its loop has for inputs of these shapes, where they answer all else alike; 0 where that is not so."""
        loop = self._loop
        if loop is None:
            return 0
        leaves = self.built.leaves
        extents = {shapes[leaves[number].name][0] for number in (loop.counted, *loop.indexed)}
        more = min(extents) - loop.length
        if len(extents) > 1 or more <= 0 or not loop.may_have(more):
            return 0
        return more if self._inputs_but_for_turns.begun(shapes) is not None else 0

    @cached_property
    def _inputs_but_for_turns(self) -> Inputs:
        rows = None if self._loop is None else self._loop.rows
        others = [each for each in self._asked_of_inputs if rows is None or not _is_extent(each, rows)]
        return Inputs(self._placeholders, self.built.leaves, others)

    def run(self, begun: list[Any], shapes: Shapes, real: Real) -> Built | None:
        """What the steps give for these shapes; None where one of them fails, or gives what has another form or another answer."""
        counter = BoundedCounter()
        registers = self._ran(begun, real, counter)
        if registers is None:
            return None
        function, steps = self.built.function, self._steps
        if steps.resizing is not None:
            function = steps.resizing.function(registers.geometries)
        return self._built(function, shapes, registers, counter, steps.lifetimes.live_bytes(registers.bytes))

    def run_more_turns(self, shapes: Shapes, real: Real, more: int) -> Built | None:
        """As `run`, with so many turns more of its loop than it has."""
        loop, steps, counter = self._loop, self._steps, BoundedCounter()
        if loop is None or steps.resizing is not None:
            return None
        registers = self._ran(self._inputs.begun(shapes, is_asked=False), real, counter)
        if registers is None or not steps.with_more_turns(loop, more, registers, counter):
            return None
        turn = range(loop.position, loop.position + len(loop.turns.nodes))
        live = steps.lifetimes.live_bytes(registers.bytes, turn, more)
        return self._built(repeated(self.built.function, loop.turns, more), shapes, registers, counter, live)

    def _ran(self, begun: list[Any] | None, real: Real, counter: BoundedCounter) -> Registers | None:
        """What the steps gave; None as of `run`."""
        if begun is None:
            return None
        try:
            with Quietly(self.built.function.dtype) as quietly:
                registers = self._steps.run(begun, real, counter, quietly)
        except (UnboundedError, PullbackError, *REFUSALS):
            return None
        return registers if registers is not None and self._steps.are_answered(registers) else None

    def _built(self, function: Function, shapes: Shapes, registers: Registers, counter: BoundedCounter, live: int) -> Built:
        return Built(
            function,
            tuple([Leaf(leaf.name, shapes[leaf.name], leaf.dtype) for leaf in self.built.leaves]),
            counter.cost(live, max(registers.bytes)),
            tuple(
                [
                    registers.values[each] if registers.geometries[each] is None else registers.geometries[each]
                    for each in self._steps.outputs
                ]
            ),
        )


def _is_extent(question: Answered, node: fx.Node) -> bool:
    """Whether it is how many rows the tensor of `node` has."""
    return isinstance(question.question, sizes.Answer) and question.question.is_extent(node, 0)
