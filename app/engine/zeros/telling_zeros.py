"""Zeros of a result that tell something: of these steps one gives 0 only where the true number is 0, or where digits were lost on the way.

A product of which a part underflows, a slope 1 − y² whose y was rounded to 1, a norm of numbers too small to be squared: each gives 0,
which looks like a result. Where a step masks or cuts, zeros are ordinary, and nothing is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from app.catalogue.facts import operations_with
from app.engine.kinds import KINDS
from app.engine.planning.prepare import Prepared
from app.engine.stepwise.point import names_called
from app.engine.tensors import is_differentiable
from app.program.function import Function, GraphFact
from app.program.semantics.graph_values import reachable

# `any`: a single zero tells; `all`: only a tensor of zeros does, as a step has zeros of its own.
Telling: TypeAlias = Literal["any", "all"]
RESULTS: Final = tuple(f"{kind}." for kind in KINDS)  # where a note on such a zero stands
# Exact numbers of more elements would take longer than they are waited for: 5 µs each in every step, twice.
_LARGEST: Final = 256
_FLOPS: Final = 1e4  # so many make 10,000 such numbers at the most
_DTYPES: Final = frozenset({torch.float64, torch.float32})
# Of float64 alone: numbers of 1e-6 are ordinary in float32.
_LEAST: Final = 1e-11
_LEAST_NARROW: Final = float(np.finfo(np.float32).smallest_subnormal)
# What is smaller, four roundings of 1, is what they leave of zero in softmax and its like: a look at it would cost each such gradient ten
# times what it takes.
_ROUNDED_AWAY: Final = 4 * 2.0**-52
# What a program calls and the catalogue does not have: densities are sums of what it has, and constants that it writes hold their own zeros.
_DENSITIES: Final = frozenset({"cdf", "icdf", "log_prob", "entropy"})
_CONSTANTS: Final = frozenset({"tensor", "ones", "zeros", "full", "eye", "arange", "linspace"})


@GraphFact
def _telling(graph: fx.Graph) -> Telling | None:
    names = names_called(graph)
    plain = operations_with("zeros", "none") | _DENSITIES
    if names <= plain:
        return "any"
    return "all" if names <= plain | operations_with("zeros", "own") | _CONSTANTS else None


def telling(prepared: Prepared) -> Telling | None:
    """What of a Function's zeros tells; None where nothing does, or exact numbers would take too long."""
    function, plan = prepared.function, prepared.plan
    results = (*plan.outputs, *plan.wrt)
    is_small = plan.flops <= _FLOPS * (prepared.samples or 1) and max([r.elements for r in results], default=0) <= _LARGEST
    dtypes = {dtype for dtype in prepared.dtypes.values() if is_differentiable(dtype)} | {result.dtype for result in results}
    # What is drawn is another number in another arithmetic.
    return _telling(function.pattern) if is_small and not function.random and dtypes <= _DTYPES else None


@GraphFact
def _connected(graph: fx.Graph) -> frozenset[int]:
    """The numbers of the inputs that lead to an output; of the others every derivative is zero."""
    on_the_way = reachable([graph.output_node()], lambda node: node.all_input_nodes)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    return frozenset(number for number, node in enumerate(inputs) if node in on_the_way)


def is_connected(function: Function, leaf: str) -> bool:
    """Whether a derivative by this leaf may be other than zero."""
    return function.leaves.index(leaf) in _connected(function.pattern)


def has_telling_zeros(
    values: NDArray[Any], telling: Telling, leaves: Callable[[], Iterable[NDArray[Any]]], explained: NDArray[Any] | None = None
) -> bool:
    """Whether one of the zeros in a result tells: a single one does not where it may come from those of an input. An infinity does.

    `explained`: where it is zero whatever the inputs are; None: nowhere.
    """
    known = np.zeros(values.shape, bool) if explained is None else explained
    zeros = np.equal(values, 0) & ~known
    if not zeros.any() or np.isinf(values).any():
        return bool(np.isinf(values).any())
    if (zeros | known).all():
        return True
    if telling == "all":
        return False
    for leaf in leaves():
        if leaf.dtype.kind == "f" and np.count_nonzero(leaf) != leaf.size:
            if leaf.ndim > zeros.ndim or leaf.shape != zeros.shape[zeros.ndim - leaf.ndim :]:
                return False  # where its zeros lead is not seen from the shapes
            zeros = zeros & (leaf != 0)
    return bool(zeros.any())


def _tiny(dtype: torch.dtype) -> float:
    return _LEAST if dtype == torch.float64 else _LEAST_NARROW


def least_of(dtype: np.dtype[Any]) -> float:
    """What is smaller is looked at: of terms of size 1 that cancel, so much has four digits."""
    return _LEAST if dtype == np.float64 else _LEAST_NARROW


