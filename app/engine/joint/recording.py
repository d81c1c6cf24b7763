"""A recording: PyTorch's calls of one computation, recorded below autograd and run again with other tensors of the same shapes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import torch
from torch import Tensor

from app.catalogue.operator_mode import OperatorMode
from app.engine.joint.operators import FACTORIES, is_recordable, is_same_in_stacks, name_of

# Tensors made while recording that a recording keeps, as they depend on shapes alone: as large as a small query, or as what the computation
# holds itself.
_CONSTANT_BYTES: Final = 64 << 10
_CALLS_LIMIT: Final = 256  # a longer program takes so long that what is saved between its calls does not matter
_CALL_BYTES: Final = 512  # of a call with its arguments (measured by tracemalloc: 300 to 500)

_QUICKER: Final = (torch._C._VariableFunctions, torch._C._nn, torch.Tensor)

Compute = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class UnrecordableError(Exception):
    """Other numbers may need other calls than these."""


class _Register(int):
    """A place in the list of values; other integers are arguments."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One call as it was recorded. `register` is where its result goes; `result`: what it was; `quick`: what does the same in less time."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    register: int
    result: Any
    quick: Any


class Recording:
    """The calls, in order.

    Arguments:
        arity: tensors that it is given.
        constants: values from place `arity` on.
        steps: function, what reads its arguments from the values, keywords, place of its result.
        outputs: places of the results.

    Attributes:
        is_same_in_stacks: no call's last bits hang on where in memory a number stands.
        bytes: of the memory that it keeps.
    """

    __slots__ = ("_outputs", "_rest", "_steps", "bytes", "is_same_in_stacks")

    def __init__(
        self, rest: list[Any], steps: Sequence[tuple[Any, ...]], outputs: Sequence[int], is_same_in_stacks: bool
    ) -> None:
        self._rest = rest
        self._steps = tuple(steps)
        self._outputs = tuple(outputs)
        self.is_same_in_stacks = is_same_in_stacks
        self.bytes = _CALL_BYTES * len(self._steps) + sum(tensor.untyped_storage().nbytes() for tensor in self.constants)

    @property
    def constants(self) -> list[Tensor]:
        """The tensors that it keeps."""
        return [value for value in self._rest if isinstance(value, Tensor)]

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The results; `tensors` must not require a gradient. Raises whatever PyTorch raises."""
        values = [*tensors, *self._rest]
        for function, arguments, keywords, register in self._steps:
            values[register] = function(*arguments(values), **keywords)
        return [values[register] for register in self._outputs]


def record(compute: Compute, inputs: Sequence[Tensor], constants: Sequence[Tensor] = ()) -> Recording:
    """The recording of `compute` at `inputs`, which do not require a gradient; `constants`: those that it holds itself.

    Raises:
        UnrecordableError: a call of it is not known to be the same for all numbers.
    """
    recorder = _Recorder(inputs, constants)
    with recorder:
        results = compute(inputs)
    outputs = [recorder.register_of(result) for result in results]
    return _recording(recorder, len(inputs), outputs, constants)


class _Recorder(OperatorMode):
    """Sees each operator as autograd calls it, forward and backward.

    Tensors are known by their memory, as autograd unpacks saved ones as new objects; all are kept until the end, so that none's memory
    is given to another.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else each step pays 40 µs so that torch.compile, which we do not use, leaves this method alone

    def __init__(self, inputs: Sequence[Tensor], constants: Sequence[Tensor]) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.constants: dict[int, Tensor] = {}
        self._registers = {_mark(tensor): index for index, tensor in enumerate(inputs)}
        self._alive: list[Any] = list(inputs)
        self._count = len(inputs)
        for tensor in constants:
            self._note_constant(tensor)

    def register_of(self, tensor: Tensor) -> _Register:
        """Where it stands. Raises UnrecordableError for one that came from elsewhere."""
        register = self._registers.get(_mark(tensor))
        if register is None:
            raise UnrecordableError
        return _Register(register)

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not is_recordable(func) or len(self.calls) >= _CALLS_LIMIT:
            raise UnrecordableError
        result = func(*args, **kwargs)
        self._alive.append(result)
        if name_of(func) in FACTORIES:
            self._note_constant(result)
            return result
        if any(isinstance(value, Tensor) for value in kwargs.values()):
            raise UnrecordableError
        arguments = tuple([self._placed(argument) for argument in args])
        if isinstance(result, Tensor):
            if (mark := _mark(result)) not in self._registers:  # else it is one of its arguments, as `detach` gives
                self._registers[mark] = self._next()
                quick = _quick(func, args, kwargs, result)
                self.calls.append(_Call(func, arguments, kwargs, self._registers[mark], result, quick))
        else:
            whole = self._next()
            self.calls.append(_Call(func, arguments, kwargs, whole, result, _quick(func, args, kwargs, result)))
            for index, part in enumerate(result):
                if isinstance(part, Tensor):
                    self._registers[_mark(part)] = register = self._next()
                    self.calls.append(_Call(operator.getitem, (_Register(whole), index), {}, register, part, operator.getitem))
        return result

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    def _note_constant(self, tensor: Tensor) -> None:
        register = self._registers[_mark(tensor)] = self._next()
        self.constants[register] = tensor.detach()
        self._alive.append(tensor)

    def _placed(self, value: Any) -> Any:
        """`value` with registers for its tensors."""
        if isinstance(value, Tensor):
            return self.register_of(value)
        if isinstance(value, list | tuple):
            return [self._placed(member) for member in value]
        return value


