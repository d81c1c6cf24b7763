"""The steps of a Function that was built, as they are run again for other shapes.

Most steps give and cost the same whatever the numbers: of these only the geometries of the tensors are followed, and what a step makes of
them is looked up. Where numbers may decide something, the step runs on the values that were sent, and so does all that leads to it.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import fx

from app.engine.planning.bounded_counter import SMALL_BYTES, BoundedCounter
from app.engine.planning.build import Built, Leaf, Real
from app.engine.planning.cost import Scratch, value_bytes
from app.engine.planning.replay import step_costs
from app.engine.planning.replay.counted_kernels import Direct
from app.engine.planning.replay.direct_steps import direct
from app.engine.planning.replay.geometries import forms, geometries, row_major
from app.engine.planning.replay.registers import Asked, ByRegister, Number, NumberRegisters, Shapes, compute, form
from app.engine.planning.replay.row_loops import Loop
from app.engine.planning.replay.step_costs import Call, Quietly, StepCost
from app.program.graph_runner import Getter, getter, keywords_getter
from app.program.lifetimes import Lifetimes
from app.program.resized import Arguments, Resizing
from app.program.semantics import sizes
from app.program.semantics.questions import Answered, shares_memory

# The geometries of a step's tensors, read from the registers of all steps.
Reads = Callable[[list[Any]], Any]


class _Step(NamedTuple):
    """A call of a Function, as it is run again.

    Attributes:
        call: by which what it costs is looked up; None where it runs on values.
        reads: the geometries of its tensors, and the numbers among its arguments that come of sizes.
        form: of its result.
        register: where its result is kept.
        run: how it is run without a mode, where it can be.
        alone: the same, of a call that no other step makes: to look up what it costs takes as long as to count it.
        numbers: that are computed before it.
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
    alone: Direct | None
    numbers: list[Number]
    is_followed: bool


class Registers:
    """What the steps have given so far.

    Attributes:
        values: by register: the tensors, where numbers have a say; plain arguments, and those that come of sizes.
        geometries, bytes: by register, of what the steps give; plain arguments and those that come of sizes among the former, too.
    """

    __slots__ = ("bytes", "geometries", "values")

    def __init__(self, values: list[Any], geometries_: list[Any], bytes_: list[int]) -> None:
        self.values, self.geometries, self.bytes = values.copy(), geometries_.copy(), bytes_.copy()

    def copy(self) -> Registers:
        return Registers(self.values, self.geometries, self.bytes)


class _Constants(NamedTuple):
    """What the steps that no input leads to have bytes_, and what that took: the same for all inputs."""

    registers: Registers
    flops: float
    bytes: int
    largest: int
    scratch: Scratch


class Inputs:
    """The inputs of a Function, as its steps are run again, and what was asked of them alone.

    Attributes:
        registers: of the tensors; blank: of all registers, what stands in them before anything is computed.
        numbers: the registers of sizes.
        asked: of the inputs alone.
    """

    def __init__(self, placeholders: tuple[fx.Node, ...], leaves: tuple[Leaf, ...], questions: list[Answered]) -> None:
        self.registers = {node: number for number, node in enumerate(placeholders)}
        self.blank: list[Any] = [None] * len(placeholders)
        self._leaves = leaves
        self.numbers = NumberRegisters(self.registers, self.blank)
        self.asked = Asked.of(questions, self.numbers)
        self._begin = self.blank.copy()  # what comes behind belongs to steps

    def begun(self, shapes: Shapes, *, is_asked: bool = True) -> list[Any] | None:
        """The first registers for inputs of these shapes; None where they answer otherwise, be they asked, or have not the sizes."""
        begun = self._begin.copy()
        begun[: len(self._leaves)] = [row_major(tuple(shapes[leaf.name]), leaf.dtype) for leaf in self._leaves]
        values = ByRegister(begun, begun, self.registers)
        return begun if self.asked.are_there(begun) and (not is_asked or self.asked.are_answered(begun, values)) else None


