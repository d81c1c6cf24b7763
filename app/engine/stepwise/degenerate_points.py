"""Matrices at which a step of linear algebra has no derivative, though PyTorch gives finite numbers, all of them rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.stepwise.point import REFUSALS, Point, name_of
from app.engine.tensors import is_differentiable
from app.program.function import Function

# (the step's node, its matrix, its result) → for each matrix whether it is one of those; no value is looked at, so that it holds under vmap.
MatrixTest = Callable[[fx.Node, Tensor, Any], Tensor]


def degenerate_steps(
    function: Function, leaves: Mapping[str, Tensor], seed: int | None, batched: Sequence[str] = ()
) -> list[fx.Node]:
    """The steps of a Function that stand at such a matrix, of any sample where `batched` inputs have a leading axis of samples."""
    nodes = [node for node in function.graph.nodes if node.op == "call_function" and name_of(node) in TESTS]
    if not nodes:
        return []

    def flags(at: Mapping[str, Tensor]) -> list[Tensor]:
        point = Point(function, at, seed, wide=False)
        point.run({})
        results = point.results()
        return [_flag(node, results) for node in nodes]

    try:
        with torch.no_grad():
            dims = ({name: 0 if name in batched else None for name in leaves},)
            flagged = flags(leaves) if not batched else torch.func.vmap(flags, in_dims=dims, randomness="same")(dict(leaves))
            return [node for node, flag in zip(nodes, flagged, strict=True) if bool(flag.any())]
    except REFUSALS:  # without a batching rule, or a factorisation that fails: then nothing is said
        return []


def is_degenerate(node: fx.Node, matrix: Tensor, outputs: Sequence[Tensor]) -> bool:
    """Whether the step `node`, which made `outputs` of `matrix`, stands at such a matrix."""
    test = TESTS.get(name_of(node))
    if test is None or not matrix.numel() or not is_differentiable(matrix.dtype):
        return False
    with torch.no_grad():
        return bool(test(node, matrix, outputs if len(outputs) > 1 else outputs[0]).any())


def _flag(node: fx.Node, results: Mapping[fx.Node, Any]) -> Tensor:
    first = node.args[0] if node.args else next(iter(node.kwargs.values()))
    matrix = results[first] if isinstance(first, fx.Node) else first
    if not isinstance(matrix, Tensor) or not matrix.numel() or not is_differentiable(matrix.dtype):
        return torch.zeros((), dtype=torch.bool)
    return TESTS[name_of(node)](node, matrix, results[node]).any()


def _is_less(smallest: Tensor, largest: Tensor, matrix: Tensor) -> Tensor:
    """Whether one number is nothing beside another by the rounding of a factorisation, max(m, n)·eps (as `linalg.matrix_rank` has it)."""
    return smallest <= max(matrix.shape[-2:]) * torch.finfo(matrix.dtype).eps * largest


def _has_dependent_columns(node: fx.Node, matrix: Tensor, result: Any) -> Tensor:
    pivots = result[1].diagonal(dim1=-2, dim2=-1).abs()
    return _is_less(pivots.amin(-1), pivots.amax(-1), matrix)


def _has_zero_pivot(node: fx.Node, matrix: Tensor, result: Any) -> Tensor:
    upper = result[2] if name_of(node) == "lu" and len(result) == 3 and result[2].is_floating_point() else result[0]
    return _has_dependent_columns(node, matrix, (None, upper))


def _is_defective(node: fx.Node, matrix: Tensor, result: Any) -> Tensor:
    """Whether the eigenvectors are dependent to half of the digits: rounding moves a double eigenvalue by so much."""
    vectors = torch.linalg.eig(matrix)[1] if isinstance(result, Tensor) else result[1]
    sizes = torch.linalg.svdvals(vectors)
    is_defective: Tensor = sizes[..., -1] <= matrix.shape[-1] * torch.finfo(matrix.dtype).eps ** 0.5 * sizes[..., 0]
    return is_defective


def _uses(node: fx.Node, *members: int) -> bool:
    return any(len(user.args) == 2 and user.args[0] is node and user.args[1] in members for user in node.users)


def _repeats(numbers: Tensor, matrix: Tensor) -> Tensor:
    size = numbers.abs().amax(-1)
    if numbers.shape[-1] < 2:
        return torch.zeros_like(size, dtype=torch.bool)
    return _is_less(numbers.diff(dim=-1).abs().amin(-1), size, matrix)


def _has_repeated_eigenvalues(node: fx.Node, matrix: Tensor, result: Any) -> Tensor:
    return _repeats(result[0], matrix) & _uses(node, 1)


def _has_repeated_singular_values(node: fx.Node, matrix: Tensor, result: Any) -> Tensor:
    sizes = result[1]
    return (_repeats(sizes, matrix) | _is_less(sizes[..., -1], sizes[..., 0], matrix)) & _uses(node, 0, 2)


def _has_lower_rank_than_asked(node: fx.Node, matrix: Tensor, result: Any) -> Tensor:
    return _is_less(result[1][..., -1], result[1][..., 0], matrix)


def _has_deficient_rank(node: fx.Node, matrix: Tensor, result: Any) -> Tensor:
    sizes = torch.linalg.svdvals(matrix)
    return _is_less(sizes[..., -1], sizes[..., 0], matrix)


# Operation, without namespace → its test; what is said of it is the fact `degenerate` of the same row.
TESTS: Final[Mapping[str, MatrixTest]] = {
    "qr": _has_dependent_columns, "lu": _has_zero_pivot, "lu_factor": _has_zero_pivot, "lu_factor_ex": _has_zero_pivot,
    "eig": _is_defective, "eigvals": _is_defective, "eigh": _has_repeated_eigenvalues, "svd": _has_repeated_singular_values,
    "svd_lowrank": _has_lower_rank_than_asked, "pca_lowrank": _has_lower_rank_than_asked,
    "pinv": _has_deficient_rank, "lstsq": _has_deficient_rank, "cond": _has_deficient_rank,
}  # fmt: skip
