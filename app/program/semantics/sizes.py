"""Sizes of tensors as numbers of a program: computed with as numbers are, and settled only where their value decides how it is read.

`x.view(B, T, -1)`, `x / len(x)` and `1 / math.sqrt(k.size(-1))` mean the same for all sizes: only the number is another. So a size
stands in the arguments of a step with how it comes of the tensors. Whatever else Python asks of it (`range(n)`, `n > 3`, an index of a
list, a text) settles it: what was asked is noted at the tensor, with the answer, and what was read holds where the answer is the same.
"""

from __future__ import annotations

import functools
import math
import operator
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from torch import Tensor, fx

from app.errors import PullbackError

_NUMBERS: Final = (int, float)
BITS: Final = 63  # of int64, which a whole number becomes beside a tensor; longer ones are settled
# Steps in the history of one number, each operand with its own, and numbers that come of sizes in one reading: beyond, they are settled,
# so that what is computed anew for other sizes stays some milliseconds, and what a reading keeps some 200 kB. Of 384 pasted programs the
# longest history has 9 steps, and the one with most has 21 steps that take such numbers.
_HISTORY: Final = 64
_NUMBERS_OF_A_READING: Final = 256
_PLAIN: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, type)
# These give a number of the same kind for all sizes, and none too long for a program: they grow no faster than their operands.
_TOTAL: Final = frozenset({operator.add, operator.sub, operator.neg, operator.pos, operator.abs, abs, float})
# What arithmetic on plain numbers raises: of other sizes it may.
FAILURES: Final = (ArithmeticError, ValueError, TypeError, LookupError, PullbackError)


class _Reading:
    is_open = False
    has_sizes = False
    computed = 0
    # By function and operands: what came of them, and the operands, so that their ids stay theirs.
    known: ClassVar[dict[Any, tuple[Any, tuple[Any, ...]]]] = {}


@contextmanager
def unsettled() -> Iterator[Callable[[], bool]]:
    """While a program is read: sizes are settled where they decide; gives whether there were any. Elsewhere they are plain numbers."""
    before = _Reading.is_open, _Reading.has_sizes, _Reading.computed, _Reading.known
    _Reading.is_open, _Reading.has_sizes, _Reading.computed, _Reading.known = True, False, 0, {}
    try:
        yield lambda: _Reading.has_sizes
    finally:
        _Reading.is_open, _Reading.has_sizes, _Reading.computed, _Reading.known = before


def is_size(value: object) -> bool:
    """Whether a number comes of sizes: `isinstance` is told that it is an `int` or a `float`."""
    return type(value) is Size


class Size:
    """A number that comes of the sizes of tensors. It passes for an `int` or a `float`, and whoever needs that has it settled.

    Attributes:
        value: for the tensors that the program is read with.
        function: of the tensor of a node, or of numbers.
        operands: the node; or numbers, sizes among them.
        history: how many steps lead to it, those of each operand counted by themselves.
    """

    __slots__ = ("_is_settled", "function", "history", "operands", "value")

    def __init__(self, function: Callable[..., Any], operands: tuple[Any, ...], value: Any) -> None:
        self.function, self.operands, self.value = function, operands, value
        self.history = _history(operands)
        self._is_settled = False
        _Reading.has_sizes = _Reading.has_sizes or _Reading.is_open

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.value)

    def nodes(self) -> dict[fx.Node, None]:
        """The tensors that it comes of."""
        nodes: dict[fx.Node, None] = {}
        for operand in self.operands:
            if type(operand) is Size:
                nodes |= operand.nodes()
            elif type(operand) is fx.Node:
                nodes[operand] = None
        return nodes

    def settled(self) -> Any:
        """Its value, which what is read hangs on from here."""
        if not self._is_settled:
            self._is_settled = True
            self._note(Answer, exactly(self.value))
        return self.value

    def be_there(self) -> None:
        """Notes that there is such a number, whatever it is: `1 / (n - 3)` is refused for one n, also where nobody uses it."""
        self._note(Existence, True)

    def _note(self, kind: type[Answer], answer: object) -> None:
        first, *others = self.nodes()
        known: dict[Any, object] = first.meta.setdefault("asked", {})
        known[kind(self), tuple(others)] = answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.settled(), name)

    def __index__(self) -> int:
        return operator.index(self.settled())

    def __int__(self) -> int:
        return int(self.settled())

    def __float__(self) -> float:
        return float(self.settled())

    def __complex__(self) -> complex:
        return complex(self.settled())

    def __bool__(self) -> bool:
        return bool(self.settled())

    def __hash__(self) -> int:
        return hash(self.settled())

    def __str__(self) -> str:
        return str(self.settled())

    def __repr__(self) -> str:
        return repr(self.settled())

    def __format__(self, spec: str) -> str:
        return format(self.settled(), spec)

    def __eq__(self, other: object) -> Any:
        return _compared(operator.eq, self, other)

    def __ne__(self, other: object) -> Any:
        return _compared(operator.ne, self, other)

    def __lt__(self, other: Any) -> Any:
        return _compared(operator.lt, self, other)

    def __le__(self, other: Any) -> Any:
        return _compared(operator.le, self, other)

    def __gt__(self, other: Any) -> Any:
        return _compared(operator.gt, self, other)

    def __ge__(self, other: Any) -> Any:
        return _compared(operator.ge, self, other)


class Answer:
    """What a settled number is for other tensors: a question of `questions`.

    Attributes:
        size: that number.
    """

    def __init__(self, size: Size) -> None:
        self.size = size

    def is_extent(self, node: fx.Node, axis: int) -> bool:
        """Whether it asks for the size of the tensor of `node` along an axis, and nothing else."""
        return self.size.function is _extent_along(axis) and self.size.operands == (node,)


