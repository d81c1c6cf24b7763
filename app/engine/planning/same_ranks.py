"""Functions that hold for all shapes of the same ranks: built once, and run step by step on the values of the next shape.

A Function is a graph of calls; what it gives for other shapes its own steps say, where no size had a say in how it was read. Of a
program its nodes know what the reading asked of them (a loop over the rows of a matrix: how many there are): where all that was asked
has the same answer, the program is read alike. Reading, binding and drawing up a graph are then left out, which is most of a plan.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import groupby
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, fx

from app.bounded_cache import BoundedCache
from app.engine.planning.bounded_counter import BoundedCounter, UnboundedError, is_small
from app.engine.planning.build import Built, Leaf, Real, function_bytes, leaves_of, lists_of
from app.engine.planning.cost import Lifetimes
from app.engine.planning.direct_steps import Direct, direct
from app.errors import PullbackError
from app.program.errors import REFUSALS
from app.program.graph_runner import Getter, floating_default, getter, keywords_getter
from app.program.resized import Arguments, resized
from app.program.semantics import sizes
from app.program.semantics.questions import answers_alike, compared_with
from app.query import Query

# Of all graphs: chosen, some 500 programs of 20 steps, which the signatures of Preparer mostly share.
_BYTES_LIMIT: Final = 32 << 20
# Of one text: as many lengths of its loops are kept. Chosen: to look which holds takes some µs.
_READINGS: Final = 8

Shapes = Mapping[str, tuple[int, ...]]


class _Step(NamedTuple):
    """A call of a Function, as it is run again.

    Attributes:
        form: of its result.
        register: where its result is kept.
        direct: how it is run without a mode, where it can be.
        sized: its arguments, with the sizes among them as they come of the tensors; None where there are none that may change.
    """

    node: fx.Node
    arguments: Getter
    keywords: Callable[[list[Any]], dict[str, Any]] | None
    form: Any
    register: int
    direct: Direct | None
    sized: Arguments | None


class _Constants(NamedTuple):
    """What the steps that no input leads to have made, and what that took: the same for all inputs.

    Attributes:
        values: register → value.
    """

    values: dict[int, Any]
    flops: float
    bytes: int
    largest: int
    scratch: tuple[int, int, int]


class _Reading:
    """A Function that was built, as it is run again.

    Attributes:
        built: as it was built.
        bytes: that it takes.
    """

    def __init__(self, built: Built) -> None:
        self.built = built
        nodes = list(built.function.graph.nodes)
        self._placeholders = tuple(node for node in nodes if node.op == "placeholder")
        self._asking = tuple(node for node in nodes if "asked" in node.meta)
        self._asking_of_inputs = tuple(node for node in self._asking if node.op == "placeholder")
        self._lifetimes = Lifetimes(built.function.graph)
        self._registers: dict[fx.Node, int] = {}
        self._blank: list[Any] = []
        self._steps: list[_Step] = []
        self._constant_steps: list[_Step] = []
        self._constants: _Constants | None = None
        for node in self._placeholders:
            self._add(node)
        varying = set(self._placeholders)
        for node in nodes:
            if node.op != "call_function":
                continue
            arguments = getter(node.args, self._registers, self._blank)
            keywords = keywords_getter(node.kwargs, self._registers)
            form, sized = _form(node.meta["val"]), node.meta.get("sized")
            if sized is not None and varying.isdisjoint(sizes.nodes_of(sized)):
                sized = None
            step = _Step(node, arguments, keywords, form, self._add(node), direct(node), sized)
            if sized is None and varying.isdisjoint(node.all_input_nodes):
                self._constant_steps.append(step)
            else:
                varying.add(node)
                self._steps.append(step)
        self._asking = tuple([node for node in self._asking if node in varying or not varying.isdisjoint(compared_with(node))])
        self._outputs = tuple(self._registers[node] for node in nodes[-1].args[0])
        self.bytes = function_bytes(built.function) + sum(_tensor_bytes(step.node.meta["val"]) for step in self._constant_steps)

    def _add(self, node: fx.Node) -> int:
        self._registers[node] = len(self._blank)
        self._blank.append(None)
        return self._registers[node]

    def is_like(self, other: _Reading) -> bool:
        """Whether the same steps stand in both, with the same answers to what was asked: then they hold for the same sizes."""
        return self._described() == other._described()

    def _described(self) -> list[Any]:
        answers = [list(node.meta["asked"].values()) for node in self._asking]
        return [*answers, *[(step.node.name, step.form) for step in self._steps]]

    def is_of(self, shapes: Shapes) -> bool:
        """Whether inputs of these shapes answer what was asked of inputs alone."""
        if not self._asking_of_inputs:
            return True
        names = zip(self._placeholders, self.built.function.leaves, strict=True)
        inputs = {node: torch.empty(shapes[name], device="meta") for node, name in names}
        return all(answers_alike(node, inputs) for node in self._asking_of_inputs)

    def run(self, shapes: Shapes, real: Real) -> Built | None:
        """What the steps give for these shapes; None where one of them fails, or gives what has another form or another answer."""
        function, counter = self.built.function, BoundedCounter()
        arguments: dict[fx.Node, Arguments] = {}
        leaves = real({leaf.name: leaf.dtype for leaf in self.built.leaves})
        try:
            with torch.no_grad(), floating_default(function.dtype), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = self._values(leaves, counter, arguments)
        except (UnboundedError, PullbackError, *REFUSALS):
            return None
        if values is None or counter.has_read:
            return None
        by_node = {node: values[register] for node, register in self._registers.items()}
        if not all(answers_alike(node, by_node) for node in self._asking):
            return None
        return Built(
            resized(function, arguments) if arguments else function,
            tuple(Leaf(leaf.name, shapes[leaf.name], leaf.dtype) for leaf in self.built.leaves),
            counter.cost(self._lifetimes, by_node.__getitem__),
            tuple(values[register] for register in self._outputs),
        )

    def _values(
        self, leaves: Mapping[str, Tensor], counter: BoundedCounter, arguments: dict[fx.Node, Arguments]
    ) -> list[Any] | None:
        """Of every register; None where one has another rank or number of members than when the Function was built.

        What draws weights and what else hangs on no input runs once: a plan looks at sizes alone. Arguments that come of sizes
        are added to `arguments`.
        """
        values = self._blank.copy()
        values[: len(self._placeholders)] = [leaves[name] for name in self.built.function.leaves]
        if self._constants is None:
            if not self._ran(self._constant_steps, values, counter, arguments) or counter.has_read:
                return None
            constants = {step.register: values[step.register] for step in self._constant_steps}
            self._constants = _Constants(constants, counter.flops, counter.bytes, counter.largest, counter.scratch)
        else:
            constants, counter.flops, counter.bytes, counter.largest, counter.scratch = self._constants
            for register, value in constants.items():
                values[register] = value
        return values if self._ran(self._steps, values, counter, arguments) else None

    def _ran(self, steps: list[_Step], values: list[Any], counter: BoundedCounter, arguments: dict[fx.Node, Arguments]) -> bool:
        """Whether each step gives, into its register, what has the form that it had."""
        for is_direct, group in groupby(steps, key=_is_direct):
            with nullcontext() if is_direct else counter:
                if not self._ran_alike(group, values, counter if is_direct else None, arguments):
                    return False
        return True

    def _ran_alike(
        self, steps: Iterable[_Step], values: list[Any], counter: BoundedCounter | None, arguments: dict[fx.Node, Arguments]
    ) -> bool:
        """As `_ran`; `counter`: of steps that are run directly."""
        for node, positional, keywords, form, register, run, sized in steps:
            args, kwargs = positional(values), node.kwargs if keywords is None else keywords(values)
            if sized is not None:
                by_node = _ByRegister(values, self._registers)
                plain = sizes.mapped(sized, lambda size: size.of(by_node))  # noqa: B023
                arguments[node] = plain
                args, kwargs = fx.map_arg(plain, by_node.__getitem__)
            value = run(counter, args, kwargs) if counter is not None and run is not None else node.target(*args, **kwargs)  # type: ignore[operator]
            if _form(value) != form:
                return False
            values[register] = value
        return True


def _is_direct(step: _Step) -> bool:
    return step.direct is not None


class _ByRegister(Mapping[fx.Node, Any]):
    """The values of nodes, as far as they were computed."""

    def __init__(self, values: list[Any], registers: dict[fx.Node, int]) -> None:
        self._values, self._registers = values, registers

    def __getitem__(self, node: fx.Node) -> Any:
        return self._values[self._registers[node]]

    def __iter__(self) -> Iterator[fx.Node]:
        return iter(self._registers)

    def __len__(self) -> int:
        return len(self._registers)


def _form(value: Any) -> Any:
    """Ranks and dtypes, in the structure of the result."""
    if isinstance(value, Tensor):
        return value.dim(), value.dtype
    return [_form(member) for member in value] if isinstance(value, list | tuple) else None


def _tensor_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_tensor_bytes, value)) if isinstance(value, list | tuple) else 0


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
        key, reading = _key(query, shapes), _Reading(built)
        known = self._known.get(key, ())
        if not any(reading.is_like(other) for other in known):  # that one could not be run for these sizes alone
            self._known.keep(key, (reading, *known[: _READINGS - 1]))


def _bytes(known: tuple[_Reading, ...]) -> int:
    return sum(reading.bytes for reading in known)


def _key(query: Query, shapes: Shapes) -> Any:
    leaves = tuple([(name, len(shapes[name]), data.dtype, data.bare) for name, data in leaves_of(query.inputs)])
    asked = query.operation, query.program, query.function, repr(query.parameters), query.dtype, query.wrt, query.seed is None
    return leaves, lists_of(query.inputs), asked
