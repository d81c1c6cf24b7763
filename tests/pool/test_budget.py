"""The bytes that the front holds: counted until they are freed, and never more than the limit."""

from __future__ import annotations

import gc

import pytest

from app.errors import PullbackError
from app.pool.budget import ByteBudget


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