def is_tiny(values: NDArray[Any]) -> NDArray[Any]:
    """Where numbers that are not zero are so small that they may be what cancelling left."""
    sizes = np.abs(values)
    return np.asarray((sizes < least_of(values.dtype)) & (sizes >= _ROUNDED_AWAY) & (values != 0))


def sized(prepared: Prepared, key: ResultKey, values: NDArray[Any]) -> NDArray[Any]:
    """How large a result is where its zeros tell: of a Jacobian whole rows."""
    sizes: NDArray[Any] = np.abs(values)
    if key.output is None or key.leaf is None:
        return sizes
    rank = next(len(result.shape) for result in prepared.plan.outputs if result.name == key.output)
    return np.asarray(sizes.max(tuple(range(rank, sizes.ndim)), initial=0))


def tensors_of(tree: Any, path: str) -> dict[str, NDArray[Any]]:
    """The tensors below a place of an answer by their paths."""
    if isinstance(tree, Tensor):
        return {path: tree.detach().numpy(force=True)}
    members = tree.items() if isinstance(tree, Mapping) else ()
    return {below: values for name, value in members for below, values in tensors_of(value, f"{path}.{name}").items()}


def by_rows(matrix: NDArray[Any], rank: int) -> NDArray[Any]:
    """Of a Jacobian, for each element of an output of this rank whether its row is not zero throughout."""
    return np.asarray(matrix.any(tuple(range(rank, matrix.ndim))))


class ResultKey(NamedTuple):
    """Which result of a query: of a kind, of an output or by a leaf, or both."""

    kind: str
    output: str | None = None
    leaf: str | None = None

    @property
    def path(self) -> str:
        """As the answer names it."""
        return ".".join(part for part in self if part is not None)


def is_looked_at(kind: str) -> bool:
    """Outputs and first derivatives, which reports and Fisher matrices are not."""
    return KINDS[kind].per_sample is not None and KINDS[kind].demand.order == 1


def result_keys(kind: str, prepared: Prepared) -> list[ResultKey]:
    """The results of a kind in the order of the answer."""
    demand, outputs = KINDS[kind].demand, [output.name for output in prepared.plan.outputs]
    if demand.by_outputs:
        return [ResultKey(kind, output, leaf) for output in outputs for leaf in prepared.wrt]
    if not demand.derives or demand.mode == "forward":
        return [ResultKey(kind, output) for output in outputs]
    by_leaf = [ResultKey(kind, leaf=leaf) for leaf in prepared.wrt]
    return by_leaf * len(by_leaf) if demand.order == 2 and demand.by_rows else by_leaf


class WatchedZeros(NamedTuple):
    """Which results of a recipe are looked at.

    Attributes:
        results: (its number, the rank of the output whose Jacobian it is, or None, and what is tiny in its dtype).
        always_zero: number of a result → where it is zero whatever the inputs are, by rows of a Jacobian.
    """

    telling: Telling
    results: Sequence[tuple[int, int | None, float]]
    always_zero: Mapping[int, NDArray[Any]] = MappingProxyType({})

    def tell(self, results: Sequence[NDArray[Any]], leaves: Callable[[], Iterable[NDArray[Any]]]) -> bool:
        for index, rank, least in self.results:
            values = results[index]
            # Most have none, which is seen in a microsecond.
            if np.count_nonzero(np.abs(values) < least):
                known = self.always_zero.get(index)
                rows = values if rank is None else by_rows(values, rank)
                is_small = is_tiny(values) if known is None else is_tiny(values) & ~spread(known, values)
                if is_small.any() or has_telling_zeros(rows, self.telling, leaves, known):
                    return True
        return False


def spread(mask: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """What is known of the rows of a Jacobian, for each of their elements."""
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)), values.shape)


def watched_zeros(
    want: Sequence[str], prepared: Prepared, always_zero: Mapping[ResultKey, NDArray[Any]] = MappingProxyType({})
) -> WatchedZeros | None:
    """Those of a query's results, in the order of the answer, whose zeros tell; None where there is none."""
    tells = telling(prepared)
    if tells is None:
        return None
    connected = {name: is_connected(prepared.function, name) for name in prepared.wrt}
    ranks = {output.name: len(output.shape) for output in prepared.plan.outputs}
    dtypes = {result.name: result.dtype for result in (*prepared.plan.outputs, *prepared.plan.wrt)}
    keys = [key for kind in want for key in result_keys(kind, prepared)]
    results = [
        (
            index,
            None if key.leaf is None or key.output is None else ranks[key.output],
            _tiny(dtypes[key.leaf or key.output or ""]),
        )
        for index, key in enumerate(keys)
        if is_looked_at(key.kind) and (key.leaf is None or connected[key.leaf])
    ]
    known = {index: always_zero[key] for index, key in enumerate(keys) if key in always_zero}
    return WatchedZeros(tells, results, known) if results else None
