"""Patterns of tensors, kept by the memory that holds them: a view, a saved tensor and an in-place write see the same elements.

PyTorch hands out new tensor objects for memory it knows (views, what autograd saved), so an object's identity would lose patterns,
and a lost pattern reads as "constant". The memory itself does not change hands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from app.engine.sparsity.csr import Numbers
from app.engine.sparsity.pattern import Pattern, PatternSpace

_Geometry: TypeAlias = tuple[int, int, tuple[int, ...], tuple[int, ...]]
_CLEAN_EVERY = (
    64  # new memories between two searches for freed ones, which take microseconds, and those that are large count for more:
)
_ELEMENTS_OF_ONE = (
    1 << 12
)  # a pattern of so many rows takes 16 kB for each entry of a row; 60 steps of a stencil left 2.5 GB of 130,000


@dataclass
class Values:
    """What of a pattern hangs on values.

    Attributes:
        vary: the elements themselves derive from the values of an input, or are drawn.
        chosen: values decided where entries are: an index computed from an input, a zero of an input, the order of a sort, a branch.
        switched: a condition computed from an input picks a side (`where`); the pattern holds both, so it is the same everywhere.
    """

    vary: bool = False
    chosen: bool = False
    switched: bool = False

    def add(self, other: Values) -> None:
        self.vary |= other.vary
        self.chosen |= other.chosen
        self.switched |= other.switched


@dataclass(slots=True)
class Memory:
    """One storage. `unit`: bytes of an element; `pattern`: of its elements, None for a constant."""

    reference: StorageWeakRef
    unit: int
    elements: int
    pattern: Pattern | None
    values: Values
    views: dict[_Geometry, Pattern]


class Memories:
    """What is known of each storage during one run."""

    def __init__(self, space: PatternSpace) -> None:
        self._space = space
        self._known: dict[int, Memory] = {}
        self._until_cleaning = _CLEAN_EVERY

    def knows(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._known

    def values(self, tensor: Tensor) -> Values:
        """What of it hangs on values; nothing where it is unknown: such a tensor was made before the run, of no input."""
        memory = self.find(tensor)
        return Values() if memory is None else memory.values

    def pattern(self, tensor: Tensor) -> Pattern | None:
        """One row for each element of `tensor`, row-major; None where it is constant."""
        return self.read(self.find(tensor), tensor)

    def gathered(self, tensors: Sequence[Tensor], values: Values) -> list[Pattern | None] | None:
        """The patterns of arguments, and added to `values` what of them hangs on values; None where all of them are unknown."""
        patterns: list[Pattern | None] = []
        is_known = False
        for tensor in tensors:
            memory = self.find(tensor)
            if memory is None:
                patterns.append(None)
                continue
            is_known = True
            pattern, known = memory.pattern, memory.values
            patterns.append(pattern if pattern is None or _covers(tensor, memory) else self.read(memory, tensor))
            if known.vary:
                values.vary = True
            if known.chosen or known.switched:
                values.add(known)
        return patterns if is_known else None

    def add(self, tensor: Tensor, pattern: Pattern | None, values: Values) -> None:
        """What was not known, the result of a call; `values` are its own from now on."""
        memory = self._register(tensor)
        memory.values = values
        if pattern is None or _covers(tensor, memory):
            memory.pattern = pattern
        else:
            self.write(tensor, pattern, values)

    def read(self, memory: Memory | None, tensor: Tensor) -> Pattern | None:
        """`pattern` of a tensor in `memory`."""
        if memory is None or memory.pattern is None or _covers(tensor, memory):
            return None if memory is None else memory.pattern
        key = (int(tensor.storage_offset()), tensor.element_size(), tuple(tensor.shape), tuple(tensor.stride()))
        pattern = memory.views.get(key)
        if pattern is None:
            pattern = memory.views[key] = self._part(memory.pattern, memory.unit, tensor)
        return pattern

    def write(self, tensor: Tensor, pattern: Pattern | None, values: Values) -> None:
        """From now on the elements of `tensor` have this pattern; the rest of its memory keeps its own."""
        memory = self.find(tensor) or self._register(tensor)
        memory.values.add(values)
        if pattern is None and memory.pattern is None:
            return
        memory.views.clear()
        if _covers(tensor, memory):
            memory.pattern = pattern
            return
        before = self._space.none(memory.elements) if memory.pattern is None else memory.pattern
        new = self._space.none(tensor.numel()) if pattern is None else pattern
        numbers = _elements(tensor)
        if tensor.element_size() < memory.unit:  # a part of an element (the real part of a complex number): the rest stays
            memory.pattern = self._joined(before, new, numbers * tensor.element_size() // memory.unit)
            return
        order = np.arange(memory.elements)
        times = tensor.element_size() // memory.unit
        for part in range(times):
            order[numbers * times + part] = memory.elements + np.arange(tensor.numel())
        memory.pattern = self._space.take(self._space.stack([before, new]), order)

    def _joined(self, before: Pattern, new: Pattern, at: Numbers) -> Pattern:
        order = np.argsort(at, kind="stable")
        total = before
        while len(order):  # each round writes to every element at most once
            _, first = np.unique(at[order], return_index=True)
            chosen = order[first]
            rows = np.full(before.rows, new.rows)
            rows[at[chosen]] = chosen
            spread = self._space.take(self._space.stack([new, self._space.none(1)]), rows)
            total = self._space.union([total, spread])
            order = np.delete(order, first)
        return total

    def find(self, tensor: Tensor) -> Memory | None:
        """What is known of its storage."""
        storage = tensor.untyped_storage()
        memory = self._known.get(storage._cdata)
        if memory is not None and storage.nbytes() != memory.unit * memory.elements:  # resized: nothing is known of what moved
            memory.elements = storage.nbytes() // memory.unit
            memory.pattern = None if memory.pattern is None else self._space.full(memory.elements)
            memory.views.clear()
        return memory

    def _register(self, tensor: Tensor) -> Memory:
        self._until_cleaning -= 1 + tensor.numel() // _ELEMENTS_OF_ONE
        if self._until_cleaning <= 0:
            self._until_cleaning = _CLEAN_EVERY
            # A weak reference keeps the address from being given out again, so what is freed can wait for its removal.
            freed = [at for at, memory in self._known.items() if memory.reference.expired()]  # type: ignore[no-untyped-call]
            for address in freed:
                del self._known[address]
        storage = tensor.untyped_storage()
        unit = tensor.element_size()
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        memory = self._known[storage._cdata] = Memory(reference, unit, storage.nbytes() // unit, None, Values(), {})
        return memory

    def _part(self, pattern: Pattern, unit: int, tensor: Tensor) -> Pattern:
        """Of `tensor`, which is a part of the memory of this pattern, or all of it in another order."""
        size = tensor.element_size()
        if size == unit and tensor.is_contiguous():
            start = int(tensor.storage_offset())
            return self._space.slice(pattern, start, start + tensor.numel())
        numbers = _elements(tensor)
        if size <= unit:
            return self._space.take(pattern, numbers * size // unit)
        times = size // unit
        return self._space.union([self._space.take(pattern, numbers * times + part) for part in range(times)])


def _covers(tensor: Tensor, memory: Memory) -> bool:
    """Whether `tensor` is all of its memory, in order."""
    return tensor.element_size() == memory.unit and tensor.numel() == memory.elements and tensor.is_contiguous()


def _elements(tensor: Tensor) -> Numbers:
    """The place of each element in its storage, in elements of `tensor`'s own size, row-major."""
    offsets = np.full((), tensor.storage_offset(), dtype=np.int64)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        offsets = offsets[..., None] + np.arange(size, dtype=np.int64) * stride
    return offsets.reshape(-1)
