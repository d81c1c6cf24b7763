"""Several queries of one signature computed together: their numbers one behind the other, and the results row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from app.engine.joint.proof import Joint


class Part(Protocol):
    """One tensor of a query, which is computed in `dtype` where that is another than it is sent in."""

    @property
    def dtype(self) -> torch.dtype | None: ...

    def own(self, numbers: Sequence[Any]) -> Any:
        """Those of a query's numbers that are its own, in memory."""

    def blank(self) -> Tensor:
        """Zeros of the dtype and shape that it is sent in."""


class Stacks:
    """The memory in which queries are put together, for each size of a stack that is proved.

    Arguments:
        parts: the tensors of one query.
    """

    def __init__(self, parts: Sequence[Part], joint: Joint) -> None:
        self._parts = parts
        self._joint = joint
        self._tensors: dict[int, list[tuple[Part, Tensor, memoryview]]] = {}

    @property
    def bytes(self) -> int:
        """Of the memory that they take, once they have been used."""
        return sum(self._joint.stacks) * sum(part.blank().nbytes for part in self._parts)

    def best(self, count: int) -> int:
        """How many of `count` queries are best computed together; 1: each alone."""
        for size, fewest in self._joint.fewest.items():
            if fewest <= count <= size:
                return count
        return max((size for size in self._joint.fewest if size <= count), default=1)

    def run(self, queries: Sequence[Sequence[Any]]) -> list[Tensor]:
        """The results of these queries, as many as `best` has said, each with a leading axis of which the first rows are theirs.

        Raises whatever PyTorch raises.
        """
        size = next(size for size in self._joint.stacks if size >= len(queries))
        if size not in self._tensors:
            self._tensors[size] = [_allocated(part, size) for part in self._parts]
        tensors = []
        for part, tensor, memory in self._tensors[size]:
            numbers = b"".join([part.own(query) for query in queries])
            memory[: len(numbers)] = numbers  # rows that are not filled keep what they had
            tensors.append(tensor if part.dtype is None else tensor.to(part.dtype))
        return self._joint.stacks[size](tensors)


def _allocated(part: Part, size: int) -> tuple[Part, Tensor, memoryview]:
    tensor = torch.stack([part.blank()] * size)
    return part, tensor, memoryview(tensor.view(-1).view(torch.uint8).numpy().data)
