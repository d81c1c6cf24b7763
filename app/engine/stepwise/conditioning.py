"""Matrices so near to singular ones that a derivative through them keeps less than half of its dtype's digits."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.catalogue.facts import values
from app.engine.stepwise.degenerate_points import MatrixTest, first_argument, measured_steps
from app.engine.stepwise.point import all_finite, name_of, names_called
from app.engine.stepwise.read_triangles import FACTORISING, as_read, distributions, hermitian
from app.engine.tensors import is_differentiable
from app.program.function import Function

# Rounds of the power method for a norm: a lower estimate, of normal matrices of up to 200 rows within a tenth (measured), so that no
# ordinary matrix is called bad.
_ROUNDS: Final = 6
# Rounds of scaling: each halves the exponents that are too large, so that 1e30 is 1.03 then.
_SCALINGS: Final = 12
# Times so much the smallest row, or column, is not below the largest in a matrix that is left as it is; half of float32's digits.
EVEN: Final = 1e3
# What distributions that factorise a matrix are asked, as steps are called.
_ASKING: Final = ("log_prob", "rsample", "entropy", "kl_divergence", *FACTORISING)
# How they name it.
_COVARIANCE, _PRECISION, _TRIANGLES = _NAMES = ("covariance_matrix", "precision_matrix", "scale_tril")


def ill_conditioned_steps(
    function: Function,
    leaves: Mapping[str, Tensor],
    seed: int | None,
    batched: Collection[str] = (),
    wrt: Collection[str] | None = None,
    outputs: Collection[str] | None = None,
) -> list[tuple[fx.Node, float]]:
    """The steps whose matrix has a condition number κ with κ·eps > sqrt(eps), and κ; arguments as of `measured_steps`.

    κ is that of the matrix with rows and columns scaled where scaling changes no digits: diag(1e6, 1, 1e-3) loses none. A derivative
    through an inverse is off by up to κ·eps of itself (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., chapters 7, 9,
    10 and 14; measured beside mpmath, matrices scaled by 1e9 across rows and columns: by 0.01 to 10 times as much).
    """
    tests = {name: _finite(test) for name, test in _tests().items()}  # of exactly singular ones PyTorch has its own words
    return [step for step in measured_steps(tests, function, leaves, seed, batched, wrt, outputs, matrix_of) if step[1] > 0]


def is_singular(node: fx.Node, matrix: Tensor) -> bool:
    """Whether no digit is left of a derivative of the step `node` that divides by the smallest number of its matrix: κ·n·eps > 1."""
    test = _tests().get(name_of(node))
    if test not in _DIVIDING or matrix.ndim < 2 or not matrix.numel() or not is_differentiable(matrix.dtype):
        return False
    if not all_finite(matrix):
        return False
    with torch.no_grad():
        condition = test(node, as_read(node, matrix), None, ()).max()
        return float(condition) * matrix.shape[-1] * torch.finfo(matrix.dtype).eps > 1


def can_be_ill_conditioned(function: Function) -> frozenset[str]:
    """Names of the steps whose matrix decides by its numbers of a word beside the answer."""
    if names_called(function.pattern).isdisjoint(_tests()):
        return frozenset()
    return frozenset(
        name_of(node)
        for node in function.pattern.nodes
        if node.op == "call_function" and name_of(node) in _tests() and matrix_of(node) is not None
    )


def matrix_of(node: fx.Node) -> fx.Node | None:
    """Where the matrix of a step comes from; None where it has none that is inverted or factorised."""
    name = name_of(node)
    if name in _ASKING:
        return _named_matrix(node)[1]
    tensors = [arg for arg in (*node.args, *node.kwargs.values()) if isinstance(arg, fx.Node)]
    if name == "matrix_power":
        exponent = node.args[1] if len(node.args) > 1 else node.kwargs.get("n")
        return tensors[0] if isinstance(exponent, int) and exponent < 0 else None
    if name == "lu_solve":  # the factors stand before their pivots, wherever the right-hand side stands
        pivots = [index for index, tensor in enumerate(tensors) if _is_of_pivots(tensor)]
        return tensors[pivots[0] - 1] if pivots and pivots[0] else None
    if name in ("cholesky_solve", "triangular_solve"):
        return tensors[1] if len(tensors) > 1 else None
    first = first_argument(node)
    return first if isinstance(first, fx.Node) else None


def _is_of_pivots(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype == torch.int32


def _named_matrix(node: fx.Node) -> tuple[str, fx.Node | None]:
    """The matrix that a step which asks a distribution factorises, and its name among that one's options."""
    matrices = (
        (name, matrix)
        for index, arguments, options in distributions(node.args)
        for name, matrix in (*((_COVARIANCE, own) for own in arguments[index : index + 1]), *options)
    )
    named = ((name, own) for name, own in matrices if name in _NAMES and isinstance(own, fx.Node))
    return next(named, (_COVARIANCE, None))


