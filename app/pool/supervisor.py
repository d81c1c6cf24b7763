"""The crew: keeps the nursery and one worker for each place alive, and says who came and who went.

Knows starting, reaping, back-off and replacement. Refuses to know jobs: what the dead one held is its caller's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Final, Protocol

import orjson

from app.pool import linux as kernel
from app.pool.channel import Channel
from app.pool.environment import environment
from app.pool.frames import Frame, Kind, encode
from app.pool.worker_handle import WorkerHandle
from app.pool.worker_slots import WorkerSlot, places
from app.settings import Settings

# Seconds before the n-th attempt in a row, after workers that died before they were ready (TorchServe's steps).
BACK_OFF_S: Final = (0.0, 0.0, 1.0, 2.0, 3.0, 5.0)
_START_LIMIT_S: Final = 120.0
_PROBE_LIMIT_S: Final = 10.0
_PROBE_EVERY_S: Final = 15.0
# How long the verdict on a death waits for the exit status.
_STATUS_LIMIT_S: Final = 0.25
_STOP_LIMIT_S: Final = 2.0


class Master(Protocol):
    """Who is told of the crew's changes."""

    def joined(self, member: WorkerHandle) -> None:
        """It is ready for jobs."""

    def heard(self, member: WorkerHandle, frame: Frame) -> None:
        """It sent a frame about a job."""

    def left(self, member: WorkerHandle) -> None:
        """It died of itself; a replacement is on its way."""

    def judged(self, member: WorkerHandle, exit_code: int | None) -> None:
        """Later, once: how it died, None where nobody knows (the nursery died with it)."""

    def noted(self, event: str, **facts: Any) -> None:
        """Something that an operator wants to read."""


