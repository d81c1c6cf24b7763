"""The bytes that the front holds: counted until they are freed, and never more than the limit."""

from __future__ import annotations

import gc

import pytest

from app.errors import PullbackError
from app.pool.budget import SMALL_BYTES, ByteBudget


def test_what_is_reserved_is_held_until_it_is_released() -> None:
    budget = ByteBudget(100)
    budget.reserve(60)
    with pytest.raises(PullbackError, match="60 bytes of bodies and replies are held already, of 100"):
        budget.reserve(41)
    budget.reserve(40)
    assert budget.held_bytes == 100
    budget.release(60)
    assert budget.held_bytes == 40


def test_a_check_reserves_nothing() -> None:
    budget = ByteBudget(100)
    budget.check(100)
    with pytest.raises(PullbackError):
        budget.check(101)
    assert budget.held_bytes == 0


def test_memory_is_held_until_the_last_reference_to_a_part_of_it_goes() -> None:
    """At once, not when a collector comes: the collector is off here."""
    budget = ByteBudget(1000)
    gc.disable()
    try:
        memory = budget.memory(600)
        assert memory is not None
        assert budget.memory(600) is None
        part = memory[10:20]
        del memory
        assert budget.held_bytes == 600
        del part
        assert budget.held_bytes == 0
        assert budget.memory(600) is not None
    finally:
        gc.enable()


def test_one_reply_that_is_larger_than_all_the_room_is_let_in_alone() -> None:
    budget = ByteBudget(100)
    budget.reserve(10)
    large = budget.memory(500)
    assert large is not None
    assert budget.memory(500) is None
    assert budget.memory(1) is None
    del large
    assert budget.held_bytes == 10


def test_memory_that_the_system_does_not_have() -> None:
    budget = ByteBudget(1 << 62)
    assert budget.memory(1 << 61) is None
    assert budget.held_bytes == 0


@pytest.mark.parametrize(("held", "pressed"), [(0, False), (75, False), (76, True), (100, True)])
def test_pressure(held: int, pressed: bool) -> None:
    budget = ByteBudget(100)
    budget.reserve(held)
    assert budget.is_pressed is pressed


class Upload:
    """A body that has come in part."""

    def __init__(self, budget: ByteBudget, client: str) -> None:
        self.budget = budget
        self.client = client
        self.held_bytes = 0
        budget.begin(self)

    def take(self, size: int) -> bool:
        if self.budget.has_room(size, self):
            self.budget.reserve(size, self)
            self.held_bytes += size
            return True
        self.budget.finish(self)
        self.give_way()
        return False

    def give_way(self) -> None:
        self.budget.release(self.held_bytes)
        self.held_bytes = 0


MIB = 1 << 20


def test_bodies_that_come_together_let_the_first_of_them_finish() -> None:
    budget = ByteBudget(16 * MIB)
    uploads = [Upload(budget, "a") for _ in range(10)]
    for upload in uploads:
        upload.take(MIB)
    for _ in range(13):
        for upload in uploads:
            if upload.held_bytes:
                upload.take(MIB)
    assert [upload.held_bytes for upload in uploads] == [14 * MIB] + [0] * 9
    assert budget.held_bytes == 14 * MIB


def test_the_client_with_the_most_unfinished_bodies_gives_way_first() -> None:
    budget = ByteBudget(16 * MIB)
    greedy = [Upload(budget, "a") for _ in range(3)]
    assert all(upload.take(5 * MIB) for upload in greedy)
    modest = Upload(budget, "b")
    budget.check(5 * MIB, "b")
    with pytest.raises(PullbackError):
        budget.check(5 * MIB, "a")
    assert modest.take(5 * MIB)
    assert [upload.held_bytes for upload in greedy] == [5 * MIB, 5 * MIB, 0]
    budget.finish(modest)
    assert Upload(budget, "c").take(5 * MIB)
    assert [upload.held_bytes for upload in greedy] == [5 * MIB, 0, 0]


def test_the_last_part_of_the_room_is_for_small_bodies() -> None:
    budget = ByteBudget(160 * MIB)
    assert budget.memory(151 * MIB) is None
    large = budget.memory(150 * MIB)
    assert large is not None
    small = [Upload(budget, "a") for _ in range(100)]
    assert all(upload.take(SMALL_BYTES - 1) for upload in small)
    assert not small[0].take(1)
