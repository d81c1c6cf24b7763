"""The proof of a joint graph: it is used where its results have the same bits on numbers that came and on others made of them.

A stack of queries is proved in the same way against single ones. What takes no less time than what it stands for is not used.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import torch
from torch import Tensor

from app.engine.joint.recording import Compute, Recording, UnrecordableError, record, same_bits

Batching = Literal["exact", "tolerant", "off"]

# Numbers made of those that came: so many sets, each of as many elements as one query has.
_MORE_SETS: Final = 12
_TIMINGS: Final = 9  # runs of each
_STACKS: Final = {
    4: 8,
    16: 4,
    64: 2,
}  # queries of a stack → how many stacks of numbers are compared, each row with a single run
_STACK_BYTES: Final = 1 << 20  # of one stack's inputs and of its results
# What `tolerant` allows of a stack: rounding of the last bits, of the largest number of a result, as another order of a sum has.
_TOLERANCE_EPS: Final = 64


@dataclass(slots=True)
class Joint:
    """What is proved of one computation.

    Attributes:
        single: computes the same as one query's computation in less time; None where nothing does.
        stacks: queries of a stack → what computes them together, each input with a leading axis of so many.
        fewest: queries of a stack → from how many on it takes less time than single ones.
    """

    single: Recording | None = None
    stacks: dict[int, Recording] = field(default_factory=dict)
    fewest: dict[int, int] = field(default_factory=dict)

    def forget(self) -> None:
        """It is not proved after all."""
        self.single = None
        self.stacks.clear()
        self.fewest.clear()

    @property
    def bytes(self) -> int:
        """Of the memory that it keeps."""
        return sum(recording.bytes for recording in (self.single, *self.stacks.values()) if recording is not None)


def prove(
    compute: Compute, came: Sequence[Sequence[Tensor]], batching: Batching, joint: Joint, constants: Sequence[Tensor] = ()
) -> Iterator[None]:
    """Fill `joint`, in steps of about a millisecond, or of two runs of the computation.

    Arguments:
        compute: one query's computation, by autograd, from its tensors.
        came: tensors of queries that came; one at least.
        constants: tensors that it holds itself.
    """
    drawn = torch.Generator()
    drawn.manual_seed(0)
    try:
        recording = record(compute, came[0], constants)
    except UnrecordableError:
        return
    sets = list(came)
    compared = 0
    for number in range(len(came) + _MORE_SETS):
        yield
        if number < len(came):
            tensors: Sequence[Tensor] = came[number]
        else:
            tensors = yield from _varied_in_steps(came[number % len(came)], drawn)
            if _are_few(tensors):
                sets.append(tensors)
        is_same = _agrees(compute, recording, tensors)
        if is_same is False or (is_same is None and number < len(came)):
            return
        compared += is_same is True
    if compared < len(came) + _MORE_SETS // 2:
        return
    if not (yield from _is_quicker(recording, compute, came)):
        return
    joint.single = recording
    if batching == "off" or not (recording.is_same_in_stacks or batching == "tolerant"):
        return
    for size, rounds in _STACKS.items():
        yield
        yield from _prove_stack(recording, size, rounds, sets, drawn, joint, batching == "tolerant")
        if size not in joint.stacks:
            return


def _agrees(compute: Compute, recording: Recording, tensors: Sequence[Tensor]) -> bool | None:
    """Whether both give the same bits; None where the computation refuses these numbers, or gives none that are finite."""
    try:
        expected = compute(tensors)
    except Exception:  # numbers of ours that PyTorch refuses say nothing
        return None
    if not all(bool(value.isfinite().all()) for value in expected):
        return None
    return same_bits(expected, recording(tensors))


def _varied(tensors: Sequence[Tensor], drawn: torch.Generator) -> list[Tensor]:
    """Each tensor with its elements in another order, and floating ones in other magnitudes."""
    steps = _varied_in_steps(tensors, drawn)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            varied: list[Tensor] = end.value
            return varied


def _varied_in_steps(tensors: Sequence[Tensor], drawn: torch.Generator) -> Generator[None, None, list[Tensor]]:
    """As `_varied`, with a step for each large tensor."""
    varied = []
    for tensor in tensors:
        order = torch.randperm(tensor.numel(), generator=drawn, device="cpu")
        value = tensor.reshape(-1)[order].view(tensor.shape)
        if value.dtype.is_floating_point:
            value = value * (0.5 + torch.rand(value.shape, generator=drawn, dtype=value.dtype, device="cpu"))
        varied.append(value.contiguous())
        if not _are_few(varied[-1:]):
            yield
    return varied


def _are_few(tensors: Sequence[Tensor]) -> bool:
    """A stack of the fewest of them is allowed; others take more than a millisecond to be drawn."""
    return min(_STACKS) * sum(tensor.nbytes for tensor in tensors) <= _STACK_BYTES


def _is_quicker(recording: Recording, compute: Compute, sets: Sequence[Sequence[Tensor]]) -> Generator[None, None, bool]:
    """Whether the recording takes less time: the least of runs by turns, as whatever else the machine does only adds to them."""
    by_recording, by_recipe = [], []
    for number in range(_TIMINGS):
        tensors = sets[number % len(sets)]
        by_recording.append(_seconds(recording, tensors))
        by_recipe.append(_seconds(compute, tensors))
        yield
    return min(by_recording) < min(by_recipe)


def _least_s(compute: Compute, sets: Sequence[Sequence[Tensor]]) -> float:
    return min(_seconds(compute, sets[number % len(sets)]) for number in range(_TIMINGS))


def _seconds(compute: Compute, tensors: Sequence[Tensor]) -> float:
    """Of this thread in one run."""
    start = time.thread_time()
    compute(tensors)
    return time.thread_time() - start


def _prove_stack(
    recording: Recording,
    size: int,
    rounds: int,
    sets: Sequence[Sequence[Tensor]],
    drawn: torch.Generator,
    joint: Joint,
    tolerant: bool,
) -> Iterator[None]:
    if size * sum(tensor.nbytes for tensor in sets[0]) > _STACK_BYTES:
        return
    rows = [sets[number % len(sets)] for number in range(size)]
    try:
        stacked = record(torch.func.vmap(recording, randomness="error"), _stacked(rows), recording.constants)
    except (UnrecordableError, RuntimeError, ValueError, TypeError):  # an operator without a batching rule
        return
    if not (stacked.is_same_in_stacks or tolerant):
        return
    yield
    for number in range(rounds):
        rows = [
            _varied(sets[(number + row) % len(sets)], drawn) if number or row >= len(sets) else sets[row] for row in range(size)
        ]
        results = stacked(_stacked(rows))
        if sum(result.nbytes for result in results) > _STACK_BYTES:
            return
        for row, tensors in enumerate(rows):
            single = recording(tensors)
            together = [result[row] for result in results]
            if not (same_bits(single, together) or (tolerant and _is_near(single, together))):
                return
            if row % 16 == 15:
                yield
    single_s = _least_s(recording, sets)
    fewest = 1 + int(_least_s(stacked, [_stacked(rows)]) / single_s)
    if fewest < size:
        joint.stacks[size] = stacked
        joint.fewest[size] = max(2, fewest)


def _stacked(rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def _is_near(single: Sequence[Tensor], together: Sequence[Tensor]) -> bool:
    for left, right in zip(single, together, strict=True):
        if not left.dtype.is_floating_point:
            if not same_bits(left, right):
                return False
        elif left.dtype != right.dtype or left.shape != right.shape:
            return False
        elif left.isfinite().all():
            allowed = _TOLERANCE_EPS * torch.finfo(left.dtype).eps * float(left.abs().max())
            if not float((left - right).abs().max()) <= allowed:
                return False
    return True