def same_bits(left: Any, right: Any) -> bool:
    """Whether two results have the same dtypes, shapes and bits."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if left.dtype != right.dtype or left.shape != right.shape:
            return False
        bits = [tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in (left, right)]
        return torch.equal(*bits)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same_bits, left, right))
    return left is None and right is None


def _quick(function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], result: Any) -> Any:
    """PyTorch's own Python function of the same name, where it does the same here: it takes half the time of an operator's call."""
    for room in _QUICKER:
        candidate = getattr(room, name_of(function), None)
        if candidate is None:
            continue
        try:
            other = candidate(*arguments, **keywords)
        except (TypeError, RuntimeError, ValueError):  # it takes its arguments otherwise
            continue
        if same_bits(other, result) and _strides(other) == _strides(result):
            return candidate
    return function


def _strides(result: Any) -> Any:
    return result.stride() if isinstance(result, Tensor) else [None if part is None else part.stride() for part in result]


def _mark(tensor: Tensor) -> tuple[Any, ...]:
    memory = tensor.untyped_storage()._cdata
    return memory, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg()


def _recording(recorder: _Recorder, arity: int, outputs: Sequence[int], held: Sequence[Tensor]) -> Recording:
    constants = {**recorder.constants}
    running: list[_Call] = []
    for call in recorder.calls:  # what is made of constants alone is one
        if isinstance(call.result, Tensor) and set(_registers_in(call.arguments)) <= constants.keys():
            constants[call.register] = call.result.detach()
        else:
            running.append(call)
    needed = set(outputs)
    for call in reversed(running):
        if call.register in needed:
            needed.update(_registers_in(call.arguments))
    running = [call for call in running if call.register in needed]
    needed_constants = {register: constants[register] for register in needed & constants.keys()}
    memory = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in needed_constants.values()}
    held_bytes = sum(tensor.untyped_storage().nbytes() for tensor in held)
    new_bytes = sum(memory.values()) - sum(memory.get(tensor.untyped_storage()._cdata, 0) for tensor in held)
    if new_bytes > max(_CONSTANT_BYTES, held_bytes):
        raise UnrecordableError
    is_same = all(call.function is operator.getitem or is_same_in_stacks(call.function, call.arguments) for call in running)
    return _laid_out(running, needed_constants, arity, outputs, is_same)


def _laid_out(
    calls: Sequence[_Call], constants: dict[int, Tensor], arity: int, outputs: Sequence[int], is_same: bool
) -> Recording:
    renumbered = {register: register for register in range(arity)}
    rest: list[Any] = []
    for register, value in [*constants.items(), *((call.register, None) for call in calls)]:
        renumbered[register] = arity + len(rest)
        rest.append(value)
    steps = []
    for call in calls:
        arguments = _reader(call.arguments, renumbered, rest, arity)
        steps.append((call.quick, arguments, call.keywords, renumbered[call.register]))
    return Recording(rest, steps, [renumbered[register] for register in outputs], is_same)


def _reader(arguments: tuple[Any, ...], renumbered: dict[int, int], rest: list[Any], arity: int) -> Callable[[list[Any]], Any]:
    """Reads a call's arguments from the values. Plain ones get places of their own, so that one itemgetter reads them all."""
    if any(isinstance(argument, list | tuple) and _registers_in(argument) for argument in arguments):
        return lambda values: [_filled(argument, renumbered, values) for argument in arguments]
    indices = []
    for argument in arguments:
        if isinstance(argument, _Register):
            indices.append(renumbered[argument])
        else:
            indices.append(arity + len(rest))
            rest.append(argument)
    if len(indices) == 1:
        return itemgetter(slice(indices[0], indices[0] + 1))
    return itemgetter(*indices) if indices else itemgetter(slice(0, 0))


def _filled(argument: Any, renumbered: dict[int, int], values: list[Any]) -> Any:
    if isinstance(argument, _Register):
        return values[renumbered[argument]]
    if isinstance(argument, list | tuple):
        return [_filled(member, renumbered, values) for member in argument]
    return argument


def _registers_in(value: Any) -> list[_Register]:
    if isinstance(value, _Register):
        return [value]
    if isinstance(value, list | tuple):
        return [register for member in value for register in _registers_in(member)]
    return []
