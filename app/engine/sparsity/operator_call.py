"""One call of an operator while patterns are traced: its arguments by name, their patterns, its results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from app.engine.sparsity.pattern import Pattern, PatternSpace
from app.engine.sparsity.storage import Memories, Values


class UnfitRuleError(Exception):
    """The rule does not know this call: it is taken as dense."""


@dataclass
class Call:
    """`func(*args, **kwargs)` gave `outputs`.

    Attributes:
        name: of the operator, without namespace, overload and the underscore of in-place forms: `add`, `_softmax`.
        tensors: all tensor arguments, in order, with the tensors of lists one by one.
        patterns: of each of `tensors`, before the call; None for constants.
        values: what of the results' patterns hangs on values; the rule adds to it.
    """

    func: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: list[Tensor]
    patterns: list[Pattern | None]
    outputs: list[Tensor]
    space: PatternSpace
    memories: Memories
    values: Values

    @cached_property
    def named(self) -> dict[str, Any]:
        """The arguments that were passed, by their names."""
        schema = self.func._schema.arguments
        return dict(zip((argument.name for argument in schema), self.args, strict=False)) | self.kwargs

    def argument(self, name: str) -> Any:
        """As it was passed, or its default. Raises UnfitRuleError where there is no argument of this name."""
        if name in self.named:
            return self.named[name]
        for argument in self.func._schema.arguments:
            if argument.name == name:
                return argument.default_value
        raise UnfitRuleError(name)

    def tensor(self, name: str) -> Tensor:
        value = self.argument(name)
        if not isinstance(value, Tensor):
            raise UnfitRuleError(name)
        return value

    def pattern(self, tensor: Tensor) -> Pattern | None:
        """Of an argument of this call."""
        for known, pattern in zip(self.tensors, self.patterns, strict=True):
            if known is tensor:
                return pattern
        raise UnfitRuleError(self.name)

    def tracked(self) -> Iterator[tuple[Tensor, Pattern]]:
        """The arguments that are no constants, with their patterns."""
        for tensor, pattern in zip(self.tensors, self.patterns, strict=True):
            if pattern is not None:
                yield tensor, pattern

    def reads(self, tensor: Tensor) -> None:
        """The rule uses the values of `tensor`: where they derive from an input, the pattern holds at this point only."""
        if self.memories.values(tensor).vary:
            self.values.chosen = True


def carries(tensor: Tensor) -> bool:
    """Whether its dtype can carry a derivative."""
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def numbers_of(tensor: Tensor, start: int = 0) -> Tensor:
    """Consecutive numbers in the shape of `tensor`, in float64 (exact up to 2^53), on the CPU."""
    return torch.arange(start, start + tensor.numel(), dtype=torch.float64).reshape(tensor.shape)