class Steps:
    """The calls of a Function, as they are run again.

    Arguments:
        has_turns: some may be counted for turns that they have not run.

    Attributes:
        lifetimes: of their values, by register.
        outputs: registers of what the Function gives.
        resizing: what makes the Function for other numbers among its arguments; None where there are none that may change.
    """

    def __init__(
        self, built: Built, inputs: Inputs, constant: frozenset[fx.Node], asking: list[Answered], *, has_turns: bool
    ) -> None:
        self._leaves, self._inputs = built.leaves, inputs
        nodes = list(built.function.graph.nodes)
        self._registers, self._blank, self._numbers = inputs.registers, inputs.blank, inputs.numbers
        self._steps: list[_Step] = []
        self._constant_steps: list[_Step] = []
        self._constants: _Constants | None = None
        calls = _calls(nodes, built.function.dtype)
        self._reads_values = any(node in calls for node in self._registers)
        times = Counter(call for call in calls.values() if call is not None)
        self._alone = frozenset() if has_turns else frozenset(call for call, count in times.items() if count == 1)
        self._followed = {source for node in nodes if calls.get(node) is not None for source in node.all_input_nodes}
        sized = {node: node.meta["sized"] for node in nodes if "sized" in node.meta and node not in constant}
        asked_sizes = [each.question.size for each in asking if isinstance(each.question, sizes.Answer)]
        self._followed |= sizes.nodes_of([*sized.values(), asked_sizes])
        for node in nodes:
            if node in constant:
                self._constant_steps.append(self._step(node, None, None))
            elif node.op == "call_function":
                self._steps.append(self._step(node, sized.get(node), calls[node]))
        self.asked = Asked.of(asking, self._numbers)
        self.outputs = [self._registers[node] for node in nodes[-1].args[0]]
        self.lifetimes = Lifetimes(built.function.graph, self._registers)
        known: list[Number] = []
        arguments = {node: self._numbers.stood_in(each, known) for node, each in sized.items()}
        self.resizing = Resizing(built.function, arguments, self._registers) if arguments else None

    def _step(self, node: fx.Node, sized: Arguments | None, call: Call | None) -> _Step:
        numbers: list[Number] = []
        args, kwargs = (node.args, node.kwargs) if sized is None else self._numbers.stood_in(sized, numbers)
        arguments = getter(args, self._registers, self._blank)
        keywords = keywords_getter(kwargs, self._registers)
        read = [self._registers[source] for source in node.all_input_nodes]
        read += [self._numbers.register(size, numbers) for size in sizes.within(sized)]
        register, run = self._add(node), direct(node)
        return _Step(
            node,
            call,
            _reader(read),
            arguments,
            keywords,
            form(node.meta["val"]),
            register,
            run,
            run if call in self._alone else None,
            numbers,
            node in self._followed,
        )

    def _add(self, node: fx.Node) -> int:
        self._registers[node] = len(self._blank)
        self._blank.append(None)
        return self._registers[node]

    def run(self, begun: list[Any], real: Real, counter: BoundedCounter, quietly: Quietly) -> Registers | None:
        """What every step gives; None where one has another rank or number of members than when the Function was built.

        What draws weights and what else hangs on no input runs once: a plan looks at sizes alone.

        Arguments:
            begun: the first registers.
        """
        if self._constants is None:
            registers = Registers(self._blank, self._blank, [0] * len(self._blank))
            if not self._all_ran(self._constant_steps, registers, counter, quietly):
                return None
            constants = _Constants(registers, counter.flops, counter.bytes, counter.largest, counter.scratch)
            self._constants = constants if not counter.has_read else None
            registers = registers.copy()
        else:
            registers = self._constants.registers.copy()
            _, counter.flops, counter.bytes, counter.largest, counter.scratch = self._constants
        registers.geometries[: len(begun)] = begun
        if self._reads_values:
            registers.values[: len(begun)] = begun
            values = real({leaf.name: leaf.dtype for leaf in self._leaves})
            registers.values[: len(self._leaves)] = [values[leaf.name] for leaf in self._leaves]
        return registers if self._all_ran(self._steps, registers, counter, quietly) and not counter.has_read else None

    def _all_ran(self, steps: list[_Step], registers: Registers, counter: BoundedCounter, quietly: Quietly) -> bool:
        """Whether each step gives, into its register, what has the form that it had."""
        known, geometries_, sizes_ = step_costs.known, registers.geometries, registers.bytes
        costs: list[StepCost] = []  # not counted yet, with these bytes in all
        bytes_ = counter.bytes
        for step in steps:
            if step.numbers:
                compute(step.numbers, geometries_)
                for number in step.numbers:
                    registers.values[number.register] = geometries_[number.register]
            if step.call is None:
                counter.add(costs)
                costs = []
                if not self._ran_on_values(step, registers, counter, quietly):
                    return False
                bytes_ = counter.bytes
                continue
            if step.alone is not None:
                counter.add(costs)
                costs = []
                geometry = step.alone(counter, *_arguments(step, geometries_))
                if geometry is not NotImplemented:
                    if forms(geometry) != step.form:
                        return False
                    geometries_[step.register], sizes_[step.register] = geometry, value_bytes(step.node, geometry)
                    bytes_ = counter.bytes
                    continue
            key = step.call, step.reads(geometries_)
            cost = known.get(key)
            if cost is None:
                cost = step_costs.learn(key, step.run, step.node, _arguments(step, geometries_), quietly)
            if cost.form != step.form:
                return False
            if bytes_ + cost.needed <= SMALL_BYTES:
                costs.append(cost)
                bytes_ += cost.bytes
            else:  # it may fit, on a closer look
                counter.add(costs)
                costs = []
                step_costs.reckon(step.run, step.node, counter, _arguments(step, geometries_), quietly)
                bytes_ = counter.bytes
            geometries_[step.register], sizes_[step.register] = cost.geometry, cost.value_bytes
        counter.add(costs)
        return True

    def _ran_on_values(self, step: _Step, registers: Registers, counter: BoundedCounter, quietly: Quietly) -> bool:
        """Whether a step on values gives, into its register, what has the form that it had."""
        quietly.begin()
        value = step_costs.run(step.run, step.node, counter, _arguments(step, registers.values))
        if form(value) != step.form:
            return False
        register = step.register
        registers.values[register], registers.bytes[register] = value, value_bytes(step.node, value)
        if step.is_followed:
            registers.geometries[register] = geometries(value)
        return True

    def are_answered(self, registers: Registers) -> bool:
        """Whether the steps answer what was asked of them."""
        values = ByRegister(registers.values, registers.geometries, self._registers)
        return self.asked.are_there(registers.geometries) and self.asked.are_answered(registers.geometries, values)

    def with_more_turns(self, loop: Loop, more: int, registers: Registers, counter: BoundedCounter) -> bool:
        """Counts more turns of a loop; False where they might cost something else than the one that is their pattern, or much."""
        known, geometries_ = step_costs.known, registers.geometries
        for one, other in zip(loop.before, loop.turns.nodes, strict=True):
            if geometries_[self._registers[one]] != geometries_[self._registers[other]]:
                return False
        costs = [known.get((step.call, step.reads(geometries_))) for step in self._steps if step.call is not None]
        turn = [cost for cost in costs[loop.position : loop.position + len(loop.turns.nodes)] if cost is not None]
        if self._constant_steps or None in costs or len(costs) < len(self._steps):
            return False
        flops = sum([cost.flops for cost in turn])
        counter.flops, counter.bytes = counter.flops + more * flops, counter.bytes + more * sum([cost.bytes for cost in turn])
        needed = max([cost.needed for cost in costs if cost is not None])
        # Sums of whole numbers that float64 holds are the same in any order.
        are_whole = float(flops).is_integer() and counter.flops < 1 << 53
        return are_whole and counter.bytes + needed <= SMALL_BYTES


def _arguments(step: _Step, registers: list[Any]) -> Arguments:
    """With values, or geometries, in the place of nodes."""
    return step.arguments(registers), step.node.kwargs if step.keywords is None else step.keywords(registers)


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
