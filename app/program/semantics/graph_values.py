"""The tensors of a program as values: nodes of the graph, what is asked of them, and how they stand in the arguments of a step."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import UnionType
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.program.reading.source import Refusal
from app.program.semantics import sizes, static
from app.program.semantics.aliases import VIEWED, View
from app.program.semantics.questions import Example

_INTEGER_LIMIT: Final = 1 << 63  # of int64, which a plain integer becomes beside a tensor

# What a graph takes as it is. (`A | B` would be made anew at each question.)
_TAKEN: Final = (fx.Node, torch.dtype, str, float, complex, bool)

_HOLDING: Final = (tuple, list, dict, slice)

Value = Any  # an fx.Node (a tensor), MultiOutput (what an operation with several outputs gives), or a plain Python value


@dataclass(frozen=True, slots=True, eq=False)
class MultiOutput:
    """What a call with several outputs gave: `max(x, 1)`, `linalg.svd(a)`, `split(x, 2)`.

    Attributes:
        node: the call.
        values: its results on the example tensors.
        fields: PyTorch's names of them (`values`, `indices`), or () where they have none.
        operation: the catalogue name.
    """

    node: fx.Node
    values: tuple[Any, ...]
    fields: tuple[str, ...]
    operation: str


# Adds one step at the place of the text that is being read: (operation, target, args, kwargs) → value.
Emit = Callable[..., Value]


def is_tensor(value: object) -> bool:
    return isinstance(value, fx.Node)


def held(node: fx.Node) -> fx.Node:
    """The node with the value of a tensor; of one that was written into, of the same shape and dtype."""
    cell = node.meta.get("cell")
    return node if cell is None else cell.node


def example(node: fx.Node) -> Example:
    """The tensor that `node` had while building; of one that was written into, a value of the same shape and dtype."""
    shown = held(node)
    return Example(shown, shown.meta["val"])


def is_floating(tensor: Tensor | Example) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def fixed(function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """`function` with its first arguments given, under its own name, which a graph asks for."""
    call = functools.partial(function, *args)
    call.__name__ = function.__name__  # type: ignore[attr-defined]
    return call


def mapped(value: Any, kind: type | UnionType, by: Callable[[Any], Any]) -> Any:
    """`value` with each `kind` in its tuples, lists, dicts and slices replaced by `by(it)`."""
    if isinstance(value, kind):
        return by(value)
    if not isinstance(value, _HOLDING):
        return value
    if isinstance(value, tuple):
        return tuple([mapped(member, kind, by) for member in value])
    if isinstance(value, list):
        return [mapped(member, kind, by) for member in value]
    if isinstance(value, dict):
        return {key: mapped(member, kind, by) for key, member in value.items()}
    return slice(*(mapped(part, kind, by) for part in (value.start, value.stop, value.step)))


def reachable(starts: Iterable[fx.Node], neighbours: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    """The nodes that lead on from `starts`, and these."""
    seen: set[fx.Node] = set()
    stack = list(starts)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += neighbours(node)
    return seen


def mapped_nodes(value: Any, by: Callable[[fx.Node], Any]) -> Any:
    return mapped(value, fx.Node, by)


def mapped_call(
    arguments: tuple[tuple[Any, ...], dict[str, Any]], by: Callable[[fx.Node], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`mapped_nodes` of a call's arguments, most of which are nodes and numbers."""
    args, kwargs = arguments
    members = [
        by(value) if isinstance(value, fx.Node) else mapped_nodes(value, by) if isinstance(value, _HOLDING) else value
        for value in args
    ]
    return tuple(members), {name: mapped_nodes(value, by) for name, value in kwargs.items()} if kwargs else kwargs


def replaced_viewed(view: View, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return mapped((view.args, view.kwargs), type(VIEWED), lambda _: node)  # type: ignore[no-any-return]


def lowered(value: Value, read: Callable[[Value], Value]) -> Any:
    """`value` as a graph takes it: nodes and plain values; refused where no tensor operation could take it.

    The caller has counted the members of `value` (`static.members_in`). `read` gives the tensor of a weight.
    """
    if sizes.is_size(value) or isinstance(value, _TAKEN):
        return value
    if value is None or value is Ellipsis:
        return value
    if isinstance(value, int):
        if not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
            raise Refusal("An integer of more than 64 bits cannot meet a tensor.", "Write a floating-point number.")
        return value
    if isinstance(value, range):
        static.check_length(static.length(value))
        return list(value)
    if isinstance(value, list | tuple):
        members = [lowered(member, read) for member in value]
        return tuple(members) if isinstance(value, tuple) else members
    if isinstance(value, slice):
        return slice(*(lowered(part, read) for part in (value.start, value.stop, value.step)))
    if (
        isinstance(value, MultiOutput) and value.node.target is operator.getitem
    ):  # the state that an LSTM gave, for its next step
        return value.node
    if isinstance(value, MultiOutput):
        names = " and ".join(f"`.{name}`" for name in value.fields) or "its members by [0], [1]…"
        raise Refusal(f"`{value.operation}` gives several tensors, and one is needed here.", f"Take {names}.")
    tensor = read(value)
    if tensor is not value:
        return tensor
    raise Refusal(f"{static.named(value).capitalize()} cannot be given to an operation.")


def examples_of(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return value.meta["val"]
    if isinstance(value, tuple):
        return tuple([examples_of(member) for member in value])
    if isinstance(value, list):
        return [examples_of(member) for member in value]
    if isinstance(value, slice):
        return slice(examples_of(value.start), examples_of(value.stop), examples_of(value.step))
    return value


def call_node(graph: fx.Graph, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
    """`graph.call_function(target, args, kwargs)` without its search for symbolic numbers and its name made of `target`: 7 µs for 27."""
    node = graph.create_node("call_function", target, name="step")
    node.args = args
    if kwargs:
        node.kwargs = kwargs
    return node


def item_of(owner: list[Value] | tuple[Value, ...] | range, index: Value) -> Value:
    """`owner[index]` of a plain list."""
    parts = (index.start, index.stop, index.step) if isinstance(index, slice) else (index,)
    if any(is_tensor(part) for part in parts):
        raise Refusal("A list cannot be indexed by a tensor.", "Make a tensor of it: `stack(list)[i]`.")
    if not isinstance(index, int | slice):
        raise Refusal(f"A list cannot be indexed by {static.named(index)}.")
    try:
        return owner[index]
    except IndexError as error:
        raise Refusal(
            f"The index {index} is out of range: the list has {static.length(owner)} members.", raises="IndexError"
        ) from error
    except (TypeError, ValueError) as error:
        raise Refusal(f"This slice does not work on a list: {error}.") from error
