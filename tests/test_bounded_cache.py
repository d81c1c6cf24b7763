"""A bounded cache holds no more bytes than it may, and forgets what was used least recently."""

from __future__ import annotations

import random

import pytest

from app.bounded_cache import BoundedCache

LIMIT = 100


def cache(limit_count: int | None = None) -> BoundedCache[str, str]:
    return BoundedCache(LIMIT, len, limit_count)


def test_the_least_recently_used_makes_room() -> None:
    known = cache()
    for key in "abcd":
        known.keep(key, 25 * key)
    assert known["a"] == 25 * "a"
    assert known.get("b") == 25 * "b"
    known.keep("e", 50 * "e")
    assert [key for key in "abcde" if key in known] == ["a", "b", "e"]
    assert known.bytes == LIMIT


def test_what_is_kept_again_counts_once_with_its_new_size() -> None:
    known = cache()
    for key, size in (("a", 40), ("b", 40), ("a", 10), ("a", 30)):
        known.keep(key, size * key)
    assert known.bytes == 70
    known.keep("a", 90 * "a")
    assert ("b" in known, known["a"], known.bytes) == (False, 90 * "a", 90)


def test_what_is_larger_than_the_limit_is_not_kept_and_pushes_nothing_out() -> None:
    known = cache()
    known.keep("a", 60 * "a")
    known.keep("b", 40 * "b")
    known.keep("c", 101 * "c")
    assert (known["a"], known["b"], "c" in known) == (60 * "a", 40 * "b", False)
    known.keep("a", 101 * "a")
    assert ("a" in known, known.bytes) == (False, 40), "it is no longer what was known"


def test_their_number_may_be_bounded_too() -> None:
    known = cache(3)
    for key in "abcd":
        known.keep(key, key)
    known.keep("b", "bb")
    known.keep("e", "e")
    assert sorted(known) == ["b", "d", "e"]


@pytest.mark.parametrize("limit_count", [None, 4])
def test_whatever_is_done_the_bytes_are_those_of_what_is_there(limit_count: int | None) -> None:
    draw, known = random.Random(1), cache(limit_count)
    for _ in range(5000):
        key = draw.choice("abcdefghij")
        if draw.random() < 0.2:
            known.pop(key, None)
        elif draw.random() < 0.3:
            known.get(key)
        else:
            known.keep(key, draw.randrange(130) * key)
        assert known.bytes == sum(map(len, known.values())) <= LIMIT
        assert limit_count is None or len(known) <= limit_count
