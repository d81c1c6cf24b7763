"""Lines hold what the matrices hold that are made of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from app.engine.sparsity import ellpack
from app.engine.sparsity.ellpack import LINES_AT_MOST, Lines
from tests.engine.sparsity.test_csr import same

RNG = np.random.default_rng(0)
COLUMNS = 9


def random_lines(rows: int, count: int) -> Lines:
    return tuple(RNG.integers(-1, COLUMNS, rows).astype(np.int32) for _ in range(count))


def dense(lines: Lines, rows: int) -> NDArray[np.bool_]:
    matrix = np.zeros((rows, COLUMNS), bool)
    for line in lines:
        there = line >= 0
        matrix[np.flatnonzero(there), line[there]] = True
    return matrix


@pytest.mark.parametrize("rows", [0, 1, 40])
@pytest.mark.parametrize("count", range(LINES_AT_MOST + 1))
def test_a_matrix_has_each_entry_once_and_in_order(rows: int, count: int) -> None:
    lines = random_lines(rows, count)
    matrix = ellpack.matrix_of(lines, rows, COLUMNS)
    same(matrix, matrix.tocoo().tocsr())
    assert (matrix.toarray() == dense(lines, rows)).all()


def test_a_union_has_the_entries_of_either_and_says_where_they_are_too_many_lines() -> None:
    one, other = random_lines(40, 3), random_lines(40, 3)
    union = ellpack.united(one, (*other, one[0], one[1].copy()))
    assert union is not None
    assert len(union) == 6, "lines that hold the same are one"
    assert (dense(union, 40) == dense(one, 40) | dense(other, 40)).all()
    assert ellpack.united(one, random_lines(40, LINES_AT_MOST - 2)) is None
    assert ellpack.united((), one) == one
    assert ellpack.united(one, ()) == one


def test_rows_are_taken_and_stacked_as_those_of_a_matrix_are() -> None:
    one, other = random_lines(40, 2), random_lines(7, 3)
    numbers = RNG.integers(0, 40, 60)
    assert (dense(ellpack.taken(one, numbers), 60) == dense(one, 40)[numbers]).all()
    together = ellpack.stacked([(40, one), (1, ()), (7, other)])
    expected = np.concatenate([dense(one, 40), np.zeros((1, COLUMNS), bool), dense(other, 7)])
    assert (dense(together, 48) == expected).all()
