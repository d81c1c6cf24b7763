"""Zeros that need no exact numbers to be trusted: the same results are computed at a few other inputs, which takes a hundredth of the time.

Two reasons are known. The zero hangs on the last bits of what was sent (a residual at its optimum): beside them the result grows in
proportion. Or it comes of zeros that were sent (x² at 0): the result is zero whatever the other numbers are, and not without the zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from app.engine.computation import Computation
from app.engine.kinds import results
from app.engine.notes import Notes
from app.engine.stepwise.point import REFUSALS
from app.engine.tensors import is_differentiable
from app.engine.zeros.telling_zeros import ResultKey, sized, tensors_of
from app.errors import PullbackError
from app.program.function import GraphFact
from app.program.semantics.graph_values import mapped

Floats: TypeAlias = NDArray[Any]
# Inputs are moved by so many roundings, then by more. What rounding leaves of a step (x + 1 − x at 1e16) does not grow with them.
_NEAR, _FAR = 64.0, 16384.0
_GROWS: Final = 32.0
# Numbers between these, with constants no larger, saturate nothing and underflow nowhere: 1 − tanh(18) is two roundings of 1.
_LEAST, _MOST = 0.5, 2.0
_PLAIN: Final = (1e-3, 16.0)
_DRAWS: Final = 2

Leaves: TypeAlias = Mapping[str, Tensor]
Sizes: TypeAlias = Mapping[ResultKey, Floats]


def unexplained(computation: Computation, suspects: Mapping[ResultKey, Floats]) -> dict[ResultKey, Floats]:
    """Those of the results that have an infinity, or a zero for which neither reason holds."""
    is_open = {key: ~(sized(computation.prepared, key, values) > 0) for key, values in suspects.items()}
    try:
        for explained in _explanations(computation, tuple(suspects)):
            is_open = {key: zeros & ~explained[key] for key, zeros in is_open.items()}
            if not any(map(np.any, is_open.values())):
                break
    except (
        *REFUSALS,
        KeyError,
        PullbackError,
    ):  # at other inputs some step is not defined, or a form is another: then nothing is known
        return dict(suspects)
    return {key: values for key, values in suspects.items() if is_open[key].any() or np.isinf(values).any()}


def _explanations(computation: Computation, keys: Sequence[ResultKey]) -> Iterator[Sizes]:
    """For each reason where it holds."""
    leaves, draw = {name: leaf.detach() for name, leaf in computation.leaves.items()}, torch.Generator().manual_seed(0)
    floating = [name for name, leaf in leaves.items() if is_differentiable(leaf.dtype)]
    for _ in range(_DRAWS):  # two numbers may be moved alike
        ways = {name: _uniform(leaves[name], -1.0, 1.0, draw) * torch.finfo(leaves[name].dtype).eps for name in floating}
        near, far = (
            _at(computation, keys, {name: leaves[name] * (1 + by * way) for name, way in ways.items()}) for by in (_NEAR, _FAR)
        )
        yield {key: (near[key] > 0) & (far[key] >= _GROWS * near[key]) for key in keys}
    if not _is_plain(computation.prepared.function.pattern) or not any((leaves[name] == 0).any() for name in floating):
        return
    draws = [{name: _uniform(leaves[name], _LEAST, _MOST, draw) for name in floating} for _ in range(_DRAWS)]
    with_zeros = [_at(computation, keys, {name: leaves[name].sign() * size for name, size in sizes.items()}) for sizes in draws]
    without = _at(computation, keys, {name: torch.where(leaves[name] < 0, -size, size) for name, size in draws[0].items()})
    yield {key: (without[key] > 0) & (with_zeros[0][key] == 0) & (with_zeros[1][key] == 0) for key in keys}


def _uniform(leaf: Tensor, least: float, most: float, draw: torch.Generator) -> Tensor:
    return torch.empty(leaf.shape, dtype=leaf.dtype).uniform_(least, most, generator=draw)


def _at(computation: Computation, keys: Sequence[ResultKey], leaves: Leaves) -> Sizes:
    """How large the results are at these inputs, and the others as they are; NaN where they are not finite."""
    query = replace(computation.query, want=tuple(dict.fromkeys(key.kind for key in keys)))
    prepared, notes = computation.prepared, Notes()
    own = {**computation.leaves, **leaves}
    tree = results(Computation(query, prepared, own, notes, computation.limits, computation.layout_cache))
    sizes = {}
    for key in keys:
        value = sized(prepared, key, tensors_of(tree[key.kind], key.kind)[key.path])
        sizes[key] = np.where(np.isfinite(value), value, np.nan)
    return sizes


@GraphFact
def _is_plain(graph: fx.Graph) -> bool:
    """Whether all numbers that are written in a graph are ordinary."""
    numbers: list[float] = []
    for node in graph.nodes:
        mapped((node.args, node.kwargs), int | float, numbers.append)
    least, most = _PLAIN
    return all(number == 0 or least <= abs(number) <= most for number in numbers)
