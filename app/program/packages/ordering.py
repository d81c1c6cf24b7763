"""Python's `sorted`, `min` and `max` of several values: numbers, texts, tensors by the numbers in them, objects by their `__lt__`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from app.program.library.reads import Reads
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Emit, Value, example, is_tensor
from app.program.semantics.static import named
from app.program.semantics.values import plain_member


class Ordering:
    """Orders values; `operate` is an operator on any two of them, `holds` a condition on one."""

    def __init__(
        self,
        reads: Reads,
        invoke: Callable[[Value, tuple[Value, ...], dict[str, Value]], Value],
        operate: Callable[[Emit, str, Value, Value], Value],
        holds: Callable[[Value], bool],
    ) -> None:
        self._reads, self._invoke, self._operate, self._holds = reads, invoke, operate, holds

    def ordered(self, emit: Emit, values: list[Value], options: Mapping[str, Value]) -> list[Value]:
        """`sorted(values, **options)`."""
        keys = self.keys(emit, values, options.get("key"))
        order = static.computed(
            lambda: sorted(range(len(keys)), key=keys.__getitem__, reverse=bool(options.get("reverse"))), what="`sorted`"
        )
        return [values[index] for index in order]

    def extreme(self, emit: Emit, name: str, values: list[Value], key: Value) -> Value:
        """`min(values, key=…)` or `max`: the first of those that no other is before."""
        if key is None and any(is_tensor(value) for value in values):
            return functools.reduce(functools.partial(self.larger, name, emit), values)
        keys = self.keys(emit, values, key)
        pick: Callable[..., Any] = max if name == "max" else min
        return values[static.computed(lambda: pick(range(len(keys)), key=keys.__getitem__), what=f"`{name}`")]

    def keys(self, emit: Emit, values: list[Value], key: Value) -> list[Any]:
        """What values are ordered by; those that hold objects or lists of tensors compare as Python does, member by member."""
        keys = values if key is None else [self._invoke(key, (value,), {}) for value in values]
        if any(map(self._is_compared, keys)):
            return [functools.cmp_to_key(functools.partial(self._compared, emit))(each) for each in keys]
        keys = [self._plain(emit, each) for each in keys]
        static.plain(keys)
        return keys

    def _is_compared(self, key: Value) -> bool:
        if isinstance(key, list | tuple):
            static.members_in(key)
            return any(self._is_compared(part) or (is_tensor(part) and type(key) is list) for part in key)
        key = plain_member(key)
        return not (is_tensor(key) or static.is_number(key) or isinstance(key, str | range) or key is None)

    def _compared(self, emit: Emit, left: Value, right: Value) -> int:
        if type(left) is type(right) is tuple:
            for a, b in zip(left, right, strict=False):
                order = 0 if a is b else self._compared(emit, a, b)
                if order:
                    return order
            return len(left) - len(right)
        return self._holds(self._operate(emit, "<", right, left)) - self._holds(self._operate(emit, "<", left, right))

    def _plain(self, emit: Emit, key: Value) -> Value:
        """A key as plain values: of a tensor the number in it."""
        if is_tensor(key):
            return self._reads.number(emit, key)
        if type(key) is tuple:
            static.members_in(key)
            return tuple(self._plain(emit, part) for part in key)
        return plain_member(key)

    def larger(self, name: str, emit: Emit, left: Value, right: Value) -> Value:
        """Python's choice between two, one of them a tensor: the first where they are equal."""
        if not (is_tensor(left) or is_tensor(right)):
            return max(left, right) if name == "max" else min(left, right)
        for value in (left, right):
            if not is_tensor(value) and not static.is_number(value):
                raise Refusal(f"`{name}` does not work on a tensor and {named(value)}.")
        better = "gt" if name == "max" else "lt"
        if is_tensor(left) and is_tensor(right):
            if example(left).ndim or example(right).ndim:  # Python asks each for one truth value, and would refuse these
                return emit(f"{name}imum", torch.maximum if name == "max" else torch.minimum, (left, right), {})
            return emit("where", _preferred, (better, right, left), {})
        if is_tensor(right):
            return emit("where", _chosen, (better, right, left, right, left), {})
        return emit("where", _chosen_last, (better, right, left), {})


def _preferred(better: str, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(getattr(torch, better)(new, old), new, old)


def _chosen(better: str, a: Tensor, b: float, first: Tensor, second: float) -> Tensor:
    return torch.where(getattr(torch, better)(a, b), first, _beside(first, second))


def _chosen_last(better: str, bound: float, tensor: Tensor) -> Tensor:
    """`max(x, 0)`: 0 only where it is larger than x."""
    other = _beside(tensor, bound)
    return torch.where(getattr(torch, better)(other, tensor), other, tensor)


def _beside(tensor: Tensor, number: float) -> Tensor:
    """A number as a tensor of the same dtype, or of one that holds it: `max(count, 0.5)`."""
    dtype = tensor.dtype
    if isinstance(number, float) and not dtype.is_floating_point:
        dtype = torch.float64
    elif type(number) is int and dtype == torch.bool:
        dtype = torch.int64
    return torch.as_tensor(number, dtype=dtype, device=tensor.device)
