"""Zeros that need no exact numbers to be trusted: the same results are computed at a few other inputs, which takes a hundredth of the time.

Three reasons are known. Nothing leads there (a row of `cat` by one of its inputs, `view_as` by the other tensor). The zero hangs on the
last bits of what was sent (a residual at its optimum): beside them the result grows in proportion. Or it comes of zeros that were sent (x²
at 0): the result is zero whatever the other numbers are, and not without the zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from app.engine.computation import Computation
from app.engine.kinds import results
from app.engine.notes import Notes
from app.engine.sparsity.dependence import Dependence, dependences
from app.engine.stepwise.point import REFUSALS
from app.engine.tensors import is_differentiable
from app.engine.zeros.telling_zeros import ResultKey, is_tiny, sized, spread, tensors_of
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
# Of a pattern, beyond which it leaves nothing out: what is looked at has 256 elements by as many.
_ENTRIES: Final = 1 << 17

# Tiny numbers are looked at beside the inputs by multiples of this share; these are such that steps of rounding do not fall in with them.
_STEP: Final = 1e-4
_STEPS: Final = (-3.0, -1.83, -0.91, 0, 1.13, 2.04, 3.0)
# What is left of seven numbers beside their cubic: of those with fewer than some five digits more than this share, of exp(-200) 5e-7.
_UNEVEN: Final = np.eye(len(_STEPS)) - (_POWERS := np.vander(_STEPS, 4)) @ np.linalg.pinv(_POWERS)
_ROUGH: Final = 2e-5  # a fifth of what is noted
# What moves by less than its last digit there is even too, but moves otherwise over more: 1 + erf(x) at -6. A power or an exponential does not.
_FAR_STEP: Final = 0.01
_SLOPES: Final = 0.2
# A residual that is as much larger beside the point hangs on the last bits of what was sent.
_RESIDUAL: Final = 10.0


class Suspect(NamedTuple):
    """A result, and which of its elements are looked at."""

    values: Floats
    open: Floats


Masks: TypeAlias = Mapping[ResultKey, Floats]


def are_explained(computation: Computation, suspects: Mapping[ResultKey, Suspect]) -> bool:
    """Whether all that is looked at is zero for one of the reasons, or tiny and changes evenly."""
    left = {key: own.open for key, own in suspects.items()}
    try:
        for explained in _explanations(computation, suspects):
            left = {key: is_open & ~explained[key] for key, is_open in left.items()}
            if not any(is_open.any() for is_open in left.values()):
                return True
    except (*REFUSALS, KeyError, PullbackError):  # some step is not defined at other inputs, or a form is another
        pass
    return False


def _explanations(computation: Computation, suspects: Mapping[ResultKey, Suspect]) -> Iterator[Masks]:
    """For each reason where it holds."""
    if any(is_tiny(own.values).any() for own in suspects.values()):
        yield _even(computation, suspects)
    keys = [key for key, own in suspects.items() if (own.open & (own.values == 0)).any()]
    nothing = {key: np.zeros(own.values.shape, dtype=bool) for key, own in suspects.items()}
    for sizes in _reasons(computation, keys) if keys else ():
        yield nothing | {
            key: (suspects[key].values == 0) & spread(explained, suspects[key].values) for key, explained in sizes.items()
        }


def out_of_reach(computation: Computation, keys: Sequence[ResultKey]) -> dict[ResultKey, Floats]:
    """Of derivatives by a leaf, by rows of Jacobians, where no step leads from the one to the other."""
    function, wrt = computation.prepared.function, computation.prepared.wrt

    def run(leaves: Mapping[str, Tensor]) -> Sequence[Tensor]:
        return function.call(*[leaves[name] for name in function.leaves])

    by_output = dependences(
        run, computation.leaves, wrt, _ENTRIES, differentiates=False, operations=function.operations(), static=function.static
    )
    shapes = {output.name: output.shape for output in computation.prepared.plan.outputs}
    masks: dict[ResultKey, Floats] = {}
    for key in keys:
        leaf = key.leaf or ""
        size, shape = computation.leaves[leaf].numel(), tuple(computation.leaves[leaf].shape)
        reached = {name: _dense(own[leaf], size) for name, own in zip(function.outputs, by_output, strict=True)}
        is_reached: NDArray[np.bool_]
        if key.output is None:
            is_reached = np.stack([own.any(0) for own in reached.values()]).any(0).astype(bool).reshape(shape)
        else:
            is_reached = reached[key.output].any(1).astype(bool).reshape(shapes[key.output])
        masks[key] = ~is_reached
    return masks


def _dense(dependence: Dependence, columns: int) -> Floats:
    pattern = dependence.pattern
    if pattern.is_full or dependence.values.chosen:  # by the very numbers that are in question
        return np.ones((pattern.rows, columns), dtype=bool)
    return np.asarray(pattern.matrix.toarray(), dtype=bool)


def _even(computation: Computation, suspects: Mapping[ResultKey, Suspect]) -> Masks:
    """Where what is tiny changes evenly with the inputs, as what rounding has left of larger terms does not."""
    draw = torch.Generator().manual_seed(0)
    leaves = {name: leaf.detach() for name, leaf in computation.leaves.items() if is_differentiable(leaf.dtype)}
    ways = {name: uniform(leaf, 0.5, 1.0, draw) * uniform(leaf, -1.0, 1.0, draw).sign() for name, leaf in leaves.items()}

    def look(step: float) -> Mapping[ResultKey, Floats]:
        return _at(computation, tuple(suspects), {name: leaf * (1 + step * ways[name]) for name, leaf in leaves.items()})

    beside = [look(step * _STEP) for step in _STEPS if step]
    farther = look(_FAR_STEP)
    is_even = {}
    with np.errstate(all="ignore"):
        for key, own in suspects.items():
            rows = np.stack([other[key] for other in beside])
            rows = np.insert(rows, _STEPS.index(0), own.values, 0)
            rough = np.abs(np.tensordot(_UNEVEN, rows, 1)).max(0)
            size = np.maximum(np.abs(rows[0]), np.abs(rows[-1]))
            here, there = (
                np.log(rows[-1] / rows[0]) / (_STEPS[-1] - _STEPS[0]) / _STEP,
                np.log(farther[key] / own.values) / _FAR_STEP,
            )
            is_steady = np.abs(here - there) <= _SLOPES * np.maximum(1, np.maximum(np.abs(here), np.abs(there)))
            is_even[key] = (
                is_tiny(own.values) & (rough <= _ROUGH * size) & (is_steady | (size > _RESIDUAL * np.abs(own.values)))
            )
    return is_even


def _reasons(computation: Computation, keys: Sequence[ResultKey]) -> Iterator[Masks]:
    """Why zeros are true ones, by rows of Jacobians: of these most have zeros that nothing leads to, of gradients few."""
    by_rows = [key for key in keys if key.output is not None and key.leaf is not None]
    if by_rows:
        yield out_of_reach(computation, by_rows)
    leaves, draw = {name: leaf.detach() for name, leaf in computation.leaves.items()}, torch.Generator().manual_seed(0)
    floating = [name for name, leaf in leaves.items() if is_differentiable(leaf.dtype)]
    for _ in range(_DRAWS):  # two numbers may be moved alike
        ways = {name: uniform(leaves[name], -1.0, 1.0, draw) * torch.finfo(leaves[name].dtype).eps for name in floating}
        near, far = (
            _sizes(computation, keys, {name: leaves[name] * (1 + by * way) for name, way in ways.items()})
            for by in (_NEAR, _FAR)
        )
        yield {key: (near[key] > 0) & (far[key] >= _GROWS * near[key]) for key in keys}
    others = [key for key in keys if key.output is None]
    if others:
        yield out_of_reach(computation, others)
    if not is_plain(computation.prepared.function.pattern) or not any((leaves[name] == 0).any() for name in floating):
        return
    draws = [{name: uniform(leaves[name], _LEAST, _MOST, draw) for name in floating} for _ in range(_DRAWS)]
    with_zeros = [
        _sizes(computation, keys, {name: leaves[name].sign() * size for name, size in sizes.items()}) for sizes in draws
    ]
    without = _sizes(computation, keys, {name: torch.where(leaves[name] < 0, -size, size) for name, size in draws[0].items()})
    yield {key: (without[key] > 0) & (with_zeros[0][key] == 0) & (with_zeros[1][key] == 0) for key in keys}


def uniform(leaf: Tensor, least: float, most: float, draw: torch.Generator) -> Tensor:
    """Numbers between two, for each element its own."""
    drawn = torch.rand(leaf.shape, generator=draw, dtype=leaf.dtype, device="cpu")
    return (least + (most - least) * drawn).to(leaf.device)


def _sizes(computation: Computation, keys: Sequence[ResultKey], leaves: Mapping[str, Tensor]) -> Mapping[ResultKey, Floats]:
    """How large the results are at these inputs; NaN where they are not finite."""
    sizes = {key: sized(computation.prepared, key, values) for key, values in _at(computation, keys, leaves).items()}
    return {key: np.where(np.isfinite(own), own, np.nan) for key, own in sizes.items()}


def _at(computation: Computation, keys: Sequence[ResultKey], leaves: Mapping[str, Tensor]) -> dict[ResultKey, Floats]:
    """The results at these inputs, and the others as they are."""
    query = replace(computation.query, want=tuple(dict.fromkeys(key.kind for key in keys)))
    other = {**computation.leaves, **leaves}
    tree = results(Computation(query, computation.prepared, other, Notes(), computation.limits, computation.layout_cache))
    return {key: tensors_of(tree[key.kind], key.kind)[key.path] for key in keys}


@GraphFact
def is_plain(graph: fx.Graph) -> bool:
    """Whether all numbers that are written in a graph are ordinary."""
    numbers: list[float] = []
    for node in graph.nodes:
        mapped((node.args, node.kwargs), int | float, numbers.append)
    least, most = _PLAIN
    return all(number == 0 or least <= abs(number) <= most for number in numbers)
