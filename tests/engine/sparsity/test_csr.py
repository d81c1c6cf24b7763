"""Matrices made without scipy's checks are those that scipy makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix, vstack

from app.engine.sparsity import csr

RNG = np.random.default_rng(0)
SHAPES = ((7, 5), (1, 1), (0, 4), (4, 0), (60, 200), (3, 1))


def random_matrix(shape: tuple[int, int]) -> csr.Csr:
    return csr.canonical(csr_matrix(RNG.random(shape) < 0.3))


def same(matrix: csr.Csr, expected: Any) -> None:
    """In all that other code of scipy reads of it."""
    assert matrix.shape == expected.shape
    assert matrix.nnz == expected.nnz
    assert (matrix.toarray() == expected.toarray()).all()
    assert matrix.has_canonical_format
    matrix.check_format(full_check=True)
    checked = csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    assert checked.has_canonical_format, "sorted, without duplicates"


@pytest.mark.parametrize("shape", SHAPES)
def test_union_rows_and_transposition_are_those_of_scipy(shape: tuple[int, int]) -> None:
    one, other = random_matrix(shape), random_matrix(shape)
    same(csr.union(one, other), one + other)
    same(csr.transposed(one), one.T.tocsr())
    same(csr.stacked([one, other, one]), csr_matrix(vstack([one, other, one])))
    numbers = RNG.integers(0, shape[0], 9) if shape[0] else np.empty(0, np.int64)
    same(csr.rows_of(one, numbers), one[numbers])
    start, stop = shape[0] // 3, shape[0] - shape[0] // 4
    same(csr.rows_between(one, start, stop), one[start:stop])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_matrix_of_its_parts_is_that_of_scipy(shape: tuple[int, int]) -> None:
    one = random_matrix(shape)
    same(csr.from_csr(one.indices.astype(np.int64), one.indptr.astype(np.int64), shape), one)
    rows = np.repeat(np.arange(shape[0]), np.diff(one.indptr))
    same(csr.selection(np.tile(rows, 2), np.tile(one.indices, 2), shape), one)
