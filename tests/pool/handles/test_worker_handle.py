"""A worker handle: what the front knows of the query that a worker computes is not touched by what becomes of those behind it."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.pool.handles.worker_handle import WorkerHandle
from app.pool.job import Job, nobody_waits
from app.pool.linux import can_raise_priority
from app.pool.worker_slots import WorkerSlot
from tests.waiting import wait_for


def job(number: int) -> Job:
    return Job(number, "a", b"{}", b"{}", [b"x"], 1, 0.0, 60.0, nobody_waits)


@pytest.fixture
def worker() -> Iterator[WorkerHandle]:
    """A worker at whose other end nobody answers, with 1 to 4, since second 10; its process computes without an end."""
    loop = asyncio.new_event_loop()
    front_end, worker_end = socket.socketpair()
    slot = WorkerSlot("cpu", 1, 1 << 20)
    handle = WorkerHandle(loop, 1, 0, slot, front_end, lambda _, __: None, lambda _: None, lambda _: None)
    with worker_end, subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        handle.forked(process.pid)
        for number in range(1, 5):
            handle.give(job(number), 10.0)
        yield handle
        handle.kill()
        handle.forget()
    loop.close()


def test_what_becomes_of_those_behind_tells_nothing_of_the_first(worker: WorkerHandle) -> None:
    pace_s = worker.pace_s
    for number in (3, 2, 99):
        worker.done(number, 50.0)
    assert (worker.head_since, worker.pace_s) == (10.0, pace_s)
    assert list(worker.held) == [1, 4]
    worker.done(1, 60.0)
    assert worker.head_since == 60.0
    assert worker.pace_s > pace_s


@pytest.mark.skipif(not can_raise_priority(), reason="a lowered priority cannot be raised again here")
def test_it_gives_way_until_it_is_through_with_the_first(worker: WorkerHandle) -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)

    def is_lowered() -> bool:
        worker.give_way(20.0)
        return os.getpriority(os.PRIO_PROCESS, worker.pid) > usual

    wait_for(is_lowered)
    worker.done(2, 20.0)
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) > usual
    worker.done(1, 20.0)
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) == usual


def test_it_is_told_of_no_slab_where_none_could_be_made() -> None:
    loop = asyncio.new_event_loop()
    own_end, other_end = socket.socketpair()
    slot = WorkerSlot("cpu", 1, 1 << 20, slab_bytes=1 << 20)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # the limit is on a descriptor's number
    try:
        handle = WorkerHandle(loop, 1, 0, slot, own_end, lambda _, __: None, lambda _: None, lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert handle.slot == replace(slot, slab_bytes=0)
    handle.kill()
    other_end.close()
    loop.close()
