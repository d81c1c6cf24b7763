"""Tensors in nested lists, tuples and dicts: taken out in order, and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import fx

from app.program.semantics import static
from app.program.semantics.graph_values import Value, mapped


def leaves(value: Value) -> list[fx.Node]:
    """The tensors in `value`, in order. Raises a refusal where it is nested too deeply, or holds too many."""
    static.members_in(value)
    return _leaves(value)


def _leaves(value: Value) -> list[fx.Node]:
    if isinstance(value, fx.Node):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for member in value for leaf in _leaves(member)]
    return []


def rebuilt(value: Value, members: Iterator[Any]) -> Any:
    """`value` with its tensors replaced by `members`, in order."""
    return mapped(value, fx.Node, lambda _: next(members))


def each(value: Value, by: Callable[[fx.Node], Any]) -> Any:
    """`value` with every tensor replaced by `by(it)`."""
    return rebuilt(value, iter([by(leaf) for leaf in leaves(value)]))