def _of_inverse(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """By the norms of the matrix and, from one factorisation, of its inverse."""
    return _if_bad(_condition(_equilibrated(_square(node, matrix))), matrix)


def _of_symmetric(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """With rows and columns scaled alike, to a diagonal of ones: a Cholesky factor loses digits by that one (Higham, section 10.1)."""
    root = matrix.diagonal(dim1=-2, dim2=-1).abs().sqrt()
    root = torch.where((root > 0) & _is_uneven(root)[..., None], root, 1)
    return _if_bad(_condition(matrix / root[..., :, None] / root[..., None, :]), matrix)


def _of_factor(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """Of what is given by its factors: by a Cholesky factor, or by L and U in one."""
    if name_of(node) == "lu_solve":
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        return _if_bad(_condition(_equilibrated((torch.tril(matrix, -1) + identity) @ torch.triu(matrix))), matrix)
    return _of_symmetric(node, matrix @ matrix.mH, result, passed)


def _of_columns(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """With the columns scaled, which changes R alone."""
    sizes = torch.linalg.vector_norm(matrix, dim=-2)
    sizes = torch.where((sizes > 0) & _is_uneven(sizes)[..., None], sizes, 1)
    singular = torch.linalg.svdvals(matrix / sizes[..., None, :])
    return _if_bad(singular[..., 0] / singular[..., -1], matrix)


def _of_distribution(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """Of a covariance the lower triangle is read; of a precision, which is turned by half a circle before, the upper one."""
    name, _ = _named_matrix(node)
    if name == _TRIANGLES:
        return _of_inverse(node, matrix.tril(), result, passed)
    return _of_symmetric(node, hermitian(matrix, upper=name == _PRECISION), result, passed)


def _square(node: fx.Node, matrix: Tensor) -> Tensor:
    """The matrix that a step inverts: of `tensorinv` and `tensorsolve`, its leading axes against the others."""
    if name_of(node) not in ("tensorinv", "tensorsolve"):
        return matrix
    rows = math.isqrt(matrix.numel())
    return matrix.reshape(rows, rows)


def _equilibrated(square: Tensor) -> Tensor:
    """Rows and columns scaled until none is larger than another (D. Ruiz, RAL-TR-2001-034): what scaling takes away loses no digits."""
    tiny, scaled = torch.finfo(square.dtype).tiny, square
    for _ in range(_SCALINGS):
        size = scaled.abs()
        rows, columns = size.amax(-1, keepdim=True).clamp(min=tiny).sqrt(), size.amax(-2, keepdim=True).clamp(min=tiny).sqrt()
        scaled = scaled / rows / columns
    is_uneven = _is_uneven(square.abs().amax(-1)) | _is_uneven(square.abs().amax(-2))
    return torch.where(is_uneven[..., None, None], scaled, square)


def _is_uneven(sizes: Tensor) -> Tensor:
    """Whether rows (or columns) are of sizes so different that κ is theirs; elsewhere it is told as everybody computes it."""
    is_uneven: Tensor = sizes.amin(-1) * EVEN < sizes.amax(-1)
    return is_uneven


def _condition(square: Tensor) -> Tensor:
    factors, pivots, _ = torch.linalg.lu_factor_ex(square)

    def solved(vectors: Tensor, *, adjoint: bool) -> Tensor:
        solution: Tensor = torch.linalg.lu_solve(factors, pivots, vectors, adjoint=adjoint)
        return solution

    def times(vectors: Tensor, *, adjoint: bool) -> Tensor:
        return (square.mH if adjoint else square) @ vectors

    condition: Tensor = _norm(times, square) * _norm(solved, square)
    return condition


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
    """As it is, for a pseudoinverse of scaled columns is another; where no two entries share a row or a column, all digits are right."""
    sizes = torch.linalg.svdvals(matrix)
    entries = matrix != 0
    shares = (entries.sum(-1).amax(-1) > 1) | (entries.sum(-2).amax(-1) > 1)
    return torch.where(shares, _if_bad(sizes[..., 0] / sizes[..., -1], matrix), 0)


def _of_cofactors(node: fx.Node, matrix: Tensor, result: Any, passed: Collection[fx.Node]) -> Tensor:
    """A determinant's derivative holds no smallest singular value: at a singular matrix it is as good as elsewhere."""
    sizes = torch.linalg.svdvals(_equilibrated(matrix))
    return _if_bad(sizes[..., 0] / sizes[..., max(0, sizes.shape[-1] - 2)], matrix)


def _if_bad(condition: Tensor, matrix: Tensor) -> Tensor:
    """κ where it eats more than half of the digits, else 0; infinity where a pivot is exactly zero, which on another machine is 1e-17."""
    is_bad = ~(condition * torch.finfo(matrix.dtype).eps ** 0.5 <= 1)
    return torch.where(is_bad, condition.nan_to_num(torch.inf, torch.inf), 0)


# Those of what has no derivative at a singular matrix: of the others a determinant has one, and what is degenerate says so itself.
_DIVIDING: Final = (_of_inverse, _of_symmetric, _of_factor, _of_distribution)
# The value of the fact `conditioned` → how κ is measured.
_TESTS: Final[Mapping[str, MatrixTest]] = {
    "inverse": _of_inverse,
    "symmetric": _of_symmetric,
    "factor": _of_factor,
    "columns": _of_columns,
    "pseudoinverse": _of_pseudoinverse,
    "cofactors": _of_cofactors,
}


def _finite(test: MatrixTest) -> MatrixTest:
    return lambda *step: test(*step).nan_to_num(posinf=0.0)


@cache
def _tests() -> Mapping[str, MatrixTest]:
    """Operation → its test."""
    return {name: _TESTS[how] for name, how in values("conditioned").items()} | dict.fromkeys(_ASKING, _of_distribution)
