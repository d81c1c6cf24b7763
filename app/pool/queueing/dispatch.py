"""Dispatch: which waiting query goes to which worker, so that long queries do not keep short ones waiting.

How long a query takes shows only when it runs, so each begins as an ordinary one, and its time decides the rest:

- Clients take turns.
- Where all of several workers have been held for `HEAVY_S` while others wait, the youngest of these queries is stopped, once. It is heavy
  then: heavy queries, begun anew, hold all workers but one at the most.
- One more process, the light worker, is forked when small queries wait while all workers are busy. A query that computes there for
  `SLICE_S` is stopped where others wait, and comes after those that were not; when that has happened `SLICES` times, or it has run for
  `_LONE_S` there, it is left to the other workers. So a small query of any client is answered beside long ones, on one worker too.
  (Multi-level feedback: Corbató et al., AFIPS 1962.) Of one client's, the light worker takes the newest and the oldest by turns: where
  clients share an address, whoever comes now must not wait for all that another has sent at once before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from app.pool import linux
from app.pool.handles.worker_handle import WorkerHandle
from app.pool.job import Job
from app.pool.queueing.quarantine import fingerprint
from app.pool.queueing.turns import Turns
from app.pool.supervisor import Supervisor

SMALL_BYTES: Final = 64 << 10
# What the light worker takes; above, a query's tensors take memory that it does not have.
_LIGHT_BYTES: Final = 256 << 10
# A worker whose first query is young may be handed small ones in advance, so that it need not wait for us between two.
_DEPTH: Final = 4
_YOUNG_S: Final = 0.003
# From this age of the first on, those handed over in advance are taken back, whoever is free.
_STUCK_BEHIND_S: Final = 0.03
# A worker takes some 15 ms to fork: below, waiting is cheaper than another process.
_LIGHT_AFTER_S: Final = 0.03
# When every worker has computed the same for so long, the light one is forked before anybody waits for it.
_ALL_BUSY_S: Final = 0.1
# Of CPU time: a small query or program takes 9 to 26 ms in a process that has computed nothing before. And the longest for it to get that.
SLICE_S: Final = 0.06
_SLICE_LIMIT_S: Final = 0.5
SLICES: Final = 3
_LIGHT_IDLE_S: Final = 10.0
# Where no other waits for it, the light worker is left for this long to one query.
_LONE_S: Final = 2.0
# With the time that a query waits before another is stopped for it, and that of a fork, less than a second.
HEAVY_S: Final = 0.5
_PREEMPT_AFTER_S: Final = 0.25
# Queries that have been long for the light worker and may be sent again; 16 bytes each, and what a dict adds.
_KNOWN_LIMIT: Final = 4096


class Dispatch:
    """The workers that are ready, and the queries that wait for them.

    Attributes:
        ready: workers that can be given queries, by number, the light one included.
        idle: those of them that hold none, without the light one.
        ordinary, heavy: the queries that wait.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.ready: dict[int, WorkerHandle] = {}
        self.idle: list[WorkerHandle] = []
        self.ordinary = Turns()
        self.heavy = Turns()
        self._supervisor = supervisor
        self._light: WorkerHandle | None = None
        self._light_idle_since = math.inf
        self._heavy_is_next = True
        self._newest_is_next = True
        self._light_ticks: tuple[int, int] = (
            0,
            0,
        )  # of the light worker's CPU time, when the query of this number was first seen there
        self._slices_of: dict[bytes, int] = {}  # of queries that were stopped on the light worker, by their marks

    def __len__(self) -> int:
        """Queries that wait."""
        return len(self.ordinary) + len(self.heavy)

    @property
    def regular_count(self) -> int:
        """Ready workers, without the light one."""
        return len(self.ready) - (self._light is not None)

    def holders_of(self, job: Job) -> list[WorkerHandle]:
        """The ready workers that have it."""
        return [self.ready[number] for number in job.holders if number in self.ready]

    # Queries come and go

    def add(self, job: Job, now: float) -> None:
        """Have it computed, at once or when it is its turn."""
        job.queued = now
        if self.idle and not self.ordinary:
            self._give(self.idle.pop(), job, now)
        elif not self and job.size < SMALL_BYTES and (worker := self._with_room(now)):
            self._give(worker, job, now)
        else:
            self.ordinary.append(job)
            if self._light is not None:
                self._feed_light(now)

    def put_back(self, jobs: Iterable[Job], now: float) -> None:
        """They must be computed again, or still: they stand, in this order, before those that came later."""
        for job in reversed(list(jobs)):
            if not job.is_waiting:
                self._turns_of(job).put_back(job)
        self._feed_idle(now)

    def remove(self, job: Job) -> None:
        """Nobody needs it any more."""
        if job.is_waiting:
            self._turns_of(job).remove(job)

    def _turns_of(self, job: Job) -> Turns:
        return self.heavy if job.is_heavy else self.ordinary

    def one_too_many(self, client: str) -> Job | None:
        """The query that should give up its place to one more of `client`: the last of the longest line; None where that is `client`'s."""
        lines = [job for job in (self.ordinary.longest(), self.heavy.longest()) if job is not None]
        last = max(lines, key=lambda job: self._count_of(job.client), default=None)
        return last if last is not None and self._count_of(last.client) > self._count_of(client) + 1 else None

    def _count_of(self, client: str) -> int:
        return self.ordinary.count_of(client) + self.heavy.count_of(client)

    # Workers come and go

    def join(self, worker: WorkerHandle, now: float) -> None:
        self.ready[worker.number] = worker
        if worker.is_light:
            self._light = worker
        self.feed(worker, now)

    def leave(self, worker: WorkerHandle) -> None:
        self.ready.pop(worker.number, None)
        if worker is self._light:
            self._light = None
        if worker in self.idle:
            self.idle.remove(worker)

    def take_from(self, worker: WorkerHandle, jobs: list[Job], now: float) -> None:
        """Put what a dead worker held, and nobody else has, back to where it stood."""
        for job in jobs:
            worker.held.pop(job.number, None)
            job.holders = [number for number in job.holders if number != worker.number]
        self.put_back([job for job in jobs if not job.future.done() and not job.holders], now)

    def replace(self, worker: WorkerHandle, reason: str, now: float) -> None:
        """Stop a worker with all that it computes, and have another in its place."""
        self.leave(worker)
        self._supervisor.replace(worker, reason)
        self.take_from(worker, list(worker.held.values()), now)

    # To workers

    def feed(self, worker: WorkerHandle, now: float) -> None:
        """Give a worker that is through with something its next queries, or find it something to take over, or let it rest."""
        if worker.is_light:
            self._light_idle_since = now
            self._feed_light(now)
            return
        while self and (not worker.held or self._takes_more(worker)):
            job = self.ordinary.pop(_is_small) if worker.held else self._next()
            if job is None:
                break
            self._give(worker, job, now)
        if not worker.held and worker not in self.idle:
            self.idle.append(worker)
            self._relieve(now)

    def _takes_more(self, worker: WorkerHandle) -> bool:
        head = worker.head
        return (
            len(worker.held) < _DEPTH and not self.idle and head is not None and head.size < SMALL_BYTES and not head.is_heavy
        )

    def _feed_idle(self, now: float) -> None:
        while self.idle and self:
            worker = self.idle.pop()
            self.feed(worker, now)
            if not worker.held:
                return

    def _next(self) -> Job | None:
        """What a worker that is free computes next."""
        if not self.heavy:
            return self.ordinary.pop()
        running = sum(worker.head is not None and worker.head.is_heavy for worker in self.ready.values())
        if running < max(1, self.regular_count - 1) and (self._heavy_is_next or not self.ordinary):
            self._heavy_is_next = False
            return self.heavy.pop()
        self._heavy_is_next = True
        return self.ordinary.pop()

    def _give(self, worker: WorkerHandle, job: Job, now: float) -> None:
        if not job.begun:
            job.begun = now
        worker.give(job, now)

    def _with_room(self, now: float) -> WorkerHandle | None:
        """The ready worker with the shortest line that moves."""
        best, fewest = None, _DEPTH
        for worker in self.ready.values():
            if len(worker.held) < fewest and now - worker.head_since < _YOUNG_S and not worker.is_light:
                best, fewest = worker, len(worker.held)
        return best

    def _feed_light(self, now: float) -> None:
        light = self._light
        if light is None or light.held or not self._all_are_stuck(now, _STUCK_BEHIND_S):
            return
        job = self.ordinary.pop(self._is_fresh, last=self._newest_is_next) or self.ordinary.pop(self._fits_light)
        if job is not None:
            self._newest_is_next = not self._newest_is_next
            self._give(light, job, now)

    def _fits_light(self, job: Job) -> bool:
        """It may be a small one, for all that is known."""
        if job.size >= _LIGHT_BYTES:
            return False
        if self._slices_of and not job.slices:
            job.slices = self._slices_of.get(_mark(job), 0)
        return job.slices < SLICES

    def _is_fresh(self, job: Job) -> bool:
        """It fits and was not stopped there yet."""
        return self._fits_light(job) and not job.slices

    # The clock

    def tick(self, now: float) -> None:
        """Every few milliseconds while queries are open."""
        self._take_back(now)
        if self.idle:
            self._feed_idle(now)
            self._relieve(now)
        waits_since = self.ordinary.waits_since()
        if waits_since is not None:
            self._feed_light(now)
            if now - waits_since > _PREEMPT_AFTER_S:
                self._preempt(now)
        if self._light is None and self._is_light_wanted(now, waits_since):
            self._supervisor.want_light()
        self._leave_light(now)

    def round(self, now: float) -> None:
        """Now and then: the light worker goes when it has had nothing to do for a while."""
        light = self._light
        if light is not None and not light.held and now - self._light_idle_since > _LIGHT_IDLE_S:
            self.leave(light)
            self._supervisor.dismiss_light(light)

    def _is_light_wanted(self, now: float, waits_since: float | None) -> bool:
        is_waited_for = waits_since is not None and now - waits_since > _LIGHT_AFTER_S and self.ordinary.has(self._fits_light)
        return bool(self.ready) and self._all_are_stuck(now, _STUCK_BEHIND_S if is_waited_for else _ALL_BUSY_S)

    def _all_are_stuck(self, now: float, age_s: float) -> bool:
        """All workers but the light one have computed the same for so long, so that nothing moves on them."""
        return all(worker.is_light or (worker.held and now - worker.head_since > age_s) for worker in self.ready.values())

    def _relieve(self, now: float) -> None:
        """Let idle workers take over what was handed in advance to one that is busy with its first."""
        for busy in self.ready.values():
            if not self.idle:
                return
            if len(busy.held) > 1 and now - busy.head_since >= _YOUNG_S:
                for job in list(busy.held.values())[1:]:
                    if self.idle and job.holders == [busy.number] and not job.future.done():
                        self._give(self.idle.pop(), job, now)
                        busy.cancel(job)

    def _take_back(self, now: float) -> None:
        for busy in list(self.ready.values()):
            if len(busy.held) > 1 and now - busy.head_since > _STUCK_BEHIND_S:
                behind = [job for job in list(busy.held.values())[1:] if job.holders == [busy.number] and not job.future.done()]
                for job in behind:
                    job.holders.clear()
                    busy.cancel(job)
                self.put_back(behind, now)

    def _leave_light(self, now: float) -> None:
        """Stop on the light worker what takes too long for it."""
        light = self._light
        if light is None or (job := light.head) is None:
            return
        ran_s = now - light.head_since
        if ran_s > _LONE_S:
            job.slices = SLICES
        elif self._has_had_slice(light, job, ran_s) and self.ordinary.has(self._is_fresh):
            job.slices += 1
        else:
            return
        if len(self._slices_of) >= _KNOWN_LIMIT:
            self._slices_of.pop(next(iter(self._slices_of)))
        self._slices_of[_mark(job)] = job.slices
        self._stop(light, job, "slice", now)

    def answered(self, job: Job, ran_s: float) -> None:
        """What was stopped only because the machine was slow then is not held against it."""
        if job.slices and ran_s < SLICE_S:
            self._slices_of.pop(job.mark, None)

    def _has_had_slice(self, light: WorkerHandle, job: Job, ran_s: float) -> bool:
        activity = linux.activity(light.pid)
        ticks = activity.ticks if activity is not None else 0
        if self._light_ticks[0] != job.number:
            self._light_ticks = (job.number, ticks)
        return ran_s > _SLICE_LIMIT_S or linux.seconds_of(ticks - self._light_ticks[1]) >= SLICE_S

    def _preempt(self, now: float) -> None:
        """Long queries hold every worker while others wait: the youngest that is not known as heavy yet gives its worker back."""
        regular = [worker for worker in self.ready.values() if not worker.is_light]
        is_whole = len(regular) == self._supervisor.slot_count
        if not is_whole or len(regular) == 1 or not self._all_are_stuck(now, HEAVY_S):
            return
        heads = [(worker.head_since, worker, worker.head) for worker in regular if worker.head is not None]
        stoppable = [entry for entry in heads if not entry[2].is_heavy and entry[1].slot.device == "cpu"]
        if stoppable:
            _, youngest, job = max(stoppable, key=lambda entry: entry[0])
            job.is_heavy = True
            self._stop(youngest, job, "share", now)

    def _stop(self, worker: WorkerHandle, job: Job, reason: str, now: float) -> None:
        """Stop a query that has had its turn: it waits for the next one, behind its client's others."""
        job.holders.remove(worker.number)
        del worker.held[job.number]
        if not job.holders and not job.future.done():
            self._turns_of(job).append(job)
        self.replace(worker, reason, now)


def _is_small(job: Job) -> bool:
    return job.size < SMALL_BYTES and not job.slices


def _mark(job: Job) -> bytes:
    if not job.mark:
        job.mark = fingerprint(job.asked, job.body)
    return job.mark
