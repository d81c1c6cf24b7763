"""Spans never overlap, come back, and are the first that fit."""

from __future__ import annotations

from mmap import PAGESIZE

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pool.slabs.first_fit import Spans

SIZE = 64 * PAGESIZE


def test_the_first_that_fits_is_taken() -> None:
    spans = Spans(4 * PAGESIZE)
    assert [spans.take(PAGESIZE), spans.take(PAGESIZE + 1), spans.take(1)] == [0, PAGESIZE, 3 * PAGESIZE]
    assert spans.take(1) is None
    spans.free(PAGESIZE)
    assert spans.take(2 * PAGESIZE + 1) is None
    assert spans.take(5) == PAGESIZE
    for begin in (0, PAGESIZE, 3 * PAGESIZE):
        spans.free(begin)
    assert spans.is_empty
    assert spans.take(4 * PAGESIZE) == 0


def test_what_is_not_taken_cannot_be_freed() -> None:
    spans = Spans(SIZE)
    spans.take(10)
    with pytest.raises(KeyError):
        spans.free(PAGESIZE)


@given(st.lists(st.one_of(st.integers(1, SIZE), st.none()), max_size=60))
def test_none_overlap_and_what_is_refused_has_no_gap(steps: list[int | None]) -> None:
    spans = Spans(SIZE)
    held: dict[int, int] = {}
    for size in steps:
        if size is None:
            if held:
                begin = sorted(held)[len(held) // 2]
                spans.free(begin)
                del held[begin]
            continue
        begin_or_none = spans.take(size)
        taken = sorted((begin, begin + length) for begin, length in held.items())
        edges = [0, *(-(-end // PAGESIZE) * PAGESIZE for _, end in taken)]
        gaps = [(start, stop) for start, stop in zip(edges, [*(begin for begin, _ in taken), SIZE], strict=True)]
        fitting = [start for start, stop in gaps if stop - start >= size]
        assert begin_or_none == (fitting[0] if fitting else None)
        if begin_or_none is not None:
            held[begin_or_none] = size
    assert spans.is_empty == (not held)