class Existence(Answer):
    """Whether there is such a number for other tensors."""


def _compared(function: Callable[..., Any], left: Any, right: Any) -> Any:
    """The answer to a comparison is what is noted, so that `n > 3` parts the sizes in two."""
    return computed(function, left, right) if _is_number(right) else NotImplemented


def exactly(value: Any) -> tuple[type, str]:
    """A number so that two are equal only if they are the same: 0.0 and -0.0, 1 and 1.0 are not."""
    return type(value), repr(value)


def _history(operands: tuple[Any, ...]) -> int:
    return 1 + sum([operand.history for operand in operands if type(operand) is Size])


def _is_number(value: Any) -> bool:
    return type(value) in (int, float, bool, complex, Size)


def extent(node: fx.Node, axis: int) -> Any:
    """The size of the tensor of `node` along an axis, from 0 to its rank - 1."""
    return _of_node(_extent_along(axis), node)


def numel(node: fx.Node) -> Any:
    """How many elements the tensor of `node` has."""
    return _of_node(_NUMEL, node)


_NUMEL: Final = operator.methodcaller("numel")


@functools.cache
def _extent_along(axis: int) -> Callable[[Tensor], int]:
    return lambda tensor: tensor.shape[axis]


def _of_node(question: Callable[[Tensor], int], node: fx.Node) -> Any:
    known: dict[Any, Any] = node.meta.setdefault("sizes", {})
    if question not in known:
        known[question] = Size(question, (node,), question(node.meta["val"]))
    return known[question] if _Reading.is_open else known[question].settled()


def computed(function: Callable[..., Any], *operands: Any) -> Any:
    """`function(*operands)` of numbers, of which some are sizes: a size where that is an `int` or a `float`, else settled.

    Of the same operands it is the same: what a text asks again for each of its calls is one question.
    """
    key = function, *[id(operand) if type(operand) is Size else exactly(operand) for operand in operands]
    if key in _Reading.known:
        return _Reading.known[key][0]
    result = _computed(function, operands)
    if _Reading.is_open:
        _Reading.known[key] = result, operands
    return result


def _computed(function: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
    value = function(*[operand.value if type(operand) is Size else operand for operand in operands])
    is_long = type(value) is int and value.bit_length() > BITS
    if is_long or _history(operands) > _HISTORY or _Reading.computed >= _NUMBERS_OF_A_READING:
        for operand in operands:
            settled(operand)
        return value
    _Reading.computed += 1
    result = Size(function, operands, value)
    if type(value) not in _NUMBERS:
        return result.settled()
    if function not in _TOTAL:
        result.be_there()
    return result


def holds(values: tuple[Any, ...]) -> bool:
    """Whether there is a size among numbers, and nothing but numbers."""
    return any(type(value) is Size for value in values) and all(map(_is_number, values))


def mapped(value: Any, by: Callable[[Size], Any]) -> Any:
    """`value` with each size in its tuples, lists, dicts and slices replaced by `by(it)`; itself where there is none."""
    kind = type(value)
    if kind is Size:
        return by(value)
    if kind is slice:
        parts = value.start, value.stop, value.step
        return slice(*(mapped(part, by) for part in parts)) if any(type(part) is Size for part in parts) else value
    if isinstance(value, dict):
        members = {key: mapped(member, by) for key, member in value.items()}
        return value if all(members[key] is value[key] for key in members) else members
    if isinstance(value, list | tuple) and kind is not Size:
        replaced = [mapped(member, by) for member in value]
        if all(one is other for one, other in zip(replaced, value, strict=True)):
            return value
        return replaced if isinstance(value, list) else tuple(replaced)
    return value


def within(value: Any) -> list[Size]:
    """The sizes in `value`, in the order in which `mapped` comes to them."""
    numbers: list[Size] = []

    def collected(size: Size) -> Size:
        numbers.append(size)
        return size

    mapped(value, collected)
    return numbers


def nodes_of(value: Any) -> set[fx.Node]:
    """The tensors that the sizes in `value` come of."""
    return {node for size in within(value) for node in size.nodes()}


def plain(value: Any) -> Any:
    """`value` with the numbers that its sizes are here, and nothing settled."""
    return mapped(value, lambda size: size.value) if _Reading.has_sizes else value


def settled(value: Any) -> Any:
    """`value` with its sizes settled."""
    return mapped(value, lambda size: size.settled()) if _Reading.has_sizes else value


def settle_within(target: Callable[..., Any]) -> None:
    """Settles what a callable holds besides its arguments: it keeps these numbers when it is run for other sizes."""
    if not _Reading.has_sizes:
        return
    if isinstance(target, functools.partial):
        settled((target.args, target.keywords))
        settle_within(target.func)
        return
    for cell in getattr(target, "__closure__", None) or ():
        settled(cell.cell_contents)
    if isinstance(target, _PLAIN):
        return
    settled(getattr(target, "__dict__", {}))
    for name in getattr(target, "__dataclass_fields__", ()):
        settled(getattr(target, name))


def _forward(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: computed(function, self, other) if _is_number(other) else NotImplemented


def _backward(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: computed(function, other, self) if _is_number(other) else NotImplemented


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor", "lshift", "rshift"):
    setattr(Size, f"__{_name.strip('_')}__", _forward(getattr(operator, _name)))
    setattr(Size, f"__r{_name.strip('_')}__", _backward(getattr(operator, _name)))
for _alone in (operator.neg, operator.pos, operator.abs, operator.invert, math.floor, math.ceil, math.trunc):
    setattr(Size, f"__{_alone.__name__}__", lambda self, function=_alone: computed(function, self))
Size.__round__ = lambda self, *digits: computed(round, self, *digits)  # type: ignore[attr-defined]
