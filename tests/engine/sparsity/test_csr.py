"""Matrices made without scipy's checks are those that scipy makes."""

from __future__ import annotations

import math
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


@pytest.mark.parametrize(
    ("shape", "dims"),
    [((3, 4), (1,)), ((3, 4), (0,)), ((3, 4, 2), (0, 2)), ((2, 3, 4), (1,)), ((5,), (0,)), ((), (0,)), ((0, 3), (0,))],
)
def test_slices_are_the_elements_that_a_sum_adds(shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    numbers = np.arange(1.0, math.prod(shape) + 1).reshape(shape)
    expected = numbers if not shape else numbers.sum(dims)
    members = csr.slices(shape, dims)
    same(members, csr_matrix(members.toarray()))
    assert (members.toarray() @ numbers.reshape(-1) == expected.reshape(-1)).all()


def test_entries_that_are_picked_are_those_of_the_product() -> None:
    chosen = random_matrix((20, 30))
    ascending, mixed = np.arange(30) * 2, RNG.permutation(30)
    identity = csr_matrix((np.ones(30, bool), (np.arange(30), ascending)), shape=(30, 60))
    picked = csr.picked(chosen, ascending, 60)
    assert picked is not None
    same(picked, csr_matrix(chosen @ identity))
    assert csr.picked(chosen, mixed, 60) is None, "not in order"
    assert csr.picked(chosen, np.where(ascending > 40, -1, ascending), 60) is None, "some are none"
