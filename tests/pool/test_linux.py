"""What is asked of Linux: a wait for a socket that stays awake for what comes soon, and for no longer."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from app.pool import linux
from app.pool.linux import AdaptiveWait, can_raise_priority, set_priority, slice_ns
from tests.waiting import HANG_S


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    reading_end, writing_end = socket.socketpair()
    reading_end.settimeout(HANG_S)
    with reading_end, writing_end:
        yield reading_end, writing_end


def readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def later(connection: socket.socket) -> threading.Thread:
    """Sends a byte in a moment."""

    def send() -> None:
        time.sleep(0.02)
        connection.send(b"x")

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_it_sleeps_where_it_does_not_know_that_something_comes_soon(pair: tuple[socket.socket, socket.socket]) -> None:
    reading_end, writing_end = pair
    seen = []

    def receive() -> int:
        seen.append(readable(reading_end))
        return len(reading_end.recv(1))

    thread = later(writing_end)
    assert AdaptiveWait(reading_end).wait(receive) == 1
    assert seen == [False]
    thread.join()


def test_it_stays_awake_where_the_last_came_soon(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linux, "_AWAKE_S", HANG_S)
    monkeypatch.setattr(linux, "_YIELD_S", HANG_S)  # others use this machine too
    reading_end, writing_end = pair
    seen = []

    def receive() -> int:
        seen.append(readable(reading_end))
        return len(reading_end.recv(1))

    wait = AdaptiveWait(reading_end)
    writing_end.send(b"x")
    wait.wait(receive)
    thread = later(writing_end)
    assert wait.wait(receive) == 1
    assert seen == [True, True]
    thread.join()


def test_it_stays_awake_for_a_moment_only(pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_YIELD_S", HANG_S)
    reading_end, writing_end = pair
    wait = AdaptiveWait(reading_end)
    writing_end.send(b"x")
    wait.wait(lambda: len(reading_end.recv(1)))

    def receive() -> int:
        time.sleep(1.0)  # nothing comes for so long
        return len(reading_end.recv(1))

    thread = later(writing_end)
    began = time.process_time()
    assert wait.wait(receive) == 1
    assert time.process_time() - began < 0.5
    thread.join()


def test_it_ends_with_the_other_side(pair: tuple[socket.socket, socket.socket]) -> None:
    reading_end, writing_end = pair
    wait = AdaptiveWait(reading_end)
    writing_end.send(b"x")
    wait.wait(lambda: len(reading_end.recv(1)))
    writing_end.close()
    assert wait.wait(lambda: len(reading_end.recv(1))) == 0


@pytest.mark.skipif(not can_raise_priority(), reason="a lowered priority cannot be raised again here")
def test_a_lowered_priority_is_raised_again() -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            for lowered in (True, False, True):
                set_priority(process.pid, lowered=lowered)
                assert (os.getpriority(os.PRIO_PROCESS, process.pid) > usual) == lowered
        finally:
            process.kill()
    assert os.getpriority(os.PRIO_PROCESS, 0) == usual


@pytest.mark.skipif(not slice_ns(0), reason="the system does not tell how long a slice is")
def test_who_gives_way_has_a_longer_slice_until_then() -> None:
    usual = slice_ns(0)
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            for lowered in (True, False, True):
                set_priority(process.pid, lowered=lowered)
                assert (slice_ns(process.pid) > usual) == lowered
                assert os.sched_getscheduler(process.pid) == os.sched_getscheduler(0)
        finally:
            process.kill()
    assert slice_ns(0) == usual


def test_a_process_that_has_ended_has_no_slice() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert slice_ns(process.pid) == 0
    set_priority(process.pid, lowered=True)


THREADS = """
import sys, threading
born = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(2)]
for thread in born:
    thread.start()
    print(thread.native_id, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(not can_raise_priority(), reason="a lowered priority cannot be raised again here")
def test_it_is_that_of_every_thread_whenever_it_was_born() -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with subprocess.Popen([sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        before = int(process.stdout.readline())
        set_priority(process.pid, lowered=True)
        process.stdin.write(b"\n")
        process.stdin.flush()
        threads = [process.pid, before, int(process.stdout.readline())]
        lowered = [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads]
        set_priority(process.pid, lowered=False)
        raised = [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads]
        process.kill()
    assert min(lowered) > usual
    assert raised == [usual] * 3
