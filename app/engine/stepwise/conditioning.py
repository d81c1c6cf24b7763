"""Matrices so near to singular ones that a derivative through them keeps less than half of its dtype's digits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.catalogue.facts import values
from app.engine.stepwise.degenerate_points import MatrixTest, measured_steps
from app.program.function import Function

# Rounds of the power method for a norm: a lower estimate, of normal matrices of up to 200 rows within a tenth (measured), so that no
# ordinary matrix is called bad.
_ROUNDS: Final = 6


def ill_conditioned_steps(
    function: Function,
    leaves: Mapping[str, Tensor],
    seed: int | None,
    batched: Collection[str] = (),
    wrt: Collection[str] | None = None,
    outputs: Collection[str] | None = None,
) -> list[tuple[fx.Node, float]]:
    """The steps whose matrix has a condition number κ with κ·eps > sqrt(eps), and κ; arguments as of `measured_steps`.

    A derivative through an inverse is off by up to κ·eps of itself (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
    chapters 7 and 14; measured beside mpmath: by 0.01 to 10 times as much).
    """
    tests = {name: _TESTS[how] for name, how in values("conditioned").items()}
    return [step for step in measured_steps(tests, function, leaves, seed, batched, wrt, outputs) if step[1] > 0]


def _of_inverse(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """By the norms of the matrix and, from one factorisation, of its inverse."""
    factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)

    def solved(vectors: Tensor, *, adjoint: bool) -> Tensor:
        solution: Tensor = torch.linalg.lu_solve(factors, pivots, vectors, adjoint=adjoint)
        return solution

    def times(vectors: Tensor, *, adjoint: bool) -> Tensor:
        return (matrix.mH if adjoint else matrix) @ vectors

    return _if_bad(_norm(times, matrix) * _norm(solved, matrix), matrix)


def _norm(times: Any, like: Tensor) -> Tensor:
    size = like.shape[-1]
    generator = torch.Generator().manual_seed(5)
    start = torch.randn(size, 1, dtype=torch.float64, generator=generator, device="cpu").to(like.device, like.dtype)
    vector = start.expand(*like.shape[:-2], size, 1)
    norm = torch.ones((), dtype=vector.real.dtype, device=like.device)
    for _ in range(_ROUNDS):
        vector = vector / torch.linalg.vector_norm(vector, dim=(-2, -1), keepdim=True)
        image = times(vector, adjoint=False)
        norm = torch.linalg.vector_norm(image, dim=(-2, -1))
        vector = times(image, adjoint=True)
    return norm


def _of_pseudoinverse(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    sizes = torch.linalg.svdvals(matrix)
    return _if_bad(sizes[..., 0] / sizes[..., -1], matrix)


def _of_cofactors(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """A determinant's derivative holds no smallest singular value: at a singular matrix it is as good as elsewhere."""
    sizes = torch.linalg.svdvals(matrix)
    return _if_bad(sizes[..., 0] / sizes[..., max(0, sizes.shape[-1] - 2)], matrix)


def _if_bad(condition: Tensor, matrix: Tensor) -> Tensor:
    """κ where it eats more than half of the digits, else 0; of an exactly singular matrix too, where PyTorch has its own words."""
    is_bad = (condition * torch.finfo(matrix.dtype).eps ** 0.5 > 1) & torch.isfinite(condition)
    return torch.where(is_bad, condition, 0)


# The value of the fact `conditioned` → how κ is measured.
_TESTS: Final[Mapping[str, MatrixTest]] = {
    "inverse": _of_inverse,
    "pseudoinverse": _of_pseudoinverse,
    "cofactors": _of_cofactors,
}
