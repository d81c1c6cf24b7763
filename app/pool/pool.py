"""The pool: which query goes to which worker when, until when, and what becomes of it when a worker dies.

Knows the queue, deadlines, retries and the quarantine. Refuses to know HTTP, processes (the crew's business) and what a query says.

A query is a pure function of its bytes, so it may be computed again: by another worker when its own died, or by an idle one when the
worker that holds it is busy with something long. The first answer counts.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

import orjson

from app.errors import PullbackError
from app.pool import refusals
from app.pool.frames import Buffer, Frame, Kind
from app.pool.job import Job, Reply, meta_of, peek_timeout
from app.pool.quarantine import Quarantine
from app.pool.supervisor import Supervisor
from app.pool.worker_handle import WorkerHandle
from app.settings import Settings

# A worker whose first query is young may be handed small ones in advance, so that it need not wait for us between two.
_DEPTH: Final = 4
_SMALL_BYTES: Final = 64 << 10
_YOUNG_S: Final = 0.003
_TICK_S: Final = 0.005
_ROUND_S: Final = 1.0
# A query that nobody waits for is worth a worker's life only if it goes on for longer than that.
_GRACE_S: Final = 0.02
_LIVES: Final = 2
# A SIGKILL that is not ours says little of the query, unless it had been running for a while.
_INNOCENT_S: Final = 0.1
_TRIES: Final = 6
_SIGKILL: Final = -9


class Pool:
    """The queue in front of the crew.

    Arguments:
        note: called with an event and its facts, for the operator's log.
    """

    def __init__(self, settings: Settings, note: Callable[..., None]) -> None:
        self._settings = settings
        self._note = note
        self._loop = asyncio.get_running_loop()
        self.crew = Supervisor(self._loop, settings, self)
        self._numbers = count(1)
        self._open: dict[int, Job] = {}
        self._waiting: deque[Job] = deque()
        self._idle: list[WorkerHandle] = []
        self._ready: dict[int, WorkerHandle] = {}
        self._held_bytes = 0
        self._earliest = math.inf
        self._ticking = False
        self._abandoned: list[tuple[float, WorkerHandle, Job]] = []
        self._quarantine = Quarantine(settings.quarantine_s)
        self._ever_ready = asyncio.Event()

    # The life of the pool

    def start(self) -> None:
        """Start the nursery and return; queries may come at once and wait."""
        self.crew.start()
        self._loop.call_later(_ROUND_S, self._round)

    async def stop(self) -> None:
        """Drop what is open and leave no process behind."""
        for job in list(self._open.values()):
            self._settle(job, refusals.draining())
        await self.crew.stop()

    def kill(self) -> None:
        """The same at once, without waiting."""
        for job in list(self._open.values()):
            self._settle(job, refusals.draining())
        self.crew.kill()

    async def until_ready(self) -> None:
        """Return when the first worker is ready."""
        await self._ever_ready.wait()

    # What others may read

    @property
    def is_ready(self) -> bool:
        """At least one worker lives whose last probe gradient succeeded."""
        return any(member.probed for member in self._ready.values())

    @property
    def waiting_count(self) -> int:
        """Queries that are not being computed yet."""
        return len(self._open) - (len(self._ready) - len(self._idle))

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that are being read, wait or run."""
        return self._held_bytes

    def states(self) -> dict[str, int]:
        """Workers by state."""
        return {
            "idle": len(self._idle),
            "busy": len(self._ready) - len(self._idle),
            "starting": sum(member.state == "starting" for member in self.crew.members.values()),
        }

    # The way in

    def reserve(self, size: int) -> None:
        """Make room for `size` bytes of a body; `release` them when its reply is out.

        Raises:
            PullbackError: queue_full. A body larger than all the room is let in alone.
        """
        if self._held_bytes and self._held_bytes + size > self._settings.queue_bytes:
            raise refusals.queue_full(
                f"{self._held_bytes} bytes of bodies are held already, of {self._settings.queue_bytes} at most"
            )
        self._held_bytes += size

    def release(self, size: int) -> None:
        self._held_bytes -= size

    def check_room(self) -> None:
        """Raises PullbackError queue_full where one more query may not wait."""
        if self._ready and self._idle:
            return
        if self.waiting_count >= self._settings.queue_length:
            raise refusals.queue_full(f"{self.waiting_count} queries wait already, of {self._settings.queue_length} at most")

    def ask(
        self,
        door: str,
        request_id: str,
        content_type: str | None,
        content_encoding: str | None,
        accept: str | None,
        body: Sequence[Buffer],
        size: int,
    ) -> Job:
        """Have a query answered: its `future` gives a Reply, a PullbackError, or None where it was abandoned.

        Raises:
            PullbackError: worker_crashed, where the same content has just cost two workers.
        """
        now = time.monotonic()
        if self._quarantine.is_used and (left_s := self._quarantine.left_s(body, size, now)):
            raise refusals.worker_crashed(retry_after_s=math.ceil(left_s))
        deadline = now + self._timeout(peek_timeout(body))
        job = Job(
            number=next(self._numbers),
            meta=meta_of(door, request_id, content_type, content_encoding, accept),
            body=body,
            size=size,
            arrived=now,
            deadline=deadline,
            future=self._loop.create_future(),
        )
        self._open[job.number] = job
        if deadline < self._earliest:
            self._earliest = deadline
        if self._idle and not self._waiting:
            self._give(self._idle.pop(), job, now)
        elif not self._waiting and size < _SMALL_BYTES and (member := self._with_room(now)):
            self._give(member, job, now)
        else:
            self._waiting.append(job)
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(_TICK_S, self._tick)
        return job

    def abandon(self, job: Job) -> None:
        """Nobody waits for this query any more: drop it, and stop its computation if that goes on."""
        if job.future.done():
            return
        self._settle(job, None)
        now = time.monotonic()
        for member in list(job.holders):
            if member.head is not job:
                member.cancel(job)
            elif member.place.device == "cpu":
                # A GPU worker takes seconds to replace: there the work is let finish.
                self._abandoned.append((now + _GRACE_S, member, job))
        self._prune()

    def _timeout(self, asked: float | None) -> float:
        """Seconds that a query has, by what it asked for."""
        if asked is None or not asked > 0:
            return min(self._settings.default_deadline_s, self._settings.maximum_deadline_s)
        return min(asked, self._settings.maximum_deadline_s)

    # To workers

    def _give(self, member: WorkerHandle, job: Job, now: float) -> None:
        if not job.begun:
            job.begun = now
        member.give(job, now)

    def _with_room(self, now: float) -> WorkerHandle | None:
        """The ready worker with the shortest line that moves."""
        best, fewest = None, _DEPTH
        for member in self._ready.values():
            if len(member.held) < fewest and now - member.head_since < _YOUNG_S:
                best, fewest = member, len(member.held)
        return best

    def _feed(self, member: WorkerHandle, now: float) -> None:
        """Give a worker its next queries, or find it something to take over, or let it rest."""
        waiting = self._waiting
        while waiting:
            job = waiting[0]
            if member.held and (len(member.held) >= _DEPTH or job.size >= _SMALL_BYTES):
                return
            waiting.popleft()
            self._give(member, job, now)
        if not member.held:
            self._idle.append(member)
            self._relieve(now)

    def _relieve(self, now: float) -> None:
        """Let idle workers take over what waits behind a long query on another."""
        for busy in self._ready.values():
            if not self._idle:
                return
            if len(busy.held) < 2 or now - busy.head_since < _YOUNG_S:
                continue
            for job in list(busy.held.values())[1:]:
                if self._idle and len(job.holders) == 1 and not job.future.done():
                    self._give(self._idle.pop(), job, now)
                    busy.cancel(job)

    # From workers

    def joined(self, member: WorkerHandle) -> None:
        self._ready[member.number] = member
        self._ever_ready.set()
        self._feed(member, time.monotonic())

    def heard(self, member: WorkerHandle, frame: Frame) -> None:
        now = time.monotonic()
        if frame.kind is Kind.REPLY:
            self._answered(member, frame, now)
        elif frame.kind is Kind.DROPPED:
            job = member.done(frame.number, now)
            if job is not None and not job.holders and not job.future.done():
                self._undone(job, now)
            self._feed(member, now)
        elif frame.kind is Kind.DEADLINE and (job := member.held.get(frame.number)):
            job.deadline = job.arrived + self._timeout(frame.seconds)
            self._earliest = min(self._earliest, job.deadline)

    def _answered(self, member: WorkerHandle, frame: Frame, now: float) -> None:
        head_since = member.head_since
        job = member.done(frame.number, now)
        reply = Reply(body=frame.body, **orjson.loads(frame.meta))
        if job is not None:
            if not job.future.done():
                job.begun = max(head_since, job.arrived)
                job.worker = member.index
                self._settle(job, reply)
            for other in job.holders:
                other.cancel(job)
        # After a failed allocation the heap is in pieces; a new process costs less than what would fail in the old one.
        if reply.retire or (reply.labels.get("code") == "out_of_memory" and member.place.device == "cpu"):
            self._retire(member, "retire")
        elif member.state == "ready":
            self._feed(member, now)

    def _undone(self, job: Job, now: float) -> None:
        """Its last holder dropped it: as too late, by the same clock as ours, or for a worker that has died since."""
        if job.deadline <= now:
            self._expire(job)
        else:
            self._waiting.appendleft(job)

    def left(self, member: WorkerHandle) -> None:
        """It died. What it had not begun goes back to the front of the queue at once; what it computed waits for the verdict."""
        self._leave(member)
        self._requeue(list(member.held.values())[1:], member)

    def judged(self, member: WorkerHandle, exit_code: int | None) -> None:
        """How it died decides whether its query is blamed for it."""
        job = member.head
        if job is None:
            return
        member.held.clear()
        job.holders = [other for other in job.holders if other is not member]
        if job.future.done() or job.holders:
            return
        ran_s = time.monotonic() - member.head_since
        guilty = exit_code is not None and (exit_code != _SIGKILL or ran_s > _INNOCENT_S)
        job.tries += 1
        job.lost += guilty
        if job.lost < _LIVES and job.tries < _TRIES:
            self._requeue([job], member)
            return
        self._quarantine.add(job.body, job.size, time.monotonic())
        self._settle(job, refusals.worker_crashed())

    def noted(self, event: str, **facts: Any) -> None:
        self._note(event, **facts)

    def _leave(self, member: WorkerHandle) -> None:
        self._ready.pop(member.number, None)
        if member in self._idle:
            self._idle.remove(member)

    def _retire(self, member: WorkerHandle, reason: str) -> None:
        """Replace a worker of whose first query nobody expects an answer any more."""
        self._leave(member)
        self.crew.replace(member, reason)
        jobs = list(member.held.values())
        member.held.clear()
        self._requeue(jobs, member)

    def _requeue(self, jobs: Sequence[Job], member: WorkerHandle) -> None:
        """Put unanswered jobs of a dead worker back to where they stood: before those that came later."""
        for job in reversed(jobs):
            member.held.pop(job.number, None)
            job.holders = [other for other in job.holders if other is not member]
            if not job.future.done() and not job.holders:
                self._waiting.appendleft(job)
        now = time.monotonic()
        while self._idle and self._waiting:
            self._give(self._idle.pop(), self._waiting.popleft(), now)

    # The end of a query

    def _settle(self, job: Job, result: Reply | PullbackError | None) -> None:
        del self._open[job.number]
        job.future.set_result(result)

    def _expire(self, job: Job) -> None:
        given_s = job.deadline - job.arrived
        self._settle(job, refusals.deadline_exceeded(given_s) if self._ever_ready.is_set() else refusals.starting())
        for member in list(job.holders):
            if member.head is job:
                self._retire(member, "deadline")
            else:
                member.cancel(job)

    def _prune(self) -> None:
        """Forget the bodies of settled jobs that still stand in the queue."""
        if any(job.future.done() for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if not job.future.done())

    # The clock

    def _tick(self) -> None:
        """Every few milliseconds while queries are open: deadlines, clients that have gone, lines that do not move."""
        now = time.monotonic()
        if now >= self._earliest:
            late = [job for job in self._open.values() if job.deadline <= now]
            for job in late:
                if not job.future.done():
                    self._expire(job)
            self._earliest = min((job.deadline for job in self._open.values()), default=math.inf)
            self._prune()
        if self._abandoned:
            self._stop_abandoned(now)
        if self._idle and self._open:
            self._relieve(now)
        if self._open or self._abandoned:
            self._loop.call_later(_TICK_S, self._tick)
        else:
            self._ticking = False

    def _stop_abandoned(self, now: float) -> None:
        due = [entry for entry in self._abandoned if entry[0] <= now]
        self._abandoned = [entry for entry in self._abandoned if entry[0] > now]
        for _, member, job in due:
            if member.state == "ready" and member.head is job:
                self._retire(member, "gone")

    def _round(self) -> None:
        """Every second: workers that hang outside of a query."""
        self.crew.look_after(time.monotonic())
        self._loop.call_later(_ROUND_S, self._round)
