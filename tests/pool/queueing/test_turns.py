"""Turns: every client's queries in their order, and one client after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from app.pool.job import Job, nobody_waits
from app.pool.queueing.turns import Turns


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def jobs(loop: asyncio.AbstractEventLoop, names: str) -> dict[str, Job]:
    """`a1` is client a's, with number 1."""
    return {
        name: Job(int(name[1:]), name[0], b"{}", b"{}", [], 0, float(name[1:]), 60.0, nobody_waits)
        for name in names.split()
    }  # fmt: skip


def filled(loop: asyncio.AbstractEventLoop, names: str) -> tuple[Turns, dict[str, Job]]:
    turns, all_jobs = Turns(), jobs(loop, names)
    for job in all_jobs.values():
        turns.append(job)
    return turns, all_jobs


def taken(turns: Turns) -> str:
    order = []
    while (job := turns.pop()) is not None:
        assert not job.is_waiting
        order.append(f"{job.client}{job.number}")
    assert len(turns) == 0
    return " ".join(order)


@pytest.mark.parametrize(
    ("came", "go"),
    [
        ("", ""),
        ("a1 a2 a3", "a1 a2 a3"),
        ("a1 a2 a3 a4 b5", "a1 b5 a2 a3 a4"),
        ("a1 a2 a3 b4 b5 c6", "a1 b4 c6 a2 b5 a3"),
    ],
)
def test_the_order_of_turns(loop: asyncio.AbstractEventLoop, came: str, go: str) -> None:
    turns, _ = filled(loop, came)
    assert len(turns) == len(came.split())
    assert taken(turns) == go


def test_a_turn_taken_is_not_taken_again_before_the_others(loop: asyncio.AbstractEventLoop) -> None:
    turns, _ = filled(loop, "a1 a2 b3")
    assert turns.pop() is not None
    turns.append(jobs(loop, "a4")["a4"])
    assert taken(turns) == "b3 a2 a4"


def test_what_is_put_back_is_its_clients_next(loop: asyncio.AbstractEventLoop) -> None:
    turns, came = filled(loop, "a1 a2 b3 b4")
    first, second = turns.pop(), turns.pop()
    assert (first, second) == (came["a1"], came["b3"])
    assert second is not None
    turns.put_back(second)
    assert taken(turns) == "a2 b3 b4"


def test_a_client_whose_only_query_is_put_back_has_the_next_turn(loop: asyncio.AbstractEventLoop) -> None:
    turns, came = filled(loop, "a1 b2 b3")
    assert turns.pop() is came["a1"]
    turns.put_back(came["a1"])
    assert taken(turns) == "a1 b2 b3"


def test_those_that_do_not_fit_keep_their_places(loop: asyncio.AbstractEventLoop) -> None:
    turns, came = filled(loop, "a1 a2 b3 b4")
    assert turns.has(lambda job: job.number == 4)
    assert turns.pop(lambda job: job.number in (2, 4)) is came["a2"]
    assert turns.pop(lambda job: job.number in (2, 4)) is came["b4"]
    assert turns.pop(lambda job: job.number in (2, 4)) is None
    assert not turns.has(lambda job: job.number == 4)
    assert taken(turns) == "a1 b3"


def test_some_clients_are_passed_over(loop: asyncio.AbstractEventLoop) -> None:
    turns, came = filled(loop, "a1 a2 b3 b4 c5")
    assert turns.pop(but={"a"}) is came["b3"]
    assert turns.pop(but={"a", "c"}) is came["b4"]
    assert turns.pop(lambda job: job.number < 5, but={"a"}) is None
    assert turns.has(lambda job: job.number == 5, but={"a"})
    assert not turns.has(lambda job: job.number < 5, but={"a"})
    assert list(turns) == [came["a1"], came["a2"], came["c5"]]
    turns.send_behind("a")
    turns.send_behind("b")
    assert taken(turns) == "c5 a1 a2"


def test_lengths(loop: asyncio.AbstractEventLoop) -> None:
    turns, came = filled(loop, "a1 b2 b3 c4")
    assert [turns.count_of(client) for client in "abcd"] == [1, 2, 1, 0]
    assert turns.longest() is came["b3"]
    assert turns.waits_since() == 1.0
    turns.remove(came["a1"])
    turns.remove(came["b2"])
    assert turns.waits_since() == 3.0
    assert taken(turns) == "b3 c4"
    assert turns.longest() is None
    assert turns.waits_since() is None
