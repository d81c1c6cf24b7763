"""The pool: which query goes to which worker when, until when, and what becomes of it when a worker dies.

Knows the queue, deadlines, retries and the quarantine. Refuses to know HTTP, processes (the supervisor's business) and what a query says.

A query is a pure function of its bytes, so it may be computed again: by another worker when its own died, or by an idle one when the
worker that holds it is busy with something long. The first answer counts.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Final

import orjson

from app.errors import PullbackError
from app.machine.cgroups import OomKills
from app.machine.memory_budget import Machine
from app.pool import refusals
from app.pool.budget import ByteBudget
from app.pool.frames import META_LIMIT_BYTES, Buffer, Frame, Kind
from app.pool.job import Job, WorkerReply, asked_of, meta_of
from app.pool.queueing.quarantine import Quarantine
from app.pool.queueing.timeout import timeout_of
from app.pool.supervisor import Supervisor
from app.pool.worker_handle import WorkerHandle
from app.settings import Settings

# A worker whose first query is young may be handed small ones in advance, so that it need not wait for us between two.
_DEPTH: Final = 4
_SMALL_BYTES: Final = 64 << 10
_YOUNG_S: Final = 0.003
_TICK_S: Final = 0.005
_ROUND_S: Final = 0.25
# A query that nobody waits for is worth a worker's life only if it goes on for longer than that.
_GRACE_S: Final = 0.02
_LIVES: Final = 2
# A SIGKILL that is not ours says little of the query, unless it had been running for a while.
_INNOCENT_S: Final = 0.1
_TRIES: Final = 6
_SIGKILL: Final = -9
# The endpoint whose bodies are queries in the native protocol; of other bodies the worker alone knows what timeout they name.
_QUERY: Final = "query"


class Pool:
    """The queue in front of the workers.

    Arguments:
        note: called with an event and its facts, for the operator's log.
    """

    def __init__(self, settings: Settings, note: Callable[..., None]) -> None:
        self._settings = settings
        self._note = note
        self._loop = asyncio.get_running_loop()
        self.budget = ByteBudget(settings.queue_bytes)
        self.supervisor = Supervisor(self._loop, settings, self, self.budget.memory)
        self._numbers = count(1)
        self._open: dict[int, Job] = {}
        self._waiting: deque[Job] = deque()
        self._idle: list[WorkerHandle] = []
        self._ready: dict[int, WorkerHandle] = {}
        self._earliest = math.inf
        self._ticking = False
        self._abandoned: list[tuple[float, WorkerHandle, Job]] = []
        self._quarantine = Quarantine(settings.quarantine_s)
        self._ever_ready = asyncio.Event()
        self._oom_kills = OomKills()

    # The life of the pool

    def start(self) -> None:
        """Start the forkserver and return; queries may come at once and wait."""
        self.supervisor.start()
        self._loop.call_later(_ROUND_S, self._round)

    async def stop(self) -> None:
        """Drop what is open and leave no process behind."""
        for job in list(self._open.values()):
            self._settle(job, refusals.draining())
        await self.supervisor.stop()

    def kill(self) -> None:
        """The same at once, without waiting."""
        for job in list(self._open.values()):
            self._settle(job, refusals.draining())
        self.supervisor.kill()

    async def until_ready(self) -> None:
        """Return when the first worker is ready."""
        await self._ever_ready.wait()

    # What others may read

    @property
    def is_ready(self) -> bool:
        """At least one worker lives whose last probe gradient succeeded."""
        return any(worker.probed for worker in self._ready.values())

    @property
    def waiting_count(self) -> int:
        """Queries that are not being computed yet."""
        return len(self._open) - (len(self._ready) - len(self._idle))

    def states(self) -> dict[str, int]:
        """Workers by state."""
        return {
            "idle": len(self._idle),
            "busy": len(self._ready) - len(self._idle),
            "starting": sum(worker.state == "starting" for worker in self.supervisor.workers.values()),
        }

    # The way in

    def check_room(self) -> None:
        """Raises PullbackError queue_full where one more query may not wait."""
        if self._ready and self._idle:
            return
        if self.waiting_count >= self._settings.queue_length:
            raise refusals.queue_full(f"{self.waiting_count} queries wait already, of {self._settings.queue_length} at most")

    def ask(
        self,
        endpoint: str,
        request_id: str,
        content_type: str | None,
        content_encoding: str | None,
        accept: str | None,
        body: Sequence[Buffer],
        size: int,
        parameters: Mapping[str, str] | None = None,
    ) -> Job:
        """Have a query answered: its `future` gives a WorkerReply, a PullbackError, or None where it was abandoned.

        Raises:
            PullbackError: worker_crashed, where the same has just cost two workers; headers_too_large, where a worker would not take
                what is said besides the body.
        """
        now = time.monotonic()
        asked = asked_of(endpoint, content_type, content_encoding, accept, parameters)
        meta = meta_of(asked, request_id)
        if len(meta) > META_LIMIT_BYTES:
            raise refusals.headers_too_large(len(meta), META_LIMIT_BYTES)
        if self._quarantine.is_used and (left_s := self._quarantine.left_s(asked, body, size, now)):
            raise refusals.quarantined(math.ceil(left_s))
        is_plain = endpoint == _QUERY and content_encoding is None
        deadline = now + self._timeout(timeout_of(body, size, content_type) if is_plain else None)
        job = Job(
            number=next(self._numbers),
            asked=asked,
            meta=meta,
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
        elif not self._waiting and size < _SMALL_BYTES and (worker := self._with_room(now)):
            self._give(worker, job, now)
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
        for worker in self._holders_of(job):
            if worker.head is not job:
                worker.cancel(job)
            elif worker.slot.device == "cpu":
                # A GPU worker takes seconds to replace: there the work is let finish.
                self._abandoned.append((now + _GRACE_S, worker, job))
        self._prune()

    def _timeout(self, asked: float | None) -> float:
        """Seconds that a query has, by what it asked for."""
        if asked is None or not asked > 0:
            return min(self._settings.default_deadline_s, self._settings.maximum_deadline_s)
        return min(asked, self._settings.maximum_deadline_s)

    # To workers

    def _give(self, worker: WorkerHandle, job: Job, now: float) -> None:
        if not job.begun:
            job.begun = now
        worker.give(job, now)

    def _holders_of(self, job: Job) -> list[WorkerHandle]:
        """The ready workers that have it."""
        return [self._ready[number] for number in job.holders if number in self._ready]

    def _with_room(self, now: float) -> WorkerHandle | None:
        """The ready worker with the shortest line that moves."""
        best, fewest = None, _DEPTH
        for worker in self._ready.values():
            if len(worker.held) < fewest and now - worker.head_since < _YOUNG_S:
                best, fewest = worker, len(worker.held)
        return best

    def _feed(self, worker: WorkerHandle, now: float) -> None:
        """Give a worker its next queries, or find it something to take over, or let it rest."""
        waiting = self._waiting
        while waiting:
            job = waiting[0]
            if worker.held and (len(worker.held) >= _DEPTH or job.size >= _SMALL_BYTES):
                return
            waiting.popleft()
            self._give(worker, job, now)
        if not worker.held:
            self._idle.append(worker)
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

    def on_ready(self, worker: WorkerHandle) -> None:
        self._ready[worker.number] = worker
        self._ever_ready.set()
        self._feed(worker, time.monotonic())

    def on_frame(self, worker: WorkerHandle, frame: Frame) -> None:
        now = time.monotonic()
        if frame.kind is Kind.REPLY:
            self._answered(worker, frame, now)
        elif frame.kind is Kind.DROPPED:
            job = worker.done(frame.number, now)
            if job is not None and not job.holders and not job.future.done():
                self._undone(job, now)
            self._feed(worker, now)
        elif frame.kind is Kind.DEADLINE and (job := worker.held.get(frame.number)):
            job.deadline = job.arrived + self._timeout(frame.seconds)
            self._earliest = min(self._earliest, job.deadline)

    def _answered(self, worker: WorkerHandle, frame: Frame, now: float) -> None:
        head_since = worker.head_since
        job = worker.done(frame.number, now)
        reply = WorkerReply(body=frame.body, **orjson.loads(frame.meta))
        no_room = refusals.reply_without_room(frame.discarded_bytes) if frame.discarded_bytes else None
        if job is not None:
            if not job.future.done():
                job.begun = max(head_since, job.arrived)
                job.worker = worker.index
                self._settle(job, no_room or reply)
            for other in self._holders_of(job):
                other.cancel(job)
        # After a failed allocation the heap is in pieces; a new process costs less than what would fail in the old one.
        if reply.retire or (reply.labels.get("code") == "out_of_memory" and worker.slot.device == "cpu"):
            self._retire(worker, "retire")
        elif worker.is_outdated:
            self._retire(worker, "forkserver")
        elif worker.state == "ready":
            self._feed(worker, now)

    def _undone(self, job: Job, now: float) -> None:
        """Its last holder dropped it: as too late, by the same clock as ours, or for a worker that has died since."""
        if job.deadline <= now:
            self._expire(job)
        else:
            self._waiting.appendleft(job)

    def on_lost(self, worker: WorkerHandle) -> None:
        """It died. What it had not begun goes back to the front of the queue at once; what it computed waits for the verdict."""
        self._leave(worker)
        self._requeue(list(worker.held.values())[1:], worker)

    def on_exit(self, worker: WorkerHandle, exit_code: int | None) -> None:
        """How it died decides whether its query is blamed for it."""
        for_memory = exit_code in (None, _SIGKILL) and self._oom_kills.explain_one()
        job = worker.head
        if job is None:
            return
        worker.held.clear()
        job.holders = [number for number in job.holders if number != worker.number]
        if job.future.done() or job.holders:
            return
        if for_memory:
            self._settle(job, refusals.killed_for_memory(job.size, Machine.here().memory_bytes))
            return
        ran_s = time.monotonic() - worker.head_since
        guilty = exit_code is not None and (exit_code != _SIGKILL or ran_s > _INNOCENT_S)
        job.tries += 1
        job.lost += guilty
        if job.lost < _LIVES and job.tries < _TRIES:
            self._requeue([job], worker)
            return
        self._quarantine.add(job.asked, job.body, job.size, time.monotonic())
        self._settle(job, refusals.worker_crashed())

    def on_event(self, event: str, **facts: Any) -> None:
        self._note(event, **facts)

    def _leave(self, worker: WorkerHandle) -> None:
        self._ready.pop(worker.number, None)
        if worker in self._idle:
            self._idle.remove(worker)

    def _retire(self, worker: WorkerHandle, reason: str) -> None:
        """Replace a worker of whose first query nobody expects an answer any more."""
        self._leave(worker)
        self.supervisor.replace(worker, reason)
        jobs = list(worker.held.values())
        worker.held.clear()
        self._requeue(jobs, worker)

    def _requeue(self, jobs: Sequence[Job], worker: WorkerHandle) -> None:
        """Put unanswered jobs of a dead worker back to where they stood: before those that came later."""
        for job in reversed(jobs):
            worker.held.pop(job.number, None)
            job.holders = [number for number in job.holders if number != worker.number]
            if not job.future.done() and not job.holders:
                self._waiting.appendleft(job)
        now = time.monotonic()
        while self._idle and self._waiting:
            self._give(self._idle.pop(), self._waiting.popleft(), now)

    # The end of a query

    def _settle(self, job: Job, result: WorkerReply | PullbackError | None) -> None:
        del self._open[job.number]
        job.future.set_result(result)
        # Whoever still knows the job, a worker that is to drop it or an error's traceback, must not keep its bytes.
        job.body = ()

    def _expire(self, job: Job) -> None:
        given_s = job.deadline - job.arrived
        self._settle(job, refusals.deadline_exceeded(given_s) if self._ever_ready.is_set() else refusals.starting())
        for worker in self._holders_of(job):
            if worker.head is job:
                self._retire(worker, "deadline")
            else:
                worker.cancel(job)

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
        for _, worker, job in due:
            if worker.state == "ready" and worker.head is job:
                self._retire(worker, "gone")

    def _round(self) -> None:
        """A few times a second: workers and a forkserver that hang or are frozen."""
        self.supervisor.look_after(time.monotonic())
        self._loop.call_later(_ROUND_S, self._round)
