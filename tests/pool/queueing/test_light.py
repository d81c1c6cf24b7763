"""The light worker's choice: who has no worker comes first, newest and oldest by turns, and nothing that was long there before."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from app.pool.frames import Frame
from app.pool.handles.worker_handle import WorkerHandle
from app.pool.job import Job, nobody_waits
from app.pool.queueing.light import LIGHT_BYTES, SLICES, LightWork
from app.pool.queueing.turns import Turns
from app.pool.worker_slots import WorkerSlot

NOBODY: frozenset[str] = frozenset()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def job(loop: asyncio.AbstractEventLoop, name: str, body: bytes = b"", size: int | None = None) -> Job:
    """`a1` is client a's, with number 1; its body is its name, where none is said."""
    body = body or name.encode()
    return Job(int(name[1:]), name[0], b"{}", b"{}", [body], len(body) if size is None else size, 0.0, 60.0, nobody_waits)


def waiting(light: LightWork, jobs: list[Job]) -> Turns:
    turns = Turns()
    for each in jobs:
        light.recall(each)
        turns.append(each)
    return turns


@pytest.fixture
def worker(loop: asyncio.AbstractEventLoop) -> Iterator[WorkerHandle]:
    """A worker at whose other end nobody answers."""

    def frame(_: WorkerHandle, __: Frame) -> None:
        """Nothing comes."""

    front_end, worker_end = socket.socketpair()
    handle = WorkerHandle(loop, 1, 1, WorkerSlot("cpu", 1, 1 << 20), front_end, frame, lambda _: None, lambda _: None)
    with worker_end:
        yield handle
        handle.kill()


def names(light: LightWork, turns: Turns, holding: frozenset[str], count: int) -> list[str]:
    taken = [light.next_of(turns, holding) for _ in range(count)]
    return [f"{each.client}{each.number}" for each in taken if each is not None]


def test_whoever_has_no_worker_comes_first(loop: asyncio.AbstractEventLoop) -> None:
    light = LightWork()
    turns = waiting(light, [job(loop, name) for name in ("a1", "a2", "b3", "b4")])
    assert names(light, turns, frozenset("a"), 2) == ["b4", "b3"]
    assert names(light, turns, frozenset("a"), 3) == ["a2", "a1"]


def test_of_one_client_the_newest_and_the_oldest_come_by_turns(loop: asyncio.AbstractEventLoop) -> None:
    light = LightWork()
    turns = waiting(light, [job(loop, f"a{number}") for number in range(1, 6)])
    assert names(light, turns, NOBODY, 5) == ["a5", "a1", "a4", "a2", "a3"]


def test_whoever_takes_its_place_has_not_rested_yet(worker: WorkerHandle) -> None:
    light = LightWork()
    light.join(worker)
    assert not light.has_rested(100.0)
    assert light.has_rested(200.0)
    light.leave(worker)
    light.join(worker)
    assert not light.has_rested(200.0)
    assert light.has_rested(300.0)


def test_what_is_large_is_never_taken(loop: asyncio.AbstractEventLoop) -> None:
    light = LightWork()
    turns = waiting(light, [job(loop, "a1", size=LIGHT_BYTES), job(loop, "b2", size=LIGHT_BYTES - 1)])
    assert names(light, turns, NOBODY, 2) == ["b2"]
    assert len(turns) == 1


def test_a_client_with_other_workers_makes_way_for_one_that_has_none(
    loop: asyncio.AbstractEventLoop, worker: WorkerHandle
) -> None:
    light = LightWork()
    light.join(worker)
    long = job(loop, "a1")
    now = time.monotonic()
    worker.give(long, now)
    own = waiting(light, [job(loop, "a2")])
    # 40 ms of the clock: a slice is of CPU time, and its process has had none.
    assert light.has_had_its_time(now + 0.04, own, frozenset("a")) is None
    assert light.has_had_its_time(now + 0.04, waiting(light, [job(loop, "b3")]), NOBODY) is None
    assert light.has_had_its_time(now + 0.01, waiting(light, [job(loop, "b3")]), frozenset("a")) is None
    assert light.has_had_its_time(now + 0.04, waiting(light, [job(loop, "b3")]), frozenset("a")) is long
    assert long.slices == 1


def test_what_was_long_there_is_known_when_it_comes_again_and_where_it_waits(
    loop: asyncio.AbstractEventLoop, worker: WorkerHandle
) -> None:
    light = LightWork()
    light.join(worker)
    now = time.monotonic()
    worker.give(job(loop, "a1", b"long"), now)
    turns = waiting(light, [job(loop, "a2", b"long"), job(loop, "a3", b"other")])
    assert light.has_had_its_time(now + 60, turns, NOBODY) is not None
    again = job(loop, "b4", b"long")
    light.recall(again)
    assert again.slices == SLICES
    assert not light.fits(again)
    assert names(light, turns, NOBODY, 2) == ["a3"]
    light.answered(again, 0.001)
    other = job(loop, "b5", b"long")
    light.recall(other)
    assert light.is_fresh(other)


def test_the_standby_takes_the_place_of_the_one_that_leaves(loop: asyncio.AbstractEventLoop, worker: WorkerHandle) -> None:
    light = LightWork()
    front_end, worker_end = socket.socketpair()
    other = WorkerHandle(loop, 2, 2, WorkerSlot("cpu", 1, 1), front_end, lambda _, __: None, lambda _: None, lambda _: None)
    light.join(worker)
    light.join(other)
    assert (light.worker, light.standby) == (worker, other)
    light.leave(worker)
    assert (light.worker, light.standby) == (other, None)
    assert light.is_free(0.0)
    light.leave(other)
    assert light.worker is None
    other.kill()
    worker_end.close()
