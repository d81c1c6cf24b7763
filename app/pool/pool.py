"""The pool: which query goes to which worker when, until when, and what becomes of it when a worker dies.

A query is a pure function of its bytes, so it may be computed again: by another worker when its own died, or by an idle one when the
worker that holds it is busy with something long. The first answer counts.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

import orjson

from app.errors import PullbackError
from app.machine.cgroups import OomKills
from app.machine.memory_budget import Machine
from app.pool import refusals
from app.pool.frames import META_LIMIT_BYTES, Buffer, Frame, Kind
from app.pool.handles.forkserver_process import ForkserverProcess
from app.pool.handles.worker_handle import WorkerHandle
from app.pool.job import Asked, Job, Result, WorkerReply, nobody_waits
from app.pool.queueing.dispatch import Dispatch
from app.pool.queueing.light import SLICES
from app.pool.queueing.quarantine import Quarantine
from app.pool.queueing.rehearsal import Rehearsal
from app.pool.queueing.timeout import timeout_of
from app.pool.queueing.verdict import SIGKILL, Verdict
from app.pool.share import Share
from app.pool.supervisor import Supervisor
from app.settings import Settings

# While queries are open: how late a deadline is noticed; 200 turns of the loop a second take 1 % of a core (measured).
_TICK_S: Final = 0.005
_ROUND_S: Final = 0.25  # a few times a second; a hang is told after seconds (supervisor.py)
_GRACE_S: Final = 0.02  # a query that nobody waits for is worth a worker's life only if it goes on for longer than that
_REHEARSE_S: Final = 0.01  # between two lessons: 64, three times each (rehearsal.py), take two seconds of pauses
_LIVES: Final = 2  # one worker's death may be chance; of two it is guilty, and is refused from then on
_TRIES: Final = 6  # with those that were another's fault: where every tenth costs its worker, one in a million comes so far


class Pool:
    """The queue in front of the workers.

    Arguments:
        note: called with an event and its facts, for the operator's log.
        share: what of the service this front has; all of it where it is the only one.
    """

    def __init__(self, settings: Settings, note: Callable[..., None], share: Share | None = None) -> None:
        self._settings = settings
        self._note = note
        self._loop = asyncio.get_running_loop()
        self.share = share or Share()
        self.budget = self.share.budget(settings.queue_bytes)
        self.supervisor = Supervisor(self._loop, settings, self, self.budget.memory, self.share)
        self._numbers = count(1)
        self._open: dict[int, Job] = {}
        self._dispatch = Dispatch(self.supervisor)
        self.stage = self._dispatch.stage
        self._earliest = math.inf
        self._ticking = False
        self._abandoned: list[tuple[float, WorkerHandle, Job]] = []
        self._quarantine = Quarantine(settings.quarantine_s)
        self._verdict = Verdict()
        self.rehearsal = Rehearsal(self.share.tell_lesson, self.share.tell_deadly_lesson)
        self._rehearses_soon = False
        self._ever_ready = asyncio.Event()
        self._oom_kills = OomKills()

    # The life of the pool

    def start(self, started: ForkserverProcess | None = None) -> None:
        """Start the forkserver where it is not `started`, and return; queries may come at once and wait."""
        self.supervisor.start(started)
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
        return any(worker.probed for worker in self._dispatch.ready.values())

    @property
    def waiting_count(self) -> int:
        """Queries that are not being computed yet."""
        return len(self._open) - sum(bool(worker.held) for worker in self._dispatch.ready.values())

    def states(self) -> dict[str, int]:
        """Workers by state."""
        idle = len(self._dispatch.idle) + self.rehearsal.running_count
        return {
            "idle": idle,
            "busy": self._dispatch.regular_count - idle,
            "starting": sum(worker.state == "starting" for worker in self.supervisor.workers.values()),
            **self._dispatch.light_states(),
        }

    # The way in

    def check_room(self, client: str) -> None:
        """Raises PullbackError queue_full where one more query of this client may not wait: where the queue is full, and mostly his."""
        limit = self._queue_length
        # `waiting_count` takes longer to say than how many are open.
        is_full = len(self._open) >= limit and not self._dispatch.idle and self.waiting_count >= limit
        if not is_full or self._dispatch.one_too_many(client):
            return
        raise self._queue_full()

    def relieve(self, client: str) -> bool:
        """Refuse a query that waits, for one more of this client's: of whoever holds more by bodies that wait; False where nobody does."""
        last = self._dispatch.largest_but(client)
        if last is not None:
            self._settle(last, self._queue_full())
        return last is not None

    def _queue_full(self) -> PullbackError:
        waiting = self.waiting_count + self.share.waiting_elsewhere
        return refusals.queue_full(f"{waiting} queries wait already, of {self._settings.queue_length} at most")

    @property
    def _queue_length(self) -> int:
        """Queries that may wait here, beside those that wait in other fronts."""
        return self._settings.queue_length - self.share.waiting_elsewhere

    def ask(
        self,
        asked: Asked,
        request_id: str,
        body: Sequence[Buffer],
        size: int,
        client: str,
        on_end: Callable[[Result], None],
    ) -> Job:
        """Have a query answered. `on_end` is called with a WorkerReply, a PullbackError, or None where it was abandoned.

        Raises:
            PullbackError: worker_crashed, where the same has just cost two workers; headers_too_large, where a worker would not take
                what is said besides the body.
        """
        now = time.monotonic()
        meta = asked.meta(request_id)
        if len(meta) > META_LIMIT_BYTES:
            raise refusals.headers_too_large(len(meta), META_LIMIT_BYTES)
        if self._quarantine.is_used and (left_s := self._quarantine.left_s(asked.text, body, size, now)):
            raise refusals.quarantined(math.ceil(left_s))
        deadline = now + self._timeout(timeout_of(body, size, asked.content_type) if asked.names_timeout else None)
        job = Job(
            number=next(self._numbers),
            client=client,
            asked=asked.text,
            meta=meta,
            body=body,
            size=size,
            arrived=now,
            deadline=deadline,
            on_end=on_end,
        )
        self._queue(job, now)
        return job

    def _queue(self, job: Job, now: float) -> None:
        self._open[job.number] = job
        self._earliest = min(self._earliest, job.deadline)
        self._dispatch.add(job, now)
        if job.is_waiting:
            limit = self._queue_length
            is_over = len(self._open) > limit and self.waiting_count > limit
            if is_over and (last := self._dispatch.one_too_many(job.client)) is not None:
                self._settle(last, self._queue_full())
            self.share.tell_waiting(self.waiting_count)
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(_TICK_S, self._tick)

    def abandon(self, job: Job) -> None:
        """Nobody waits for this query any more: drop it, and stop its computation if that goes on."""
        if job.is_done:
            return
        self._settle(job, None)
        now = time.monotonic()
        for worker in self._dispatch.holders_of(job):
            if worker.head is not job:
                worker.cancel(job)
            elif worker.slot.device == "cpu":
                # A GPU worker takes seconds to replace: there the work is let finish.
                self._abandoned.append((now + _GRACE_S, worker, job))

    def _timeout(self, asked: float | None) -> float:
        """Seconds that a query has, by what it asked for."""
        if asked is None or not asked > 0:
            return min(self._settings.default_deadline_s, self._settings.maximum_deadline_s)
        return min(asked, self._settings.maximum_deadline_s)

    # From workers

    def on_ready(self, worker: WorkerHandle) -> None:
        self._ever_ready.set()
        self._dispatch.join(worker, time.monotonic())
        self._rehearse_soon()

    def on_frame(self, worker: WorkerHandle, frame: Frame) -> None:
        now = time.monotonic()
        if frame.kind is Kind.REPLY:
            self._answered(worker, frame, now)
        elif frame.kind is Kind.DROPPED:
            job = worker.done(frame.number, now)
            if job is not None and not job.holders and not job.is_done:
                self._undone(job, now)
            if worker.state == "ready":
                self._dispatch.feed(worker, now)
        elif frame.kind is Kind.REHEARSED:
            self.rehearsal.done(worker.number)
            if worker.state == "ready":
                self._dispatch.feed(worker, now)
            self._rehearse_soon()
        elif frame.kind is Kind.DEADLINE and (job := worker.held.get(frame.number)):
            job.deadline = job.arrived + self._timeout(frame.seconds)
            self._earliest = min(self._earliest, job.deadline)

    def _answered(self, worker: WorkerHandle, frame: Frame, now: float) -> None:
        head_since = worker.head_since
        reply = WorkerReply(body=frame.body, **orjson.loads(frame.meta))
        out_of_memory = reply.labels.get("code") == "out_of_memory" and worker.slot.device == "cpu"
        if out_of_memory and worker.is_light and (asked := worker.held.get(frame.number)):
            # There is more memory elsewhere.
            asked.slices = SLICES
            self._dispatch.replace(worker, "retire", now)
            return
        job = worker.done(frame.number, now)
        no_room = refusals.reply_without_room(frame.discarded_bytes) if frame.discarded_bytes else None
        on_end: Callable[[Result], None] = nobody_waits
        if job is not None:
            if not job.is_done:
                job.begun = max(head_since, job.arrived)
                job.worker = self.share.worker_number(worker.index)
                self._dispatch.answered(job, now - head_since)
                if reply.first and self.rehearsal.note(worker.number, job.asked, job.meta, tuple(job.body), reply):
                    self._rehearse_soon()
                on_end = self._close(job)
            for other in self._dispatch.holders_of(job):
                other.cancel(job)
        # After a failed allocation the heap is in pieces; a new process costs less than what would fail in the old one.
        if reply.retire or out_of_memory:
            self._dispatch.replace(worker, "retire", now)
        elif worker.is_outdated:
            self._dispatch.replace(worker, "forkserver", now)
        elif worker.state == "ready":
            self._dispatch.feed(worker, now)
        # Last, as whoever hears it may ask the next at once.
        on_end(no_room or reply)

    def _undone(self, job: Job, now: float) -> None:
        """Its last holder dropped it: as too late, by the same clock as ours, or for a worker that has died since."""
        if job.deadline <= now:
            self._expire(job)
        else:
            self._dispatch.put_back([job], now)

    def on_lost(self, worker: WorkerHandle) -> None:
        """It died. What it had not begun goes back to the front of the queue at once; what it began last waits for the verdict."""
        self.rehearsal.died(worker.number)
        self._dispatch.leave(worker)
        now, begun = time.monotonic(), worker.begun
        worker.died_of_one = worker.may_have_begun and not self._dispatch.isolate(worker, now)
        self._dispatch.take_from(worker, [job for job in worker.held.values() if job is not begun], now)

    def on_exit(self, worker: WorkerHandle, exit_code: int | None) -> None:
        """How it died decides whether its query is blamed for it."""
        for_memory = exit_code in (None, SIGKILL) and self._oom_kills.explain_one()
        job = worker.head
        now = time.monotonic()
        guilty = self._verdict.is_guilty(exit_code, job.number if job is not None else 0, now - worker.head_since, now)
        if job is None:
            return
        worker.held.clear()
        job.holders = [number for number in job.holders if number != worker.number]
        if job.is_done or job.holders or job.is_waiting:
            return
        if for_memory and (worker.died_of_one or worker.may_have_received(job)):
            self._settle(job, refusals.killed_for_memory(job.size, Machine.here().memory_bytes))
            return
        job.tries += 1
        job.lost += guilty and worker.died_of_one
        if job.lost < _LIVES and job.tries < _TRIES:
            self._dispatch.take_from(worker, [job], now)
            return
        if job.lost >= _LIVES:
            self.share.tell_quarantined(self._quarantine.add(job.asked, job.body, job.size, now).hex(), job.size)
        self._settle(job, refusals.worker_crashed() if job.lost >= _LIVES else refusals.workers_lost(job.tries))

    def quarantine(self, mark: str, size: int) -> None:
        """A query of this fingerprint and size has cost two workers of another front."""
        self._quarantine.learn(bytes.fromhex(mark), size, time.monotonic())

    def on_event(self, event: str, **facts: Any) -> None:
        if "worker" in facts:
            facts["worker"] = self.share.worker_number(facts["worker"])
        self._note(event, **facts)

    # The end of a query

    def _settle(self, job: Job, result: PullbackError | None) -> None:
        self._close(job)(result)

    def _close(self, job: Job) -> Callable[[Result], None]:
        """It has ended: nobody need compute it. Returns whom to tell."""
        del self._open[job.number]
        self._dispatch.remove(job)
        on_end = job.on_end
        job.is_done = True
        # Whoever still knows the job, a worker that is to drop it or an error's traceback, must not keep its bytes.
        job.body = ()
        job.on_end = nobody_waits
        return on_end

    def _expire(self, job: Job) -> None:
        timeout_s = job.deadline - job.arrived
        self._settle(job, refusals.deadline_exceeded(timeout_s) if self._ever_ready.is_set() else refusals.starting())
        for worker in self._dispatch.holders_of(job):
            if worker.head is job:
                self._dispatch.replace(worker, "deadline", time.monotonic())
            else:
                worker.cancel(job)

    # The clock

    def _tick(self) -> None:
        """Every few milliseconds while queries are open: deadlines, clients that have gone, lines that do not move."""
        now = time.monotonic()
        if now >= self._earliest:
            late = [job for job in self._open.values() if job.deadline <= now]
            for job in late:
                if not job.is_done:
                    self._expire(job)
            self._earliest = min((job.deadline for job in self._open.values()), default=math.inf)
        if self._abandoned:
            self._stop_abandoned(now)
        self._dispatch.tick(now)
        self.share.tell_waiting(self.waiting_count)
        if self._open or self._abandoned:
            self._loop.call_later(_TICK_S, self._tick)
        else:
            self._ticking = False

    def _stop_abandoned(self, now: float) -> None:
        due = [entry for entry in self._abandoned if entry[0] <= now]
        self._abandoned = [entry for entry in self._abandoned if entry[0] > now]
        for _, worker, job in due:
            if worker.state == "ready" and worker.head is job:
                self._dispatch.replace(worker, "gone", now)

    def _round(self) -> None:
        """A few times a second: workers and a forkserver that hang or are frozen."""
        now = time.monotonic()
        self.supervisor.look_after(now)
        self._dispatch.round(now)
        for number in self.rehearsal.overdue(now):
            if (worker := self._dispatch.ready.get(number)) is not None:
                self._dispatch.replace(worker, "probe", now)
            self.rehearsal.died(number)
        self.rehearsal.keep(self._dispatch.ready.keys())
        self._rehearse_soon()
        self._loop.call_later(_ROUND_S, self._round)

    def _rehearse_soon(self) -> None:
        if not self._rehearses_soon:
            self._rehearses_soon = True
            self._loop.call_later(_REHEARSE_S, self._rehearse)

    def _rehearse(self) -> None:
        """Give a worker that rests what another one had to learn; where none rests now, the next round tries again."""
        self._rehearses_soon = False
        now = time.monotonic()
        for worker in [] if self.rehearsal.running_count else self._dispatch.spare():
            lesson = self.rehearsal.begin(worker.number, now)
            if lesson is not None:
                self._dispatch.idle.remove(worker)
                worker.rehearse(lesson.meta, lesson.body)
                return
