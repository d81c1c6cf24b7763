"""Bounds that cost little and exclude the notes on a step of linear algebra: that it is degenerate, or its matrix nearly singular.

Each is a number that is finite where no such note stands. It may be infinite or NaN where none does either: then the tests of
degenerate_points.py and conditioning.py decide, which take ten times as long.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, fx

from app.catalogue.facts import short, values
from app.engine.stepwise.conditioning import EVEN, can_be_ill_conditioned
from app.engine.stepwise.degenerate_points import TESTS, MatrixTest, first_argument, steps_with_test
from app.engine.stepwise.point import name_of
from app.engine.stepwise.read_triangles import as_read
from app.program.function import Function

# Of what begins a note: its estimate and this bound are rounded apart.
_MARGIN: Final = 0.5


def _by_its_test(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """That looks at numbers of the result alone."""
    return torch.log1p(-TESTS[name_of(node)](node, matrix, result, passed).to(torch.float64)).sum()


def _of_inverse(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """Rows and columns are even, so that the condition is that of the matrix as it stands."""
    size = matrix.abs()
    return _condition(matrix, _inverse(node, matrix, result)) + _even(size.amax(-1)) + _even(size.amax(-2))


def _inverse(node: fx.Node, matrix: Tensor, result: Any) -> Tensor:
    inverse: Tensor = result if name_of(node) in ("inv", "inverse") else torch.linalg.inv_ex(matrix)[0]
    return inverse


def _is_plainly_regular(matrix: Tensor, inverse: Tensor) -> bool:
    """Whether its condition is so small that its rows and columns are even: none is smaller than 1/‖A⁻¹‖, or larger than ‖A‖."""
    condition: float = torch.linalg.vector_norm(matrix).item() * torch.linalg.vector_norm(inverse).item()
    return condition < _MARGIN * min(EVEN / math.sqrt(max(1, matrix.shape[-1])), 1 / math.sqrt(torch.finfo(matrix.dtype).eps))


def _of_symmetric(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """The same of the roots of the diagonal."""
    return _condition(matrix, torch.linalg.inv_ex(matrix)[0]) + _even(matrix.diagonal(dim1=-2, dim2=-1).abs().sqrt())


def _of_columns(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """A matrix and its R have one condition."""
    upper = result[1]
    return _condition(upper, torch.linalg.inv_ex(upper)[0]) + _even(torch.linalg.vector_norm(matrix, dim=-2))


def _of_pseudoinverse(node: fx.Node, matrix: Tensor, result: Tensor, passed: Collection[fx.Node]) -> Tensor:
    """And nothing was taken for zero, as the trace of A⁺A, its rank, says."""
    lacking = min(matrix.shape[-2:]) - (result * matrix.mT).sum((-2, -1))
    return _condition(matrix, result) + (_MARGIN - lacking).sqrt().sum()


def _condition(matrix: Tensor, inverse: Tensor) -> Tensor:
    """By the norms of their squared entries, whose product is no less than the condition number; NaN where it comes near to the limit."""
    condition = torch.linalg.vector_norm(matrix, dim=(-2, -1)) * torch.linalg.vector_norm(inverse, dim=(-2, -1))
    limit = _MARGIN / math.sqrt(torch.finfo(matrix.dtype).eps)
    distance: Tensor = (limit - condition).sqrt().sum()
    return distance


def _even(sizes: Tensor) -> Tensor:
    """NaN where the condition is measured of a scaled matrix."""
    margin: Tensor = (_MARGIN * EVEN * sizes.amin(-1) - sizes.amax(-1)).sqrt().sum()
    return margin


# Operation, without namespace → its bound; the others that are noted have none.
BOUNDS: Final[dict[str, MatrixTest]] = {
    **dict.fromkeys(("lu", "lu_factor", "lu_factor_ex", "eigh", "svd"), _by_its_test),
    **dict.fromkeys(("inv", "inverse", "inv_ex", "solve", "solve_ex", "det", "logdet", "slogdet"), _of_inverse),
    **dict.fromkeys(("cholesky", "cholesky_ex"), _of_symmetric),
    "qr": _of_columns,
    "pinv": _of_pseudoinverse,
}


class BoundedStep(NamedTuple):
    """A step of linear algebra that has a bound.

    Attributes:
        matrix: the step, or the input, that its matrix comes from.
        passed: the steps that a derivative passes.
    """

    node: fx.Node
    matrix: fx.Node
    passed: Collection[fx.Node]

    def bound(self, results: Mapping[fx.Node, Any]) -> Tensor:
        """By what its matrix and it itself gave."""
        test = BOUNDS[name_of(self.node)]
        return test(self.node, as_read(self.node, results[self.matrix]), results[self.node], self.passed)

    def is_excluded(self, results: Mapping[fx.Node, Any]) -> bool:
        """Whether the bound is finite; of a matrix far from a singular one a third of it says so."""
        if BOUNDS[name_of(self.node)] is _of_inverse:
            matrix = as_read(self.node, results[self.matrix])
            if _is_plainly_regular(matrix, _inverse(self.node, matrix, results[self.node])):
                return True
        return math.isfinite(self.bound(results).item())


def bounded_steps(function: Function, graph: fx.Graph, wrt: Sequence[str]) -> list[BoundedStep] | None:
    """The steps of a graph of `function` that may be noted beside derivatives by `wrt`; None where one of them has no bound.

    Kept with the graph: each new shape asks for them.
    """
    meta = next(reversed(graph.nodes)).meta
    known = meta.get("bounded_steps")
    if known is None or known[0] is not graph or known[1] != wrt:  # what stands there was copied from another graph
        meta["bounded_steps"] = known = graph, wrt, _bounded_steps(function, graph, wrt)
    steps: list[BoundedStep] | None = known[2]
    return steps


def _bounded_steps(function: Function, graph: fx.Graph, wrt: Sequence[str]) -> list[BoundedStep] | None:
    degenerate = {short(name) for name in function.operations()} & values("degenerate").keys()
    noted = degenerate | can_be_ill_conditioned(function)
    if not noted:
        return []
    if not noted <= BOUNDS.keys():
        return None
    nodes, passed = steps_with_test(BOUNDS, function, wrt, graph=graph)
    whole = [node for node in nodes if node.target is not operator.getitem]  # not a member of a result
    steps = [(node, first_argument(node)) for node in whole]
    if not all(isinstance(matrix, fx.Node) for _, matrix in steps):
        return None
    return [BoundedStep(node, matrix, passed) for node, matrix in steps]
