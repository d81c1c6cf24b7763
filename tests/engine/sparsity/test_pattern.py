"""Patterns as lines, as matrices and where they would be too long: each operation gives the same entries, or all of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from app.engine.sparsity import csr
from app.engine.sparsity.pattern import Pattern, PatternSpace

RNG = np.random.default_rng(1)
COLUMNS = 12
SPACE = PatternSpace(COLUMNS, 10_000)


def pattern(rows: int, count: int = 2) -> Pattern:
    lines = tuple(RNG.integers(-1, COLUMNS, rows) for _ in range(count))
    return Pattern(rows, None, lines, COLUMNS)


def as_matrix(one: Pattern) -> Pattern:
    return Pattern(one.rows, one.matrix)


def entries(one: Pattern) -> NDArray[np.bool_]:
    dense: NDArray[np.bool_] = np.ones((one.rows, COLUMNS), bool) if one.is_full else one.matrix.toarray()
    return dense


def test_lines_and_matrices_are_combined_to_the_same() -> None:
    one, other, single = pattern(12), pattern(12, 3), SPACE.identity(0, 12)
    numbers, at = RNG.integers(0, 12, 30), (slice(1, 9, 2), slice(None))
    chosen = csr.slices((3, 4), (1,))
    for a, b, c in (
        (one, other, single),
        (as_matrix(one), as_matrix(other), as_matrix(single)),
        (one, as_matrix(other), single),
    ):
        assert (entries(SPACE.union([a, b, a])) == entries(one) | entries(other)).all()
        assert (entries(SPACE.take(a, numbers)) == entries(one)[numbers]).all()
        assert (entries(SPACE.slice(b, 2, 7)) == entries(other)[2:7]).all()
        assert (entries(SPACE.stack([a, SPACE.none(2), b]))[14:] == entries(other)).all()
        for part in (a, c):
            product = chosen.toarray().astype(int) @ entries(part).astype(int) > 0
            assert (entries(SPACE.product(chosen, part)) == product).all()
        assert (entries(SPACE.all_of([a, b])) == (entries(one) | entries(other)).any(0)).all()
        assert (a.between(3, 8).matrix.toarray() == entries(one)[:, 3:8]).all()
        whole = entries(SPACE.placed(a, (4, 3), (10, 3), at)).reshape(10, 3, COLUMNS)
        assert (whole[at] == entries(one).reshape(4, 3, COLUMNS)).all()
        assert whole.sum() == entries(one).sum(), "nothing elsewhere"


def test_a_place_of_another_shape_is_refused() -> None:
    for one in (pattern(12), as_matrix(pattern(12))):
        with pytest.raises(ValueError, match=r"4, 3"):
            SPACE.placed(one, (4, 3), (10, 3), (slice(0, 3),))


def test_what_could_be_too_long_leaves_nothing_out() -> None:
    small = PatternSpace(COLUMNS, 20)
    one, other = pattern(12), pattern(12)
    numbers = np.zeros(100, np.int64)
    for many in (small.union([one, other]), small.take(one, numbers), small.repeated(small.all_of([one]), 12)):
        assert many.is_full
    assert not small.union([SPACE.identity(0, 10), SPACE.identity(0, 10)]).is_full


def test_patterns_that_are_held_at_once_are_counted_together() -> None:
    rows = 1 << 16
    space = PatternSpace(COLUMNS, 2 * rows)
    one = PatternSpace(COLUMNS, 2 * rows).identity(0, COLUMNS)
    numbers = np.zeros(rows, np.int64)
    space.take(one, numbers)
    held = [space.take(one, numbers) for _ in range(9)]
    assert [pattern.is_full for pattern in held] == [False] * 8 + [True], (
        "four times as many as one may have, and what is gone is not counted"
    )
    assert space.held == 8 * rows


def test_what_both_have_is_counted_once() -> None:
    one = SPACE.union([pattern(12, 9), SPACE.identity(0, 12)])
    held = int(entries(one).sum())
    both = PatternSpace(COLUMNS, held).union([as_matrix(one), as_matrix(one).between(0, COLUMNS)])
    assert not both.is_full, "twice as many, were each counted"
    assert (entries(both) == entries(one)).all()
    assert PatternSpace(COLUMNS, held - 1).union([as_matrix(one), as_matrix(one).between(0, COLUMNS)]).is_full
