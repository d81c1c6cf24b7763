"""A Function: what an operation, a program and a stored function all become before anything is differentiated.

It is a torch.fx graph of catalogue calls, each with its place in the text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx

Fact = TypeVar("Fact")


@dataclass(frozen=True, slots=True)
class Step:
    """Where a node of the graph comes from: line and column from 1, its text, and the catalogue name or operator it calls."""

    line: int
    column: int
    text: str
    operation: str


# The operation of a step that puts other memory under a tensor (`x.data = y`), past PyTorch's version counters.
OTHER_DATA: Final = ".data ="
# Values of a branch inside `try`: what was tried raised for the values that are there, or ran.
RAISED: Final = "raised"
RAN: Final = "ran"


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A value that decided how a program goes on.

    Attributes:
        step: where it was asked for.
        node: the tensor that was asked.
        value: what it was: a truth value, a number, `RAISED` or `RAN`.
        inputs: of a number, the placeholders that it was computed from, by their names in the graph.
    """

    step: Step
    node: fx.Node
    value: bool | int | float | complex | str
    inputs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Modified:
    """A step whose derivative needs a tensor that was written into after it.

    Attributes:
        step, write: the two lines.
        leaves: names of the tensor inputs that lead to the step.
        outputs: names of the outputs that it leads to.
    """

    step: Step
    write: Step
    leaves: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()

    def refusal(self) -> tuple[str, str]:
        """What PyTorch has against the derivative, or what it does not see, and what to write instead."""
        write, step = (
            f"`{self.write.text}` (line {self.write.line})",
            f"the derivative of `{self.step.text}` (line {self.step.line})",
        )
        if self.write.operation == OTHER_DATA:
            return (
                f"{write} puts other numbers under what {step} needs; PyTorch differentiates with the new ones, without a word.",
                "Take the derivative before that line, or return what comes after it alone.",
            )
        return (
            f"{write} changes in place what {step} needs, and PyTorch refuses to differentiate that.",
            "Make a new tensor: `y = y + 1` in the place of `y += 1`; or write into a copy: `y = y.clone()` before.",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Initial:
    """Weights that were not sent, and how their first values are drawn.

    Attributes:
        names: of the weights.
        call: leaves → their values, in the order of `names`.
        random: they are drawn, so the query needs a seed.
        shapes: name → shape.
        fixed: no input leads to them, so they hang on the seed alone.
        written: those whose first values the program writes itself, `torch.tensor([1.0], requires_grad=True)`.
    """

    names: tuple[str, ...]
    call: Callable[..., tuple[Tensor, ...]]
    random: bool
    shapes: dict[str, tuple[int, ...]]
    fixed: bool = False
    written: frozenset[str] = frozenset()

    def sentences(self) -> str:
        """Where the values of the weights come from, for a note."""
        by_layers = [name for name in self.names if name not in self.written]
        by_text = [name for name in self.names if name in self.written]
        said = [f"Not sent, so initialised as PyTorch does: {', '.join(by_layers)}."] if by_layers else []
        if by_text:
            said.append(f"Not sent, so with the values that the program gives: {', '.join(by_text)}.")
        return " ".join(said)


@dataclass(frozen=True, slots=True)
class Remark:
    """A line at which PyTorch gives no gradient or refuses, what it has against it, and what to write."""

    step: Step
    reason: str
    instead: str

    def sentence(self) -> str:
        """For a note."""
        return f"Line {self.step.line}, `{self.step.text}`: {self.reason}. {self.instead}"


@dataclass(frozen=True, slots=True, eq=False)
class Printed:
    """Gradients that the program prints.

    Attributes:
        places: (line, column, what is printed, in words).
        values: leaves → the gradients, in the order of `places`.
    """

    places: tuple[tuple[int, int, str], ...]
    values: Callable[..., tuple[Tensor, ...]]


class CopiedGraph(Protocol):
    """A graph that is copied when it is looked at, and the one that it is copied from; whether it has more steps than that one."""

    pattern: fx.Graph
    is_longer: bool

    @property
    def graph(self) -> fx.Graph: ...


class GraphFact(Generic[Fact]):
    """What `reckon` says of a graph: looked up as long as it has as many nodes."""

    def __init__(self, reckon: Callable[[fx.Graph], Fact]) -> None:
        self._reckon = reckon
        self._known: WeakKeyDictionary[fx.Graph, tuple[int, Fact]] = WeakKeyDictionary()

    def __call__(self, graph: fx.Graph) -> Fact:
        length = len(graph.nodes)
        known = self._known.get(graph)
        if known is None or known[0] != length:
            self._known[graph] = known = length, self._reckon(graph)
        return known[1]


_operations: Final = GraphFact(
    lambda graph: frozenset(node.meta["step"].operation for node in graph.nodes if "step" in node.meta)
)


@dataclass(frozen=True, slots=True)
class Function:
    """A tensor function, prepared for inputs of one signature (shapes, dtypes, parameters).

    Attributes:
        title: the operation's name, `program`, or the stored function's name.
        held_graph: its graph, or what copies it when somebody looks at it: placeholders in the order of `leaves`; one
            `call_function` node a step, with `meta["step"]: Step` and `meta["val"]`: the value it had while building (a FakeTensor,
            or a real one where shapes depend on data; of other shapes and the same ranks where it is used for these too), and
            with `meta["sized"]`: its arguments with the sizes among them as they come of the tensors, where there are any;
            `output` = the tuple of nodes in the order of `outputs`.
        leaves: names of the tensor inputs, a list's members one by one (`x`, `tensors.0`, `tensors.1`).
        outputs: output names.
        random: it draws random numbers, so the query needs a seed.
        call: runs it: tensors in the order of `leaves` → tensors in the order of `outputs`.
        dtype: PyTorch's default dtype while a step runs: what whole numbers and plain factories become where a floating one is needed.
        static: shapes do not depend on the values of tensors, so this Function may be used again for the same signature.
        notes: (code, place, sentence): what was left out of the text, and which branches were followed.
        branches: the values that decided how the program went on.
        initial: weights that were not sent; None where there are none.
        modified: what no derivative may pass, because PyTorch refuses it.
        printed: None where the program prints no gradient.
        seed: what the program seeds with before it draws first; None where it does not, or where that is not known.
        remarks: on leaves and `backward()`: where PyTorch gives less than is answered here.
    """

    title: str
    held_graph: fx.Graph | CopiedGraph
    leaves: tuple[str, ...]
    outputs: tuple[str, ...]
    random: bool
    call: Callable[..., tuple[Tensor, ...]]
    static: bool = True
    dtype: torch.dtype = torch.float32
    notes: tuple[tuple[str, str, str], ...] = ()
    branches: tuple[Branch, ...] = ()
    initial: Initial | None = None
    modified: tuple[Modified, ...] = ()
    printed: Printed | None = None
    remarks: tuple[Remark, ...] = ()
    seed: int | None = None

    @property
    def graph(self) -> fx.Graph:
        return self.held_graph if isinstance(self.held_graph, fx.Graph) else self.held_graph.graph

    @property
    def pattern(self) -> fx.Graph:
        """A graph of the same steps, in which sizes among their arguments may be others."""
        return self.held_graph if isinstance(self.held_graph, fx.Graph) else self.held_graph.pattern

    @property
    def has_steps_of_pattern(self) -> bool:
        """Whether it runs each step of `pattern` once."""
        return isinstance(self.held_graph, fx.Graph) or not self.held_graph.is_longer

    def run_as(self, held_graph: fx.Graph | CopiedGraph, call: Callable[..., tuple[Tensor, ...]]) -> Function:
        """The same with another graph and call: `replace` takes three times as long, 7 µs."""
        return Function(
            self.title, held_graph, self.leaves, self.outputs, self.random, call, self.static, self.dtype, self.notes, self.branches,
            self.initial, self.modified, self.printed, self.remarks, self.seed,
        )  # fmt: skip

    def operations(self) -> frozenset[str]:
        """Names of the operations and operators that it calls."""
        return _operations(self.pattern)

    def steps(self) -> list[tuple[fx.Node, Step]]:
        """The graph's calls with their places, in the order in which they run."""
        return [(node, node.meta["step"]) for node in self.graph.nodes if "step" in node.meta]
