"""The part of a Function that makes whole numbers, or compares them with floating ones: what alone may wrap around, and little beside the rest."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.catalogue.dtypes import dtype_name
from app.catalogue.facts import short
from app.program.errors import tensors_in
from app.program.function import Function, GraphFact
from app.program.graph_runner import GraphRunner
from app.program.semantics.graph_values import reachable


def whole_part(function: Function, *, of_inputs: bool = False) -> Function | None:
    """Of `function` the steps that make whole numbers of whole ones or by a cast, for such may leave their dtype, that compare them with
    floating ones, and what leads to them; None without.

    Its outputs are what other steps take of theirs, and what `function` gives. Where random numbers are drawn it is all of `function`.

    Arguments:
        of_inputs: those alone to which an input leads; what constants give is the same in the next query.
    """
    if not _has_whole_steps(function.pattern):
        return None
    graph = function.graph
    on_the_way = reachable([graph.output_node()], lambda node: node.all_input_nodes)
    steps = [node for node in graph.nodes if node in on_the_way and _is_whole_step(node)]
    if of_inputs:
        behind = reachable([node for node in graph.nodes if node.op == "placeholder"], lambda node: node.users)
        steps = [step for step in steps if step in behind]
    if not steps or function.random:
        return function if steps else None
    part, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    needed = reachable(steps, lambda node: node.all_input_nodes)
    for node in graph.nodes:
        if node.op == "placeholder" or node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    own = set(steps)
    steps = [step for step in steps if not own.issuperset(step.users)]
    part.output(tuple(copies[step] for step in steps))
    names = tuple(f"step{k}" for k in range(len(steps)))
    return replace(function, held_graph=part, call=GraphRunner(part, function.dtype), outputs=names)


# Casts, by their names in a program; and comparisons, by the names of PyTorch's operators.
_CASTS: Final = frozenset({"to", "type", "type_as", "long", "int", "short", "char", "byte"})
COMPARISONS: Final = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
_SIGNS: Final = COMPARISONS | {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"}


def _is_whole_step(node: fx.Node) -> bool:
    value, step = node.meta.get("val"), node.meta.get("step")
    sources = [source for each in node.all_input_nodes for source in tensors_in(each.meta.get("val"))]
    if not sources or node.target is operator.getitem or not isinstance(value, Tensor):
        return False
    name = "" if step is None else short(step.operation)
    whole = [holds_integers(source) for source in sources]
    if name in _SIGNS:
        return any(map(_rounds, *zip(*itertools.permutations(sources, 2), strict=True))) if len(sources) > 1 else False
    if not holds_integers(value):
        return False
    is_cast = name in _CASTS and any(source.dtype.is_floating_point for source in sources)
    return is_cast or (any(whole) and all(w or s.dtype == torch.bool for w, s in zip(whole, sources, strict=True)))


def _rounds(whole: Tensor, other: Tensor) -> bool:
    """Whether the one holds whole numbers of more digits than the other, a floating tensor, has."""
    if not holds_integers(whole) or not other.dtype.is_floating_point:
        return False
    return torch.iinfo(whole.dtype).bits > -math.log2(torch.finfo(other.dtype).eps)


_has_whole_steps: Final = GraphFact(lambda graph: any(map(_is_whole_step, graph.nodes)))


def leaves_dtype(numbers: Tensor, dtype: torch.dtype) -> bool:
    """Whether a cast to a dtype of whole numbers gives something else than their whole parts: C++ leaves open what."""
    if not numbers.dtype.is_floating_point or not numbers.numel():
        return False
    limits, whole = torch.iinfo(dtype), numbers.to(torch.float64).trunc()
    # The largest of 64 bits rounds to 2^63, which is beyond.
    below = whole < limits.max if dtype == torch.int64 else whole <= limits.max
    return not bool(((whole >= limits.min) & below).all())


def compares_otherwise(name: str, result: Tensor, first: Any, second: Any) -> bool:
    """Whether a comparison of whole with floating numbers came out so only because the whole ones were rounded to a floating dtype."""
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)) or holds_integers(first) == holds_integers(second):
        return False
    swapped = not holds_integers(first)
    whole, other = (second, first) if swapped else (first, second)
    if not other.dtype.is_floating_point or not holds_integers(whole):
        return False
    wide = other.to(torch.float64)
    inside = wide.abs() < 2.0**63  # what is beyond, or NaN, is compared rightly
    floor, ceiling = (torch.where(inside, each, 0.0).long() for each in (wide.floor(), wide.ceil()))
    is_less, is_more = whole < ceiling, whole > floor
    if swapped:
        is_less, is_more = is_more, is_less
    exact = {
        "lt": is_less, "gt": is_more, "le": ~is_more, "ge": ~is_less, "eq": ~(is_less | is_more), "ne": is_less | is_more,
    }[name]  # fmt: skip
    return bool(((exact != result) & inside).any())


def is_integer(dtype: torch.dtype) -> bool:
    """Whether it holds whole numbers; truth values are none."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def holds_integers(tensor: Tensor) -> bool:
    """Whether its dtype is one of whole numbers."""
    return is_integer(tensor.dtype)


def widens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether it is a cast to a dtype that holds what it is given, or to one of other numbers."""
    dtype = kwargs.get("dtype")
    if not isinstance(dtype, torch.dtype) or not isinstance(args[0], Tensor):
        return False
    if not is_integer(dtype):
        return True
    to, of = torch.iinfo(dtype), torch.iinfo(args[0].dtype)
    return to.min <= of.min and of.max <= to.max


def where_wrapped(result: Tensor, wide: Tensor) -> Tensor | None:
    """Where whole numbers are others than `wide`, in float64: by a multiple of 2^bits then, whatever that has rounded; None without."""
    if not holds_integers(result) or wide.shape != result.shape:
        return None
    wrapped = (wide - result).abs() > 2.0 ** (torch.iinfo(result.dtype).bits - 1)
    return wrapped if bool(wrapped.any()) else None


def is_cast_to_whole(numbers: Tensor, dtype: torch.dtype | None = None, **_: Any) -> bool:
    return numbers.dtype.is_floating_point and dtype is not None and is_integer(dtype)


# What PyTorch computes in floating point of whole numbers, and turns back into whole ones (torch/masked/_ops.py of 2.13.0).
_TURNED_BACK: Final[Mapping[str, str]] = {
    "masked.median": "in float32, which holds them exactly up to 2^24 alone",
    "masked.logsumexp": "in floating point, and cuts what stands behind the point off",
}


def turned_back(function: Function) -> list[tuple[str, str]]:
    """(operation, sentence) of each step that is given whole numbers and gives whole numbers that were floating in between."""
    said: dict[str, str] = {}
    if not _TURNED_BACK.keys() & function.operations():
        return []
    for node in function.pattern.nodes:
        step, value = node.meta.get("step"), node.meta.get("val")
        how = None if step is None else _TURNED_BACK.get(step.operation)
        if how is not None and isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex():
            back = f"and gives the result as {dtype_name(value.dtype)}. Send floating numbers."
            said[step.operation] = f"PyTorch computes `{step.operation}` of whole numbers {how}, {back}"
    return list(said.items())
