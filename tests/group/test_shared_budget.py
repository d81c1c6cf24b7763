"""Bytes that several fronts hold against one limit."""

from __future__ import annotations

import pytest

from app.errors import PullbackError
from app.group.board import Board
from app.group.shared_budget import SharedByteBudget
from app.pool.budget import ByteBudget, Unfinished


class Body(Unfinished):
    """One that has not come whole."""

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget = budget
        self._held = size
        budget.begin(self)
        budget.reserve(size, self)

    @property
    def client(self) -> str:
        return "a"

    @property
    def held_bytes(self) -> int:
        return self._held

    def give_way(self) -> None:
        self._budget.release(self._held)
        self._held = 0


def test_what_one_holds_the_other_has_no_room_for() -> None:
    board = Board(2)
    first, second = (SharedByteBudget(1_600_000, board, row) for row in range(2))
    first.reserve(1_000_000)
    assert not second.is_pressed
    second.reserve(400_000)
    assert first.is_pressed
    assert second.is_pressed
    with pytest.raises(PullbackError, match="1400000 bytes"):
        second.reserve(200_000)
    # The last part is for small ones, in whichever front.
    second.reserve(50_000)
    first.release(1_000_000)
    second.reserve(200_000)
    assert (first.held_bytes, second.held_bytes) == (0, 650_000)


def test_a_front_that_has_died_holds_nothing() -> None:
    board = Board(2)
    first, second = (SharedByteBudget(1_600_000, board, row) for row in range(2))
    first.reserve(1_500_000)
    assert not second.has_room(1_000_000)
    board.clear(0)
    assert second.has_room(1_000_000)


def test_an_unfinished_body_gives_way_in_its_own_front() -> None:
    board = Board(2)
    first, second = (SharedByteBudget(1_600_000, board, row) for row in range(2))
    large = Body(first, 1_000_000)
    assert not second.has_room(800_000)
    assert large.held_bytes
    assert first.has_room(800_000)
    assert not large.held_bytes