class Supervisor:
    """The workers of one machine.

    Attributes:
        members: those alive, by their slot.
        restarts: how many were replaced, by reason: crash, deadline, gone, retire, probe, nursery.
        functions: the listing of kept functions as JSON, as the nursery has read them; empty until it is warm.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings, master: Master) -> None:
        self.members: dict[int, WorkerHandle] = {}
        self.restarts: Counter[str] = Counter()
        self.functions = b""
        self._loop = loop
        self._settings = settings
        self._master = master
        self._places: tuple[WorkerSlot, ...] = ()
        self._numbers: Iterator[int] = count(1)
        self._unreaped: dict[int, WorkerHandle] = {}  # every process not yet reaped, by number
        self._unjudged: set[int] = set()
        self._failures: Counter[int] = Counter()  # attempts in a row that failed before ready, by slot
        self._nursery: subprocess.Popen[bytes] | None = None
        self._nursery_failures = 0
        self._line: Channel | None = None
        self._stopping = False

    # The nursery

    def start(self) -> None:
        """Start the nursery; workers follow by themselves as soon as it is warm."""
        ours, theirs = socket.socketpair()
        kernel.enlarge(ours)
        try:
            self._nursery = subprocess.Popen(  # noqa: S603 - our own module, no client's word in it
                [sys.executable, "-m", "app.pool.forkserver", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment(self._settings),
            )
        finally:
            theirs.close()
        self._line = Channel(self._loop, ours, self._nursery_said, self._nursery_lost)

    def _nursery_said(self, frame: Frame) -> None:
        facts = orjson.loads(frame.meta)
        if frame.kind is Kind.HELLO:
            self._warm(facts, bytes(frame.body))
        elif frame.kind is Kind.FORKED and frame.number in self._unreaped:
            self._unreaped[frame.number].born(facts["pid"])
        elif frame.kind is Kind.EXITED and frame.number in self._unreaped:
            self._reaped(self._unreaped.pop(frame.number), facts["code"])

    def _warm(self, facts: Mapping[str, Any], functions: bytes) -> None:
        self.functions = functions
        self._nursery_failures = 0
        if facts["threads"] > 1:
            self._master.noted("the nursery has threads, which do not survive a fork", threads=facts["threads"])
        self._places = places(self._settings, facts["gpus"])
        for index in range(len(self._places)):
            self._spawn(index)

    def _nursery_lost(self) -> None:
        """The nursery died, and its children with it; all of that starts again."""
        if self._stopping:
            return
        if self._nursery is not None:
            self._nursery.kill()
            self._nursery.wait()
        self._master.noted("the nursery died and is started again", code=self._nursery.returncode if self._nursery else None)
        for member in list(self.members.values()):
            self.restarts["nursery"] += 1
            self._depart(member)
        for member in self._unreaped.values():
            self._judge(member, None)
            member.forget()
        self._unreaped.clear()
        self._nursery_failures += 1
        delay = BACK_OFF_S[min(self._nursery_failures, len(BACK_OFF_S) - 1)]
        self._loop.call_later(delay, self._start_again)

    def _start_again(self) -> None:
        if not self._stopping:
            self.start()

    # Workers

    def _spawn(self, index: int) -> None:
        if self._stopping or self._line is None or self._line.closed or index in self.members:
            return
        ours, theirs = socket.socketpair()
        kernel.enlarge(ours)
        kernel.enlarge(theirs)
        number, place = next(self._numbers), self._places[index]
        member = WorkerHandle(self._loop, number, index, place, ours, self._member_said, self._member_lost)
        self.members[index] = self._unreaped[number] = member
        meta = orjson.dumps({"device": place.device, "threads": place.threads, "memory_bytes": place.memory_bytes})
        with theirs, contextlib.suppress(OSError):
            # A nursery that is gone shows as the end of its line; the member is then removed with the others.
            self._line.send_with(encode(Kind.FORK, number, meta=meta), theirs.fileno())

    def _member_said(self, member: WorkerHandle, frame: Frame) -> None:
        if frame.kind is not Kind.READY:
            self._master.heard(member, frame)
            return
        good = member.probe_answered(frame, time.monotonic())
        if not good:
            self._give_up(member)
        elif member.state == "starting":
            member.state = "ready"
            self._failures[member.index] = 0
            self._master.noted("a worker is ready", worker=member.index, start_s=round(member.probed - member.started, 4))
            self._master.joined(member)

    def _member_lost(self, member: WorkerHandle) -> None:
        """Its end of the line is closed: it is dead, or dies now."""
        if self._nursery is not None and self._nursery.poll() is not None:
            self._nursery_lost()
            return
        self.restarts["crash"] += 1
        was_starting = member.state == "starting"
        self._remove(member)
        member.kill()
        self._unjudged.add(member.number)
        self._loop.call_later(_STATUS_LIMIT_S, self._judge, member, None)
        self._master.left(member)
        self._follow(member.index, failed=was_starting)

    def replace(self, member: WorkerHandle, reason: str) -> None:
        """Kill a member and start another in its place at once; the caller deals with the jobs that it held."""
        if member.state == "dead":
            return
        self._remove(member)
        member.kill()
        self.restarts[reason] += 1
        self._follow(member.index, failed=False)

    def _give_up(self, member: WorkerHandle) -> None:
        """It hangs or no longer differentiates, by no query's fault."""
        self.restarts["probe"] += 1
        self._depart(member)
        self._follow(member.index, failed=True)

    def _depart(self, member: WorkerHandle) -> None:
        self._remove(member)
        member.kill()
        self._master.left(member)
        self._master.judged(member, None)

    def _follow(self, index: int, *, failed: bool) -> None:
        delay = 0.0
        if failed:
            delay = BACK_OFF_S[min(self._failures[index], len(BACK_OFF_S) - 1)]
            self._failures[index] += 1
        if delay:
            self._loop.call_later(delay, self._spawn, index)
        else:
            self._spawn(index)

    def _remove(self, member: WorkerHandle) -> None:
        member.state = "dead"
        if self.members.get(member.index) is member:
            del self.members[member.index]

    def _reaped(self, member: WorkerHandle, code: int) -> None:
        member.forget()
        self._judge(member, code)

    def _judge(self, member: WorkerHandle, code: int | None) -> None:
        if member.number in self._unjudged:
            self._unjudged.discard(member.number)
            self._master.noted("a worker died", worker=member.index, code=code)
            self._master.judged(member, code)

    def look_after(self, now: float) -> None:
        """Once in a while: probe who is idle, and replace who hangs outside of a query."""
        for member in list(self.members.values()):
            if member.state == "starting":
                if now - member.started > _START_LIMIT_S:
                    self._give_up(member)
            elif member.probing_since:
                if not member.held and now - member.probing_since > _PROBE_LIMIT_S:
                    self._give_up(member)
            elif not member.held and now - member.probed > _PROBE_EVERY_S:
                member.probe(now)

    # The end

    async def stop(self) -> None:
        """Kill every worker, let the nursery reap them, and wait until it is gone too."""
        self._stopping = True
        for member in list(self.members.values()):
            self._remove(member)
            member.kill()
        if self._nursery is None or self._line is None:
            return
        patience = time.monotonic() + _STOP_LIMIT_S
        while self._unreaped and not self._line.closed and time.monotonic() < patience:
            await asyncio.sleep(0.002)
        self._line.close()
        while self._nursery.poll() is None and time.monotonic() < patience:
            await asyncio.sleep(0.002)
        self._nursery.kill()
        self._nursery.wait()

    def kill(self) -> None:
        """The same at once, without waiting."""
        self._stopping = True
        for member in list(self.members.values()):
            member.kill()
        if self._nursery is not None:
            self._nursery.kill()
