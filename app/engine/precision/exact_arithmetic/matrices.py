"""Exact products, inverses, solutions and factorisations of matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from torch import Tensor

from app.engine.precision.exact_arithmetic.numbers import MP, Numbers, Rule, as_numbers, divided, log, scalar


def _matmul(func: Any, result: Any, a: Any, b: Any, *_: Any, **__: Any) -> Numbers:
    return np.asarray(np.matmul(as_numbers(a), as_numbers(b)), dtype=object)


def _addmm(func: Any, result: Any, c: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Numbers:
    return np.asarray(scalar(beta) * as_numbers(c) + scalar(alpha) * np.matmul(as_numbers(a), as_numbers(b)), dtype=object)


def _matrices(function: Callable[..., Any], *arrays: Numbers) -> Numbers:
    """`function` of single matrices, over all leading axes."""
    lead = np.broadcast_shapes(*(array.shape[:-2] for array in arrays))
    wide = [np.broadcast_to(array, (*lead, *array.shape[-2:])) for array in arrays]
    rows = [
        np.asarray(function(*(MP.matrix(array[i].tolist()) for array in wide)).tolist(), dtype=object) for i in np.ndindex(lead)
    ]
    return np.asarray(rows, dtype=object).reshape((*lead, *(rows[0].shape if rows else wide[0].shape[-2:])))


def _inverse(func: Any, result: Any, a: Any, *_: Any, **__: Any) -> Any:
    return (_matrices(MP.inverse, as_numbers(a)),)


def _det(func: Any, result: Any, a: Any) -> Any:
    lu = _like(result[1], _numbers_of_both(a), result[2])
    signs = np.rint(np.linalg.det(_permutation(result[2], a.shape[-1]))).astype(int).astype(object)
    return np.asarray(np.prod(np.diagonal(lu, axis1=-2, axis2=-1), axis=-1) * signs, dtype=object), lu


def _slogdet(func: Any, result: Any, a: Any) -> Any:
    lu = _like(result[2], _numbers_of_both(a), result[3])
    sizes = np.abs(np.diagonal(lu, axis1=-2, axis2=-1))
    return None, np.asarray(np.sum(np.frompyfunc(log, 1, 1)(sizes), axis=-1), dtype=object), lu


def _exponential(func: Any, result: Any, a: Any) -> Numbers:
    return _matrices(MP.expm, as_numbers(a))


def _numbers_of_both(a: Any) -> tuple[Numbers, Numbers]:
    numbers = as_numbers(a)
    return numbers, np.swapaxes(numbers, -1, -2)


def _like(lu: Tensor, candidates: tuple[Numbers, Numbers], pivots: Tensor) -> Numbers:
    """The factors of A or of Aᵗ: PyTorch takes whichever LAPACK can read without a copy, so the float64 run decides."""
    factors = [_factors(candidate, pivots) for candidate in candidates]
    plain = lu.cpu().numpy()
    return min(factors, key=lambda rows: float(np.nanmax(np.abs(rows.astype(np.float64) - plain), initial=0.0)))


def _permutation(pivots: Tensor, n: int) -> Any:
    """P of P·A = L·U, as LAPACK's pivots say it (row i was swapped with row pivots[i] − 1)."""
    lead = pivots.shape[:-1]
    out = np.broadcast_to(np.eye(n), (*lead, n, n)).copy()
    swaps = pivots.cpu().numpy() - 1
    for index in np.ndindex(*lead):
        for i, j in enumerate(swaps[index]):
            out[index][[i, j]] = out[index][[j, i]]
    return out


def _factors(a: Numbers, pivots: Tensor) -> Numbers:
    """L and U in one array, with the pivots that the float64 run took."""
    n = a.shape[-1]
    rows = np.matmul(_permutation(pivots, n).astype(int).astype(object), a)
    for index in np.ndindex(a.shape[:-2]):
        m = rows[index]
        for k in range(n):
            for i in range(k + 1, n):
                m[i, k] = divided(m[i, k], m[k, k])
                m[i, k + 1 :] = m[i, k + 1 :] - m[i, k] * m[k, k + 1 :]
    return np.asarray(rows, dtype=object)


def _lu_factor(func: Any, result: Any, a: Any, *_: Any, **__: Any) -> Any:
    return (_factors(as_numbers(a), result[1]),)


def _lu_solve(
    func: Any, result: Any, lu: Any, pivots: Tensor, b: Any, left: bool = True, adjoint: bool = False, **named: Any
) -> Numbers:
    left, adjoint = named.get("left", left), named.get("adjoint", adjoint)
    numbers, n = as_numbers(lu), lu.shape[-1]
    one = np.frompyfunc(MP.mpf, 1, 1)(np.eye(n))
    lower, upper = np.tril(numbers, -1) + one, np.triu(numbers)
    p = np.frompyfunc(MP.mpf, 1, 1)(_permutation(pivots, n))
    a = np.matmul(np.swapaxes(p, -1, -2), np.matmul(lower, upper))
    a = np.swapaxes(a, -1, -2) if adjoint else a
    return _solved(a, as_numbers(b), left)


def _solved(a: Numbers, b: Numbers, left: bool) -> Numbers:
    if left:
        return _matrices(lambda m, r: MP.inverse(m) * r, a, b)
    return np.asarray(np.swapaxes(_solved(np.swapaxes(a, -1, -2), np.swapaxes(b, -1, -2), True), -1, -2), dtype=object)


def _solve(func: Any, result: Any, a: Any, b: Any, *, left: bool = True, **_: Any) -> Any:
    numbers = as_numbers(b)
    vector = numbers.ndim == 1 or numbers.shape == as_numbers(a).shape[:-1]
    solution = _solved(as_numbers(a), numbers[..., None] if vector else numbers, left)
    return (solution[..., 0] if vector else solution), _factors(
        as_numbers(a) if left else np.swapaxes(as_numbers(a), -1, -2), result[2]
    )


def _triangular(
    func: Any, result: Any, a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Numbers:
    numbers = np.triu(as_numbers(a)) if upper else np.tril(as_numbers(a))
    if unitriangular:
        one = np.frompyfunc(MP.mpf, 1, 1)(np.eye(a.shape[-1]))
        numbers = numbers * (1 - one) + one
    return _solved(np.asarray(numbers, dtype=object), as_numbers(b), left)


def _cholesky(func: Any, result: Any, a: Any, *, upper: bool = False, **_: Any) -> Any:
    numbers = as_numbers(a)
    source = np.swapaxes(numbers, -1, -2) if upper else numbers
    factor = _matrices(lambda m: MP.cholesky(_mirrored(m)), source)
    return (np.swapaxes(factor, -1, -2) if upper else factor,)


def _mirrored(m: Any) -> Any:
    """The symmetric matrix whose lower triangle this is: PyTorch reads no more."""
    for i in range(m.rows):
        for j in range(i + 1, m.cols):
            m[i, j] = m[j, i]
    return m


MATRICES: Final[dict[str, Rule]] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), _matmul), **dict.fromkeys(("addmm", "baddbmm", "addmv"), _addmm),
    "linalg_inv_ex": _inverse, "_linalg_det": _det, "_linalg_slogdet": _slogdet, "linalg_matrix_exp": _exponential,
    "linalg_lu_factor_ex": _lu_factor, "linalg_lu_solve": _lu_solve,
    "_linalg_solve_ex": _solve, "linalg_solve_triangular": _triangular, "linalg_cholesky_ex": _cholesky,
}  # fmt: skip
