"""Finds the first step that is infinite or NaN in the dtypes that were sent, or hides that it is within, and finite in float64."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

import torch
from torch import Tensor, fx

from app.catalogue.facts import operations_with
from app.engine.stepwise.point import Point, name_of
from app.engine.tensors import fourth_powers, is_differentiable
from app.program.errors import tensors_in
from app.program.function import Function, GraphFact

# Half of float16's digits: what is smaller beside the largest may be rounding.
_ROUNDED: Final = torch.finfo(torch.float16).eps ** 0.5


@GraphFact
def step_dtypes(graph: fx.Graph) -> frozenset[torch.dtype]:
    """Of the tensors that the inputs and steps of a graph are."""
    return frozenset(value.dtype for node in graph.nodes for value in tensors_in(node.meta.get("val")))


def first_overflow(
    function: Function,
    leaves: Mapping[str, Tensor],
    seed: int | None,
    batched: Collection[str] = (),
    on_search: Callable[[], None] = lambda: None,
) -> fx.Node | None:
    """That step; None where there is none. One forward, and where something is not finite two more, in which nothing is kept.

    `batched`: leaves with a leading axis of samples, any of which may show it; `on_search`: called where something is not finite.

    Raises what PyTorch raises: of steps without a batching rule, of those that insist on their dtype.
    """
    nodes = [node for node in function.graph.nodes if node.op == "call_function"]
    hiding = [node for node in nodes if hides_overflow(node)]
    sources = {source for node in hiding for source in node.all_input_nodes}

    def broken(at: Mapping[str, Tensor]) -> list[Tensor]:
        point = Point(function, at, seed, wide=False)
        placeholders = [node for node in function.graph.nodes if node.op == "placeholder"]
        large = {n: _large([at[name]]) for n, name in zip(placeholders, function.leaves, strict=True) if n in sources}
        flags = []
        for node, floating in _steps(point):
            if node in sources:
                large[node] = _large(floating)
            within = [large[source] for source in node.all_input_nodes] if node in hiding else []
            flags.append(_any(mask for mask in (*within, *(~torch.isfinite(v) for v in floating))))
        return flags

    def overflowing(at: Mapping[str, Tensor]) -> list[Tensor]:
        odd = {
            n: [~torch.isfinite(v) | (v == 0 if n in hiding else False) for v in values]
            for n, values in _steps(Point(function, at, seed, wide=False))
            if n in suspects
        }
        flags = []
        for node, values in _steps(Point(function, at, seed)):
            if node in odd:
                pairs = zip(values, odd[node], strict=True)
                differs = _is_something if node in hiding else torch.isfinite
                flags.append(_any(differs(w) & mask for w, mask in pairs if w.shape == mask.shape))
        return flags

    with torch.no_grad():
        suspects = [node for node, flag in zip(nodes, _of_all(broken, leaves, batched), strict=True) if bool(flag.any())]
        if not suspects:
            return None
        on_search()
        flagged = zip(suspects, _of_all(overflowing, leaves, batched), strict=True)
        return next((node for node, flag in flagged if bool(flag.any())), None)


def hides_overflow(node: fx.Node) -> bool:
    """Whether a step may give 0 because a number within it is infinite."""
    return name_of(node) in operations_with("hides_overflow")


def _large(values: list[Tensor]) -> Tensor:
    return _any(~torch.isfinite(fourth_powers(v)) for v in values if is_differentiable(v.dtype))


def _is_something(wide: Tensor) -> Tensor:
    """Which finite numbers of a step are none that rounding, or underflow, may make 0."""
    size = wide.abs()
    largest = size.amax() if size.numel() else size
    is_something: Tensor = torch.isfinite(wide) & (size > _ROUNDED * largest) & (size > torch.finfo(torch.float32).tiny)
    return is_something


def _of_all(measure: Callable[..., list[Tensor]], leaves: Mapping[str, Tensor], batched: Collection[str]) -> list[Tensor]:
    dims = ({name: 0 if name in batched else None for name in leaves},)
    measured = torch.func.vmap(measure, in_dims=dims, randomness="same") if batched else measure
    return measured(dict(leaves))


def _steps(point: Point) -> Iterator[tuple[fx.Node, list[Tensor]]]:
    """The floating tensors that each step gives; what no later step needs is dropped."""
    for node, result in point.in_order():
        yield node, [v for v in tensors_in(result) if is_differentiable(v.dtype)]


def _any(masks: Iterator[Tensor]) -> Tensor:
    flags = [mask.any() for mask in masks]
    return torch.stack(flags).any() if flags else torch.zeros((), dtype=torch.bool)
