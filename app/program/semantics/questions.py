"""What the reading of a program asks of its tensors besides their ranks and dtypes, and whether other tensors answer alike.

Reading may go another way for other shapes only where it asked for one: so each question stands, with its answer, at the node that was
asked, and a graph holds for all tensors of which every question has the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from app.program.semantics import sizes
from app.program.semantics.aliases import storage

Question = Callable[..., object]
Asked = tuple[Question, tuple[Any, ...]]


def asked(node: fx.Node, question: Question, *others: Any) -> Any:
    """The answer to `question(tensor of node, *others)`, noted at the node; nodes among `others` stand for their tensors."""
    known: dict[Asked, object] = node.meta.setdefault("asked", {})
    key = question, others
    if key not in known:
        known[key] = question(_value(node), *map(_value, others))
    return known[key]


def _value(value: Any) -> Any:
    return value.meta["val"] if isinstance(value, fx.Node) else value


class Answered(NamedTuple):
    """A question that was asked of the tensor of a node, and of `others` where they are nodes; and its answer."""

    node: fx.Node
    question: Question | sizes.Answer
    others: tuple[Any, ...]
    answer: object

    def nodes(self) -> set[fx.Node]:
        """Those that it is about."""
        return {self.node, *(other for other in self.others if isinstance(other, fx.Node))}


def answered(nodes: Iterable[fx.Node]) -> list[Answered]:
    """What was asked of these nodes."""
    return [
        Answered(node, question, others, answer)
        for node in nodes
        for (question, others), answer in node.meta.get("asked", {}).items()
    ]


def are_answered_alike(questions: Iterable[Answered], values: Mapping[fx.Node, Any]) -> bool:
    """Whether other tensors give every answer; what is asked about sizes that a program computed with is left out.

    `values`: of all nodes that the questions are about: tensors, or what has their shape and strides.
    """
    for node, question, others, answer in questions:
        if isinstance(question, sizes.Answer):
            continue
        again = question(values[node], *[values[other] if isinstance(other, fx.Node) else other for other in others])
        if again != answer:
            return False
    return True


def compared_with(node: fx.Node) -> set[fx.Node]:
    """The other nodes that a question to `node` is about."""
    return {other for _, others in node.meta["asked"] for other in others if isinstance(other, fx.Node)}


def shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def extent(tensor: Tensor, axis: int) -> int:
    return tensor.shape[axis]


def is_single(tensor: Tensor) -> bool:
    return tensor.numel() == 1


def has_shape_of(tensor: Tensor, other: Tensor) -> bool:
    return tensor.shape == other.shape


def has_extent_of(tensor: Tensor, axis: int, other: Tensor, other_axis: int) -> bool:
    return tensor.shape[axis] == other.shape[other_axis]


def shares_memory(tensor: Tensor, other: Tensor) -> bool:
    return storage(tensor) == storage(other)


def single_axes(value: Any) -> tuple[bool, ...] | None:
    """Which axes have one member: they decide what is a view and what a copy."""
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple([extent == 1 for extent in shape])


class Example:
    """The tensor that a node had while a program was read. Rank and dtype are free to know; whatever else is asked is noted."""

    __slots__ = ("_node", "_tensor")

    def __init__(self, node: fx.Node, tensor: Tensor) -> None:
        self._node, self._tensor = node, tensor

    @property
    def dtype(self) -> torch.dtype:
        return self._tensor.dtype

    @property
    def device(self) -> torch.device:
        return self._tensor.device

    @property
    def ndim(self) -> int:
        return self._tensor.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        answer: tuple[int, ...] = asked(self._node, shape)
        return answer

    @property
    def sizes(self) -> tuple[int, ...]:
        """Its shape as a program computes with it: what stays unsettled is not asked."""
        return tuple([sizes.extent(self._node, axis) for axis in range(self.ndim)])

    def size(self, axis: int) -> int:
        """Of one axis, from -ndim to ndim - 1, as a program computes with it."""
        answer: int = sizes.extent(self._node, axis % self._tensor.ndim)
        return answer

    def extent(self, axis: int) -> int:
        """Of one axis, from -ndim to ndim - 1."""
        answer: int = asked(self._node, extent, axis % self._tensor.ndim)
        return answer

    def is_single(self) -> bool:
        """Whether it has one element."""
        return bool(asked(self._node, is_single))

    def numel(self) -> int:
        """How many elements it has, as a program computes with it."""
        answer: int = sizes.numel(self._node)
        return answer

    def has_shape_of(self, other: Example) -> bool:
        return bool(asked(self._node, has_shape_of, other._node))

    def is_floating_point(self) -> bool:
        return self._tensor.is_floating_point()

    def is_complex(self) -> bool:
        return self._tensor.is_complex()

    def element_size(self) -> int:
        return self._tensor.element_size()
