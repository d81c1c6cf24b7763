"""The share of many examples that `make test` asks: every class is in it, and all are asked where all is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.share import ask_whole, is_whole, share

CASES = [(name, size) for name in "abc" for size in range(5)] + [("d", 7)]


@pytest.fixture(params=[False, True])
def whole(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = is_whole()
    ask_whole(request.param)
    yield request.param
    ask_whole(before)


def test_every_class_is_in_it_and_each_begins_elsewhere(whole: bool) -> None:
    chosen = share(CASES, 3, lambda case: case[0])
    if whole:
        assert chosen == CASES
    else:
        assert chosen == [("a", 0), ("a", 3), ("b", 1), ("b", 4), ("c", 2), ("d", 7)]
    assert len(share(CASES, 4)) == (len(CASES) if whole else 4)
