"""Colourings are proper on every pattern, and reach the lower bound on bands, stencils and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix, identity, kron

from app.engine.sparsity.coloring import color_columns
from app.engine.sparsity.compression import ClashError, Compression, _Groups, _located, compress
from app.engine.sparsity.csr import Csr


def band(n: int, offsets: tuple[int, ...], ring: bool = False) -> Csr:
    rows = np.repeat(np.arange(n), len(offsets))
    columns = rows + np.tile(offsets, n)
    inside = np.ones(len(rows), bool) if ring else (columns >= 0) & (columns < n)
    matrix = csr_matrix((np.ones(int(inside.sum()), bool), (rows[inside], columns[inside] % n)), shape=(n, n))
    matrix.sort_indices()
    return matrix


def stencil(n: int, ring: bool = False) -> Csr:
    eye, line = identity(n, dtype=bool, format="csr"), band(n, (-1, 0, 1), ring)
    return csr_matrix((kron(eye, line) + kron(line, eye)).astype(bool))


def random_pattern(n: int, each: int, seed: int = 0) -> Csr:
    columns = np.random.default_rng(seed).integers(0, n, n * each)
    matrix = csr_matrix((np.ones(n * each, bool), (np.repeat(np.arange(n), each), columns)), shape=(n, n))
    matrix.sum_duplicates()
    return matrix


def all_pairs(n: int) -> Csr:
    """A row for each pair of columns: no two may share a colour."""
    first, second = np.triu_indices(n, 1)
    rows = np.repeat(np.arange(len(first)), 2)
    return csr_matrix((np.ones(len(rows), bool), (rows, np.stack([first, second], 1).reshape(-1))), shape=(len(first), n))


def pairs_of_a_grid(n: int) -> Csr:
    """Columns (i, j), i and j below n, and a row for each i and each j: all of a row or column of the grid differ."""
    i, j = np.indices((n, n)).reshape(2, -1)
    rows = np.concatenate([i, j])
    return csr_matrix((np.ones(len(rows), bool), (rows, np.tile(np.arange(n * n), 2))), shape=(n, n * n))


def ring(n: int, reach: int) -> Csr:
    """Each row has its own column and `reach` on both sides of it, round the ends."""
    return csr_matrix(sum(np.roll(np.eye(n, dtype=int), k, 1) for k in range(-reach, reach + 1))).astype(bool)


@pytest.mark.parametrize(
    ("pattern", "shape", "colors"),
    [
        (band(1000, (-1, 0, 1)), (1000,), 3),
        (band(999, (-1, 0, 1), ring=True), (999,), 3),
        (band(1000, (-1, 0, 1), ring=True), (1000,), 4),
        (band(1001, (-1, 0, 1), ring=True), (1001,), 5),
        (band(1000, (-2, -1, 0, 1, 2)), (1000,), 5),
        (band(1000, (0, 7)), (1000,), 3),
        (stencil(30), (30, 30), 5),
        (stencil(30, ring=True), (30, 30), 5),
        (stencil(31, ring=True), (31, 31), 9),
        (csr_matrix(kron(identity(50), np.ones((6, 6)))).astype(bool), (50, 6), 6),
        (csr_matrix(kron(np.ones((6, 6)), identity(50))).astype(bool), (6, 50), 6),
        (random_pattern(2000, 4), (2000,), 12),
        (random_pattern(3000, 30), (3000,), 600),
        (pairs_of_a_grid(40), (40, 40), 90),
        (band(20_000, (0, 5, -7)), (20_000,), 8),
        (band(20_000, (0, 5, -7, 30, 61, 110)), (20_000,), 20),
        *((ring(n, 1), (n,), 4) for n in (7, 8, 10, 11, 50, 2000, 2002)),
        *((ring(n, 2), (n,), 6) for n in (16, 17, 101, 2001)),
        (csr_matrix((5, 7), dtype=bool), (7,), 1),
        (csr_matrix((0, 0), dtype=bool), (0,), 1),
        (csr_matrix(np.ones((3, 4), bool)), (2, 2), 4),
        (all_pairs(150), (150,), 150),
    ],
)
def test_no_row_has_two_columns_of_one_color(pattern: Csr, shape: tuple[int, ...], colors: int) -> None:
    colors_of = color_columns(pattern, shape)
    assert len(colors_of) == pattern.shape[1]
    assert int(colors_of.max(initial=0)) + 1 <= colors
    rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
    assert len(set(zip(rows.tolist(), colors_of[pattern.indices].tolist(), strict=True))) == pattern.nnz


def read(compression: Compression, matrix: Any) -> Any:
    """The entries as the passes of `matrix` give them."""
    rows, columns = compression.row_groups.numpy(), compression.column_groups.numpy()
    by_rows = [matrix[rows == group].sum(0) for group in range(compression.row_passes)]
    by_columns = [matrix[:, columns == group].sum(1) for group in range(compression.column_passes)]
    return np.concatenate([*by_rows, *by_columns, np.zeros(0)])[compression.positions.numpy()]


def arrow(n: int) -> Csr:
    matrix = np.eye(n, dtype=bool)
    matrix[0], matrix[:, 0] = True, True
    return csr_matrix(matrix)


def dense_row(n: int) -> Csr:
    matrix = np.eye(n, dtype=bool)
    matrix[n // 2] = True
    return csr_matrix(matrix)


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize(
    ("pattern", "symmetric", "passes"),
    [
        (band(60, (-1, 0, 1)), False, 3),
        (dense_row(60), False, 2),
        (dense_row(60).T.tocsr(), False, 2),
        (arrow(60), True, 2),
        (arrow(60), False, 60),
        (random_pattern(60, 3), False, 14),
        (csr_matrix(np.ones((4, 9), bool)), False, 9),
        (csr_matrix(np.ones((9, 4), bool)), False, 9),
        (csr_matrix((4, 4), dtype=bool), False, 1),
    ],
)
def test_the_entries_are_those_of_the_matrix(pattern: Csr, symmetric: bool, passes: int, forward: bool) -> None:
    matrix = pattern.toarray() * np.random.default_rng(0).standard_normal(pattern.shape)
    matrix = matrix + matrix.T if symmetric else matrix
    m, n = pattern.shape
    pattern.sort_indices()
    compression = compress(pattern, (m,), (n,), forward=forward, symmetric=symmetric)
    rows = np.repeat(np.arange(m), np.diff(pattern.indptr))
    np.testing.assert_allclose(read(compression, matrix), matrix[rows, pattern.indices])
    if forward or symmetric:
        assert compression.passes <= passes


def test_a_colouring_that_clashes_is_refused() -> None:
    groups = _Groups(np.zeros(5, np.int64), np.full(5, -1), by_rows=True, mirrored=np.empty(0, np.int64))
    with pytest.raises(ClashError):
        _located(band(5, (-1, 0, 1)), groups)
