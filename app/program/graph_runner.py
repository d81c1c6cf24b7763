"""Runs a graph: one call after the other, in a list of registers.

(fx.GraphModule would do the same through generated source code: 0.8 ms and more to make, and it names PyTorch's functions by paths that
not all of them have. fx.Interpreter looks at each node again in every run: ten small steps take it 86 µs, and this 29, PyTorch's own
time included; where steps are looked at one by one, as in app/engine/stepwise, it is what walks.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.program.function import Step

Getter = Callable[[list[Any]], tuple[Any, ...]]
# Arguments that others may stand in.
_HOLDING: Final = (list, tuple, slice)


@contextmanager
def floating_default(dtype: torch.dtype) -> Iterator[None]:
    """`dtype` is what integers become where PyTorch makes them floating (`n / 2`, `sqrt(n)`)."""
    before = torch.get_default_dtype()
    if before == dtype:
        yield
        return
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def step_of(error: BaseException) -> Step | None:
    """The step that raised `error` while a graph ran."""
    step = error.__dict__.get("step")
    return step if isinstance(step, Step) else None


class GraphRunner:
    """The callable of a graph: tensors in the order of its placeholders → tensors in the order of its outputs.

    Steps that no output needs are not run, unless they draw random numbers. A failing call's exception passes, with its step noted.

    Arguments:
        watched: steps whose results come behind the outputs, whatever they are.
    """

    def __init__(
        self,
        graph: fx.Graph,
        dtype: torch.dtype,
        drawing: frozenset[fx.Node] = frozenset(),
        watched: Sequence[fx.Node] = (),
    ) -> None:
        self._dtype = dtype
        self._look: Callable[[Step | None, Any, Any], None] | None = None
        self._positions: dict[fx.Node, int] = {}
        self._first_plain: dict[fx.Node, int] = {}
        nodes = list(graph.nodes)
        inputs = {node: node.all_input_nodes for node in nodes}
        needed = _needed(inputs, drawing.union(watched))
        registers: dict[fx.Node, int] = {}
        blank: list[Any] = []
        program: list[list[Any]] = []
        last: dict[int, int] = {}
        for node in nodes:
            if node.op == "placeholder":
                registers[node] = len(blank)
                blank.append(None)
        self._arity = len(blank)
        for node in nodes:
            if node.op != "call_function" or node not in needed:
                continue
            position, constants = len(program), node.kwargs
            for used in inputs[node]:
                last[registers[used]] = position
            self._first_plain[node] = len(blank)
            arguments = getter(node.args, registers, blank)
            keywords = keywords_getter(constants, registers) if constants else None
            registers[node] = register = len(blank)
            blank.append(None)
            self._positions[node] = position
            program.append([node.target, arguments, keywords, dict(constants), register, (), node.meta.get("step")])
        output = nodes[-1]
        results = (*output.args[0], *watched)
        output_registers = {registers[node] for node in results}
        self._outputs = tuple(registers[node] for node in results)
        for register, index in last.items():
            if register not in output_registers:
                program[index][5] += (register,)
        self._registers, self._blank = registers, blank
        self._program = tuple(map(tuple, program))

    @property
    def steps(self) -> frozenset[fx.Node]:
        """The calls that are run."""
        return frozenset(self._positions)

    def _twin(self) -> GraphRunner:
        """Another of the same calls: `copy.copy` takes six times as long, 6 µs."""
        twin = object.__new__(GraphRunner)
        twin.__dict__.update(self.__dict__)
        return twin

    def first_plain(self, node: fx.Node) -> int | None:
        """The register of the first of a call's arguments that is no node: they follow each other. None where it is not run."""
        return self._first_plain.get(node)

    def with_plain(self, values: Iterable[tuple[int, Any]]) -> GraphRunner:
        """The same calls, with these values in registers of plain arguments."""
        runner = self._twin()
        runner._blank = blank = self._blank.copy()
        for register, value in values:
            blank[register] = value
        return runner

    def with_arguments(self, arguments: Mapping[fx.Node, tuple[tuple[Any, ...], dict[str, Any]]]) -> GraphRunner:
        """The same calls, those of some nodes that are run with other arguments."""
        runner = self._twin()
        blank, program = self._blank.copy(), list(self._program)
        for node, (args, kwargs) in arguments.items():
            position = self._positions[node]
            target, _, _, _, *rest = program[position]
            read = getter(args, self._registers, blank), keywords_getter(kwargs, self._registers)
            program[position] = (target, *read, kwargs, *rest)
        runner._blank, runner._program = blank, tuple(program)
        return runner

    def watching(self, nodes: Sequence[fx.Node]) -> GraphRunner:
        """The same calls; what these nodes give, inputs and steps that are run, comes behind the outputs."""
        runner = self._twin()
        watched = tuple([self._registers[node] for node in nodes])
        runner._outputs = self._outputs + watched
        runner._program = tuple(
            [
                (*line, tuple([each for each in done if each not in watched]), step) if done else (*line, done, step)
                for *line, done, step in self._program
            ]
        )
        return runner

    def shown_to(self, look: Callable[[Step | None, Any, Any], None]) -> GraphRunner:
        """The same calls; each step, its arguments and what it gives are shown to `look` before the next."""
        runner = self._twin()
        runner._look = look
        return runner

    def with_more_turns(
        self, turn: Sequence[fx.Node], handed_on: Mapping[fx.Node, fx.Node], rows: Sequence[Sequence[fx.Node]], more: int
    ) -> GraphRunner:
        """The same calls, those of one turn of a loop run `more` times more.

        Arguments:
            turn: the calls of that turn.
            handed_on: what the turn takes of the one before it → what it leaves in the place of it.
            rows: of that turn and each after it, its calls that take the row of its number, `x[t]`.
        """
        runner = self._twin()
        blank = self._blank.copy()
        positions = [self._positions[node] for node in turn if node in self._positions]
        start = min(positions, default=0)
        own = {
            self._registers[node] for node in (*turn, *handed_on) if node in self._positions
        }  # all else later turns take, too
        lines: list[Any] = [
            (*line, tuple([each for each in done if each in own]), step)
            for *line, done, step in map(self._program.__getitem__, positions)
        ]
        for taken, left in handed_on.items():
            if left in self._positions:
                register = self._registers[left]
                lines.append((_itself, _only(register), None, {}, self._registers[taken], (register,), None))
        counted = [positions.index(self._positions[node]) for node in rows[0] if node in self._positions]
        program = list(self._program[:start])
        for number in range(more):
            program += lines
            for index in counted:
                target, arguments, *rest = lines[index]
                program[len(program) - len(lines) + index] = (target, _row(arguments, number - more), *rest)
        for node in [node for turns in rows for node in turns if node in self._positions]:
            blank[self._first_plain[node]] += more
        runner._blank, runner._program = blank, (*program, *self._program[start:])
        return runner

    def __call__(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        values, look = self._blank.copy(), self._look
        values[: self._arity] = leaves
        step: Step | None = None
        with floating_default(self._dtype):
            try:
                for target, arguments, keywords, constants, register, done, step in self._program:
                    values[register] = target(*arguments(values), **(constants if keywords is None else keywords(values)))
                    if look is not None:
                        asked = arguments(values), constants if keywords is None else keywords(values)
                        look(step, asked, values[register])
                    for free in done:
                        values[free] = None
            except Exception as error:
                error.__dict__.setdefault("step", step)
                raise
        return tuple([values[register] for register in self._outputs])


def _itself(value: Any) -> Any:
    return value


def _row(arguments: Getter, after: int) -> Getter:
    """Of `x[t]`: so many rows after the one that stands in the registers."""

    def read(values: list[Any]) -> tuple[Any, ...]:
        tensor, number = arguments(values)
        return tensor, number + after

    return read


def _only(register: int) -> Getter:
    return lambda values: (values[register],)


def _needed(inputs: Mapping[fx.Node, Sequence[fx.Node]], drawing: frozenset[fx.Node]) -> set[fx.Node]:
    """The last of these nodes, those that draw, and all that they read."""
    nodes = [*inputs]
    needed = {nodes[-1], *drawing}
    for node in reversed(nodes):
        if node in needed:
            needed.update(inputs[node])
    return needed


def getter(arguments: tuple[Any, ...], registers: dict[fx.Node, int], blank: list[Any]) -> Getter:
    """Reads a call's arguments from the registers. Plain values get registers of their own, so that one itemgetter reads them all."""
    if True in [isinstance(argument, _HOLDING) and _holds_node(argument) for argument in arguments]:
        return lambda values: tuple(_filled(argument, registers, values) for argument in arguments)
    indices = []
    for argument in arguments:
        if isinstance(argument, fx.Node):
            indices.append(registers[argument])
        else:
            indices.append(len(blank))
            blank.append(argument)
    if len(indices) == 1:
        return _only(indices[0])
    return itemgetter(*indices) if indices else lambda values: ()


def keywords_getter(keywords: dict[str, Any], registers: dict[fx.Node, int]) -> Callable[[list[Any]], dict[str, Any]] | None:
    """Reads a call's keywords from the registers; None where no node is among them."""
    if not any(_holds_node(value) for value in keywords.values()):
        return None
    return lambda values: {name: _filled(value, registers, values) for name, value in keywords.items()}


def _holds_node(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_node(member) for member in value)
    if isinstance(value, slice):
        return any(_holds_node(member) for member in (value.start, value.stop, value.step))
    return isinstance(value, fx.Node)


def _filled(value: Any, registers: dict[fx.Node, int], values: list[Any]) -> Any:
    if isinstance(value, fx.Node):
        return values[registers[value]]
    if isinstance(value, tuple):
        return tuple(_filled(member, registers, values) for member in value)
    if isinstance(value, list):
        return [_filled(member, registers, values) for member in value]
    if isinstance(value, slice):
        return slice(*(_filled(member, registers, values) for member in (value.start, value.stop, value.step)))
    return value
