"""A worker handle: the front's side of one worker process: its channel, its pid, and the jobs it holds, in order."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal

import orjson

from app.pool import linux
from app.pool.frames import LARGE_BYTES, Buffer, Frame, Kind, encode
from app.pool.handles.channel import Channel
from app.pool.handles.forkserver_handle import ForkserverHandle
from app.pool.job import Job
from app.pool.slabs.front_bodies import FrontBodies
from app.pool.slabs.staged import StagedBody
from app.pool.worker_slots import WorkerSlot

# Small queries are handed over in advance, so that a worker need not wait for us between two: so many, and where it answers quickly as
# many as take it about so long, so that one wake-up brings several and one takes several back.
_DEPTH: Final = 4
DEPTH_LIMIT: Final = 16
_AHEAD_S: Final = 0.002
# Of the newest answer in the moving mean: after eight answers a tenth of the old pace is left, 0.75^8.
_PACE_WEIGHT: Final = 0.25
# What a new worker does of itself, its memory made its own, takes some 10 ms; a slow machine may need a hundred times as long.
_SETTLED_S: Final = 1.0
# Of CPU time: a query that computes for so long is none that a client waits for by the millisecond.
_GIVES_WAY_AFTER_S: Final = 0.02
# Of CPU time: what has had this is a long query on any machine, and one that is kept from the processor is none; but not for longer than that.
_LONG_S: Final = 0.25
_LONG_LIMIT_S: Final = 10.0

State = Literal["starting", "ready", "dead"]


class WorkerHandle:
    """One worker as the front sees it.

    Attributes:
        index: its slot's place in the list of slots; a replacement takes the same.
        number: names this very process towards the forkserver.
        held: the jobs it has been given and has not answered, in order; the first is the one that it computes.
        head_since: when it began that one, seconds on CLOCK_MONOTONIC.
        pace_s: seconds from one answer to the next, while it holds any; of the last ones, as a moving mean.
        ready_since: when it said that it is ready; 0 = not yet.
        has_answered: it was through with a job.
        probed: when its probe gradient last succeeded; 0 = never.
        probing_since: when it was asked for one that is still out; 0 = none is.
        pid, pidfd: of the process; 0 and None where nobody has told it yet, or the system has none.
        is_light: it is the one for light work.
        is_orphan: the forkserver that forked it is dead; `is_outdated`: and there is another, so that it is to be replaced.
        died_of_one: where it has died: of nothing else than the first of what it held.
        activity: what it did when it was last looked at, unchanged since `activity_since`, in `looks` looks.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        number: int,
        index: int,
        slot: WorkerSlot,
        connection: socket.socket,
        on_frame: Callable[[WorkerHandle, Frame], None],
        on_lost: Callable[[WorkerHandle], None],
        allocate: Callable[[int], memoryview | None],
    ) -> None:
        self.number = number
        self.index = index
        self.state: State = "starting"
        self.held: dict[int, Job] = {}
        self.head_since = 0.0
        self.pace_s = 1.0
        self.started = time.monotonic()
        self.ready_since = 0.0
        self.has_answered = False
        self.probed = 0.0
        self.probing_since = 0.0
        self.pid = 0
        self.pidfd: int | None = None
        self.is_light = False
        self.is_orphan = False
        self.is_outdated = False
        self.activity: linux.Activity | None = None
        self.activity_since = 0.0
        self.looks = 0
        self.died_of_one = True
        self._sent = 0  # the query whose large body went over the socket last
        self._doomed = False
        self._is_lowered = False
        self._watched: tuple[int, float] = (0, 0.0)  # as `computed_s` says: of which query, and from when on
        self._on_frame = on_frame
        self._channel = Channel(loop, connection, self._received, lambda: on_lost(self), allocate)
        self._shared = FrontBodies(slot.slab_bytes, self._channel.send, lambda: bool(self.held))
        # Who is told of a slab that could not be made would take another's descriptor for it.
        self.slot = slot if self._shared.descriptors else replace(slot, slab_bytes=0)

    @property
    def head(self) -> Job | None:
        return next(iter(self.held.values()), None)

    @property
    def may_have_begun(self) -> bool:
        """Whether it may have begun one of the queries that it holds: it says so in its slab, where it has one."""
        begun = self._shared.begun
        return begun is None or begun in self.held

    @property
    def begun(self) -> Job | None:
        """Of the queries that it holds the one that it began last, where it says so; else the first."""
        return self.held.get(self._shared.begun or 0, self.head)

    def may_have_received(self, job: Job) -> bool:
        """It says that it has not begun this one, whose large body went over the socket: those bytes are its own before it begins anything."""
        return job.number == self._sent and self._shared.begun not in (None, job.number)

    def is_settled(self, now: float) -> bool:
        """It has shown that it can be relied on: it has answered, or lived for a while after it was ready."""
        return self.has_answered or (self.ready_since > 0 and now - self.ready_since > _SETTLED_S)

    @property
    def depth(self) -> int:
        """How many small queries it may hold, the one that it computes included."""
        return DEPTH_LIMIT if self.pace_s * DEPTH_LIMIT < _AHEAD_S else _DEPTH

    def fork(self, forkserver: ForkserverHandle, connection: socket.socket) -> None:
        """Have the process forked, with `connection`, which is closed here, as its end of the line.

        Raises:
            OSError: the forkserver is gone, or does not listen.
        """
        try:
            forkserver.fork(self.number, self.slot, [connection.fileno(), *self._shared.descriptors])
        finally:
            connection.close()
            self._shared.handed_over()

    def forked(self, pid: int) -> None:
        """The forkserver has told the pid."""
        self.pid = pid
        self.pidfd = linux.open_pidfd(pid)
        if self._doomed:
            linux.kill(pid, self.pidfd)

    def give(self, job: Job, now: float) -> None:
        if not self.held:
            self.head_since = now
        self.held[job.number] = job
        job.holders.append(self.number)
        span = self._shared.put(job.body, job.size, now)
        if span is None and job.size >= LARGE_BYTES:
            self._sent = job.number
        kind, body = (Kind.QUERY, job.body) if span is None else (Kind.PLACED_QUERY, (span,))
        query = encode(kind, job.number, seconds=job.deadline, meta=job.meta, body=body)
        self._channel.send([*self._shared.read(), *query])

    def stage(self, size: int, come: Sequence[Buffer] = ()) -> StagedBody | None:
        """A place for a body of so many bytes that is still coming, whose first pieces have `come`; None where there is none."""
        return self._shared.stage(size, come)

    @property
    def staged_count(self) -> int:
        """Bodies in its slab, on their way to it."""
        return self._shared.staged_count

    def has(self, job: Job) -> bool:
        """Its body stands in this worker's slab."""
        return self._shared.has(job.body)

    def rehearse(self, meta: bytes, body: bytes) -> None:
        """Have a query computed whose answer nobody wants."""
        self._channel.send(encode(Kind.REHEARSE, meta=meta, body=[body]))

    def cancel(self, job: Job) -> None:
        """Ask for `job` to be dropped; it stays held until the worker says that it was dropped, or answers it."""
        self._channel.send(encode(Kind.CANCEL, job.number))

    def give_way(self, now: float) -> None:
        """Lower its priority until it is through with a long query: what is short is answered beside it sooner."""
        is_long = self.computed_s(now) > _GIVES_WAY_AFTER_S
        if is_long and self.pid and not self._is_lowered:
            self._is_lowered = True
            linux.set_priority(self.pid, lowered=True)

    def computed_s(self, now: float) -> float:
        """CPU time that its first query has taken since this was first asked of it, a few milliseconds after its beginning.

        A query that others keep from the processor is no long one. Where the system does not tell, it is the time since its beginning.
        """
        if (head := self.head) is None:
            return 0.0
        computed_s = linux.computed_s(self.pid) if self.pid else None
        if computed_s is None:
            return now - self.head_since
        if self._watched[0] != head.number:
            self._watched = (head.number, computed_s)
        return computed_s - self._watched[1]

    def is_long(self, now: float) -> bool:
        """Its first query has not only held it for long, but computed for long."""
        return self.computed_s(now) > _LONG_S or now - self.head_since > _LONG_LIMIT_S

    def done(self, number: int, now: float) -> Job | None:
        """The worker is through with a job, by an answer or by dropping it."""
        self.has_answered = True
        was_head = self.head is not None and self.head.number == number
        job = self.held.pop(number, None)
        if was_head:
            self.pace_s += _PACE_WEIGHT * (now - self.head_since - self.pace_s)
            self.head_since = now
            if self._is_lowered:
                self._is_lowered = False
                linux.set_priority(self.pid, lowered=False)
        if job is not None and self.number in job.holders:
            job.holders.remove(self.number)
        return job

    def probe(self, now: float) -> None:
        """Now and then, while it holds no job."""
        self._shared.rest(now)
        self.probing_since = now
        self._channel.send(encode(Kind.PROBE))

    def probe_answered(self, frame: Frame, now: float) -> bool:
        self.probing_since = 0.0
        facts = orjson.loads(frame.meta)
        self._shared.is_shared = facts["slab"]
        good = bool(facts["probe"])
        self.probed = now if good else 0.0
        self.ready_since = self.ready_since or self.probed
        return good

    def kill(self) -> None:
        """SIGKILL: nothing less stops a native loop."""
        self._doomed = True
        self._channel.close()
        if self.pid:
            linux.kill(self.pid, self.pidfd)
        self._shared.drop()

    def _received(self, frame: Frame) -> None:
        opened = self._shared.opened(frame)
        if opened is not None:
            self._on_frame(self, opened)

    def drain(self) -> None:
        """The process is dead: take what it has still said, and hear the end of it now instead of by an event."""
        self._channel.drain()

    def forget(self) -> None:
        """The process is gone and reaped."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
        self.pid = 0
