"""A Function that was built, run step by step for the shapes that come next.

A Function is a graph of calls; what it gives for other shapes its own steps say, where no size had a say in how it was read. Of a
program its nodes know what the reading asked of them (a loop over the rows of a matrix: how many there are): where all that was asked
has the same answer, the program is read alike. Reading, binding and drawing up a graph are then left out, which is most of a plan.

Most steps give and cost the same whatever the numbers: of these only the geometries of the tensors are followed, and what a step makes of
them is looked up. Where numbers may decide something, the step runs on the values that were sent, and so does all that leads to it.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import fx

from app.engine.planning.bounded_counter import SMALL_BYTES, BoundedCounter, UnboundedError
from app.engine.planning.build import Built, Leaf, Real, function_bytes
from app.engine.planning.cost import Scratch, value_bytes
from app.engine.planning.replay import step_costs
from app.engine.planning.replay.counted_kernels import Direct
from app.engine.planning.replay.direct_steps import direct
from app.engine.planning.replay.geometries import geometries, row_major
from app.engine.planning.replay.row_loops import Loop, RowLoop, loop_of
from app.engine.planning.replay.step_costs import Call
from app.engine.planning.replay.step_values import ByRegister, filler, form, tensor_bytes
from app.errors import PullbackError
from app.program.errors import REFUSALS
from app.program.graph_runner import Getter, floating_default, getter, keywords_getter
from app.program.lifetimes import Lifetimes
from app.program.resized import Arguments, repeated, resized
from app.program.semantics import sizes
from app.program.semantics.graph_values import mapped_call
from app.program.semantics.questions import Answered, answered, are_answered_alike, compared_with, shares_memory
from app.program.semantics.sizes import Size

Shapes = Mapping[str, tuple[int, ...]]
# The geometries of a step's tensors, read from the registers of all steps.
Reads = Callable[[list[Any]], Any]


class _Step(NamedTuple):
    """A call of a Function, as it is run again.

    Attributes:
        call: by which what it costs is looked up; None where it runs on values.
        reads: the geometries of its tensors.
        form: of its result.
        register: where its result is kept.
        run: how it is run without a mode, where it can be.
        numbers: the sizes among its arguments, as they come of the tensors; none where there are none that may change.
        filled: gives its arguments with other numbers in the place of these.
        is_followed: the geometry of its result is a source of others.
    """

    node: fx.Node
    call: Call | None
    reads: Reads
    arguments: Getter
    keywords: Callable[[list[Any]], dict[str, Any]] | None
    form: Any
    register: int
    run: Direct | None
    numbers: list[Size]
    filled: Callable[[list[Any]], Arguments]
    is_followed: bool


class _Registers:
    """What the steps have given so far.

    Attributes:
        values: by register: the tensors, where numbers have a say; plain arguments.
        geometries, bytes: by register, of what the steps give; plain arguments among the former, too.
        arguments: of nodes whose arguments come of sizes.
        numbers: the sizes that were computed.
    """

    __slots__ = ("arguments", "bytes", "geometries", "numbers", "values")

    def __init__(self, values: list[Any], geometries_: list[Any], bytes_: list[int]) -> None:
        self.values, self.geometries, self.bytes = values.copy(), geometries_.copy(), bytes_.copy()
        self.arguments: dict[fx.Node, Arguments] = {}
        self.numbers: dict[int, Any] = {}

    def copy(self) -> _Registers:
        return _Registers(self.values, self.geometries, self.bytes)


class _Constants(NamedTuple):
    """What the steps that no input leads to have made, and what that took: the same for all inputs."""

    registers: _Registers
    flops: float
    bytes: int
    largest: int
    scratch: Scratch


class _Steps:
    """The calls of a Function, as they are run again.

    Attributes:
        lifetimes: of their values, by register.
        outputs: the nodes that the Function gives.
    """

    def __init__(self, built: Built, placeholders: tuple[fx.Node, ...], constant: frozenset[fx.Node]) -> None:
        self._leaves, self._dtype = built.leaves, built.function.dtype
        nodes = list(built.function.graph.nodes)
        self._registers: dict[fx.Node, int] = {}
        self._blank: list[Any] = []
        self._steps: list[_Step] = []
        self._constant_steps: list[_Step] = []
        self._constants: _Constants | None = None
        for node in placeholders:
            self._add(node)
        calls = _calls(nodes, self._dtype)
        self._reads_values = any(node in calls for node in placeholders)
        self._followed = {source for node in nodes if calls.get(node) is not None for source in node.all_input_nodes}
        for node in nodes:
            if node in constant:
                self._constant_steps.append(self._step(node, None, None))
            elif node.op == "call_function":
                self._steps.append(self._step(node, node.meta.get("sized"), calls[node]))
        self.outputs: tuple[fx.Node, ...] = tuple(nodes[-1].args[0])
        self.lifetimes = Lifetimes(built.function.graph, self._registers)

    def _step(self, node: fx.Node, sized: Arguments | None, call: Call | None) -> _Step:
        arguments = getter(node.args, self._registers, self._blank)
        keywords = keywords_getter(node.kwargs, self._registers)
        reads = _reader([self._registers[source] for source in node.all_input_nodes])
        register, run, numbers = self._add(node), direct(node), [] if sized is None else sizes.within(sized)
        return _Step(
            node,
            call,
            reads,
            arguments,
            keywords,
            form(node.meta["val"]),
            register,
            run,
            numbers,
            filler(sized),
            node in self._followed,
        )

    def _add(self, node: fx.Node) -> int:
        self._registers[node] = len(self._blank)
        self._blank.append(None)
        return self._registers[node]

    def run(self, shapes: Shapes, real: Real, counter: BoundedCounter) -> _Registers | None:
        """What every step gives; None where one has another rank or number of members than when the Function was built.

        What draws weights and what else hangs on no input runs once: a plan looks at sizes alone.
        """
        if self._constants is None:
            registers = _Registers(self._blank, self._blank, [0] * len(self._blank))
            if not self._all_ran(self._constant_steps, registers, counter):
                return None
            constants = _Constants(registers, counter.flops, counter.bytes, counter.largest, counter.scratch)
            self._constants = constants if not counter.has_read else None
            registers = registers.copy()
        else:
            registers = self._constants.registers.copy()
            _, counter.flops, counter.bytes, counter.largest, counter.scratch = self._constants
        leaves = self._leaves
        registers.geometries[: len(leaves)] = [row_major(tuple(shapes[leaf.name]), leaf.dtype) for leaf in leaves]
        if self._reads_values:
            values = real({leaf.name: leaf.dtype for leaf in leaves})
            registers.values[: len(leaves)] = [values[leaf.name] for leaf in leaves]
        return registers if self._all_ran(self._steps, registers, counter) and not counter.has_read else None

    def _all_ran(self, steps: list[_Step], registers: _Registers, counter: BoundedCounter) -> bool:
        """Whether each step gives, into its register, what has the form that it had."""
        known, geometries_, sizes_ = step_costs.known, registers.geometries, registers.bytes
        for step in steps:
            if step.call is None:
                if not self._ran_on_values(step, registers, counter):
                    return False
                continue
            numbers = self._resized(step, registers) if step.numbers else None
            key = step.call, numbers, step.reads(geometries_)
            cost = known.get(key)
            if cost is None:
                cost = step_costs.learn(key, step.run, step.node, *self._arguments(step, registers, geometries_))
            if cost.form != step.form:
                return False
            if counter.bytes + cost.needed <= SMALL_BYTES:
                counter.add(cost)
            else:  # it may fit, on a closer look
                step_costs.reckon(step.run, step.node, counter, *self._arguments(step, registers, geometries_))
            geometries_[step.register], sizes_[step.register] = cost.geometry, cost.value_bytes
        return True

    def _resized(self, step: _Step, registers: _Registers) -> tuple[Any, ...]:
        """The numbers among the arguments of a step that come of sizes."""
        values = self.by_node(registers)
        numbers = [size.of(values, registers.numbers) for size in step.numbers]
        registers.arguments[step.node] = step.filled(numbers)
        return tuple(numbers)

    def _arguments(self, step: _Step, registers: _Registers, known: list[Any]) -> Arguments:
        """With values, or geometries, in the place of nodes; `known`: by register."""
        if step.numbers:
            own = self._registers
            return mapped_call(registers.arguments[step.node], lambda node: known[own[node]])
        return step.arguments(known), step.node.kwargs if step.keywords is None else step.keywords(known)

    def _ran_on_values(self, step: _Step, registers: _Registers, counter: BoundedCounter) -> bool:
        """Whether a step on values gives, into its register, what has the form that it had."""
        if step.numbers:
            self._resized(step, registers)
        value = step_costs.run(step.run, step.node, counter, *self._arguments(step, registers, registers.values))
        if form(value) != step.form:
            return False
        register = step.register
        registers.values[register], registers.bytes[register] = value, value_bytes(step.node, value)
        if step.is_followed:
            registers.geometries[register] = geometries(value)
        return True

    def with_more_turns(self, loop: Loop, more: int, registers: _Registers, counter: BoundedCounter) -> bool:
        """Counts more turns of a loop; False where they might cost something else than the one that is their pattern, or much."""
        known, geometries_ = step_costs.known, registers.geometries
        for one, other in zip(loop.before, loop.turns.nodes, strict=True):
            if geometries_[self._registers[one]] != geometries_[self._registers[other]]:
                return False
        costs = [known.get((step.call, None, step.reads(geometries_))) for step in self._steps if step.call is not None]
        turn = [cost for cost in costs[loop.position : loop.position + len(loop.turns.nodes)] if cost is not None]
        if self._constant_steps or None in costs or len(costs) < len(self._steps):
            return False
        flops = sum([cost.flops for cost in turn])
        counter.flops, counter.bytes = counter.flops + more * flops, counter.bytes + more * sum([cost.bytes for cost in turn])
        needed = max([cost.needed for cost in costs if cost is not None])
        # Sums of whole numbers that float64 holds are the same in any order.
        are_whole = float(flops).is_integer() and counter.flops < 1 << 53
        return are_whole and counter.bytes + needed <= SMALL_BYTES

    def by_node(self, registers: _Registers) -> Mapping[fx.Node, Any]:
        """Values, or geometries in the place of them."""
        return ByRegister(registers.values, registers.geometries, self._registers)


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

    @cached_property
    def _steps(self) -> _Steps:
        return _Steps(self.built, self._placeholders, self._constant)

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

    def is_of(self, shapes: Shapes) -> bool:
        """Whether inputs of these shapes answer what was asked of inputs alone."""
        return self._are_answered_alike(self._asked_of_inputs, shapes)

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
        others = [each for each in self._asked_of_inputs if not _is_extent(each, loop.rows)]
        return more if self._are_answered_alike(others, shapes) else 0

    def _are_answered_alike(self, questions: list[Answered], shapes: Shapes) -> bool:
        if not questions:
            return True
        names = zip(self._placeholders, self.built.leaves, strict=True)
        inputs = {node: row_major(tuple(shapes[leaf.name]), leaf.dtype) for node, leaf in names}
        return are_answered_alike(questions, inputs, {})

    def run(self, shapes: Shapes, real: Real, more: int = 0) -> Built | None:
        """What the steps give for shapes that it `is_of`; None where one of them fails, or gives what has another form or another answer.

        `more`: turns of its loop, where it is of these shapes but for them.
        """
        function, counter = self.built.function, BoundedCounter()
        try:
            with torch.no_grad(), floating_default(function.dtype), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                registers = self._steps.run(shapes, real, counter)
        except (UnboundedError, PullbackError, *REFUSALS):
            return None
        if registers is None:
            return None
        values = self._steps.by_node(registers)
        if not are_answered_alike(self._asked_of_steps, values, registers.numbers):
            return None
        lifetimes, loop = self._steps.lifetimes, self._loop
        if more and loop is not None:
            if registers.arguments or not self._steps.with_more_turns(loop, more, registers, counter):
                return None
            function = repeated(function, loop.turns, more)
            live = lifetimes.live_bytes(registers.bytes, range(loop.position, loop.position + len(loop.turns.nodes)), more)
        else:
            function = resized(function, registers.arguments) if registers.arguments else function
            live = lifetimes.live_bytes(registers.bytes)
        return Built(
            function,
            tuple(Leaf(leaf.name, shapes[leaf.name], leaf.dtype) for leaf in self.built.leaves),
            counter.cost(live, max(registers.bytes)),
            tuple(values[node] for node in self._steps.outputs),
        )


def _calls(nodes: list[fx.Node], dtype: torch.dtype) -> dict[fx.Node, Call | None]:
    """Of the steps; None where a step runs on values: those that numbers decide, those that lead to them, and those of which was asked whose
    memory they show."""
    calls = {node: step_costs.call_of(node, dtype, node.meta.get("sized")) for node in nodes if node.op == "call_function"}
    for node in nodes:
        for question, others in node.meta.get("asked", ()):
            if question is shares_memory:
                calls.update(dict.fromkeys((node, *others)))
    for node in reversed(nodes):
        if node in calls and calls[node] is None:
            calls.update(dict.fromkeys(node.all_input_nodes))
    return calls


def _reader(registers: list[int]) -> Reads:
    return operator.itemgetter(*registers) if registers else lambda _: None


def _is_extent(question: Answered, node: fx.Node) -> bool:
    """Whether it is how many rows the tensor of `node` has."""
    return isinstance(question.question, sizes.Answer) and question.question.is_extent(node, 0)
