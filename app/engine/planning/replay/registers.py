"""What stands in the registers of steps that are run again: values, geometries, and the sizes among arguments, each computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor, fx

from app.program.graph_runner import Getter, getter
from app.program.semantics import sizes
from app.program.semantics.questions import Answered, are_answered_alike
from app.program.semantics.sizes import Size

# Of inputs, by their names.
Shapes = Mapping[str, tuple[int, ...]]


class ByRegister(Mapping[fx.Node, Any]):
    """The values of nodes, as far as they were computed; of others their geometries."""

    def __init__(self, values: list[Any], geometries: list[Any], registers: dict[fx.Node, int]) -> None:
        self._values, self._geometries, self._registers = values, geometries, registers

    def __getitem__(self, node: fx.Node) -> Any:
        register = self._registers[node]
        value = self._values[register]
        return self._geometries[register] if value is None else value

    def __iter__(self) -> Iterator[fx.Node]:
        return iter(self._registers)

    def __len__(self) -> int:
        return len(self._registers)


def form(value: Any) -> Any:
    """Ranks and dtypes, in the structure of the result."""
    if isinstance(value, Tensor):
        return value.dim(), value.dtype
    return tuple(map(form, value)) if isinstance(value, list | tuple) else None


def tensor_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(tensor_bytes, value)) if isinstance(value, list | tuple) else 0


class Number(NamedTuple):
    """A size as it is computed: `function` of what `operands` reads from the registers, of this kind, into `register`."""

    function: Callable[..., Any]
    operands: Getter
    kind: type
    register: int


class NumberRegisters:
    """Registers for sizes, each computed before the first step that takes it.

    Arguments:
        registers: of all tensors that sizes may come of.
        blank: of all registers, what stands in them before anything is computed.
    """

    def __init__(self, registers: dict[fx.Node, int], blank: list[Any]) -> None:
        self._registers, self._blank = registers, blank
        self._known: dict[int, fx.Node] = {}  # by `id`: a graph's nodes hold their sizes
        self._stand_ins = fx.Graph()

    def stood_in(self, value: Any, numbers: list[Number]) -> Any:
        """`value` with nodes in the place of its sizes; what computes those that are new comes behind `numbers`."""
        return sizes.mapped(value, lambda size: self._node(size, numbers))

    def register(self, size: Size, numbers: list[Number]) -> int:
        """Where a size will stand; as above."""
        return self._registers[self._node(size, numbers)]

    def _node(self, size: Size, numbers: list[Number]) -> fx.Node:
        node = self._known.get(id(size))
        if node is None:
            operands = tuple([self._node(each, numbers) if type(each) is Size else each for each in size.operands])
            read = getter(operands, self._registers, self._blank)
            self._known[id(size)] = node = self._stand_ins.placeholder("number")
            self._registers[node] = len(self._blank)
            numbers.append(Number(size.function, read, type(size.value), len(self._blank)))
            self._blank.append(None)
        return node


def compute(numbers: Iterable[Number], registers: list[Any]) -> None:
    """Raises one of `sizes.FAILURES` where there is no such number, or one of another kind."""
    for function, operands, kind, register in numbers:
        value = function(*operands(registers))
        if type(value) is not kind or (isinstance(value, int) and value.bit_length() > sizes.BITS):
            raise ValueError("a number of another kind")
        registers[register] = value


class Asked(NamedTuple):
    """Questions, so that sizes among them are computed once for the steps and for these.

    Attributes:
        numbers: that have to be there, whatever they are.
        answers: register of a number → what it has to be.
        others: that are asked of the tensors.
    """

    numbers: list[Number]
    answers: list[tuple[int, object]]
    others: list[Answered]

    @staticmethod
    def of(questions: Iterable[Answered], numbers: NumberRegisters) -> Asked:
        asked = Asked([], [], [])
        for each in questions:
            if not isinstance(each.question, sizes.Answer):
                asked.others.append(each)
                continue
            register = numbers.register(each.question.size, asked.numbers)
            if not isinstance(each.question, sizes.Existence):
                asked.answers.append((register, each.answer))
        return asked

    def are_there(self, registers: list[Any]) -> bool:
        """Whether other tensors have such numbers, which are computed."""
        try:
            compute(self.numbers, registers)
        except sizes.FAILURES:
            return False
        return True

    def are_answered(self, registers: list[Any], values: Mapping[fx.Node, Any]) -> bool:
        """Whether other tensors, whose numbers `are_there`, give every answer; `values`: of the nodes that are asked."""
        for register, answer in self.answers:
            if sizes.exactly(registers[register]) != answer:
                return False
        return not self.others or are_answered_alike(self.others, values)
