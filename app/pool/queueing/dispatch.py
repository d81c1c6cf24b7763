"""Dispatch: which waiting query goes to which worker, so that long queries do not keep short ones waiting.

How long a query takes shows only when it runs, so each begins as an ordinary one, and its time decides the rest:

- Clients take turns.
- Where all of several workers have been held for `HEAVY_S` while others wait, the youngest that computes is stopped, once. It is heavy
  then: heavy queries, begun anew, hold all workers but one at the most.
- A single worker is shared in time, and so are the workers that heavy queries may hold: a query that has computed there for `HEAVY_S` is
  stopped where a client waits who has none of them, and has twice the time at each next try, so that it ends.
- One more process, the light worker, is forked when small queries wait while all workers are busy. A query that computes there for
  `SLICE_S` is stopped where others wait, sooner where its client has other workers too and who waits has none, and comes after those
  that were not; when that has happened `SLICES` times, it is left to the other workers. So a small query of any client is answered
  beside long ones, on one worker too. (Multi-level feedback: Corbató et al., AFIPS 1962.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from app.pool.budget import SMALL_BYTES
from app.pool.frames import Buffer
from app.pool.handles.worker_handle import DEPTH_LIMIT, WorkerHandle
from app.pool.job import Job
from app.pool.queueing.light import LightWork
from app.pool.queueing.preemption import HEAVY_S, can_begin_anew, oldest_through, youngest_long
from app.pool.queueing.turns import Turns, largest, last_of_the_longest
from app.pool.slabs.staged import StagedBody
from app.pool.supervisor import Supervisor

# A worker whose first query is young may be handed small ones in advance.
_YOUNG_S: Final = 0.003
# A worker may compute small queries together, and hold back answers for each other; for no longer than that, by far, on a slow machine too.
_TOGETHER_S: Final = 1.0
# From this age of the first on, those handed over in advance are taken back, whoever is free.
_STUCK_BEHIND_S: Final = 0.03
# What goes behind no other (it is large, heavy, or computed alone) waits so long; then the lines of small ones are let run out for it.
_DRAIN_AFTER_S: Final = 0.01
# A worker takes some 15 ms to fork: below, waiting is cheaper than another process.
_LIGHT_AFTER_S: Final = 0.03
# When every worker has computed the same for so long, the light one is forked before anybody waits for it.
_ALL_BUSY_S: Final = 0.1
_PREEMPT_AFTER_S: Final = 0.25  # with `HEAVY_S` and the time of a fork, less than a second


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
        self._light = LightWork()
        self._alone: set[int] = set()  # numbers of queries that are computed with no other behind them
        self._drains = False  # something waits that only a worker without others can be given
        self._heavy_is_next = True

    def __len__(self) -> int:
        """Queries that wait."""
        return len(self.ordinary) + len(self.heavy)

    @property
    def regular_count(self) -> int:
        """Ready workers, without the light one."""
        return len(self._regular())

    def _regular(self) -> list[WorkerHandle]:
        return [worker for worker in self.ready.values() if not worker.is_light]

    def light_states(self) -> dict[str, int]:
        """The light worker and its standby, where they are ready."""
        return {"light": int(self._light.worker is not None), "standby": int(self._light.standby is not None)}

    @property
    def holding(self) -> frozenset[str]:
        """The clients whose queries the workers compute, the light one left out."""
        return frozenset(
            worker.head.client for worker in self.ready.values() if not worker.is_light and worker.head is not None
        )

    def holders_of(self, job: Job) -> list[WorkerHandle]:
        """The ready workers that have it, or may have begun it although it was taken back."""
        return [worker for worker in self.ready.values() if job.number in worker.held]

    # Queries come and go

    def add(self, job: Job, now: float) -> None:
        """Have it computed, at once or when it is its turn."""
        job.queued = now
        if self.idle and not self.ordinary:
            idle = next((worker for worker in self.idle if worker.has(job)), self.idle[-1])
            self.idle.remove(idle)
            self._give(idle, job, now)
        elif not self and job.size < SMALL_BYTES and (worker := self._with_room(now)):
            self._give(worker, job, now)
        else:
            self._light.recall(job)
            self.ordinary.append(job)
            self._feed_behind(job, now)
            self._feed_light(now)

    def _feed_behind(self, job: Job, now: float) -> None:
        """Give a large query in advance to the worker where its body stands, if that computes another, and it is next."""
        for worker in self.ready.values() if job.size >= SMALL_BYTES else ():
            head = worker.head
            is_young = head is not None and head.size >= SMALL_BYTES and now - worker.head_since < _STUCK_BEHIND_S
            if is_young and not worker.is_light and worker.has(job):
                self.feed(worker, now)

    def put_back(self, jobs: Iterable[Job], now: float) -> None:
        """They must be computed again, or still: they stand, in this order, before those that came later."""
        for job in reversed(list(jobs)):
            if not job.is_waiting:
                self._light.recall(job)
                self._turns_of(job).put_back(job)
        self._feed_idle(now)

    def remove(self, job: Job) -> None:
        """Nobody needs it any more."""
        self._alone.discard(job.number)
        if job.is_waiting:
            self._turns_of(job).remove(job)

    def _turns_of(self, job: Job) -> Turns:
        return self.heavy if job.is_heavy else self.ordinary

    def one_too_many(self, client: str) -> Job | None:
        """The query that should give up its place to one more of `client`: the last of the longest line; None where that is `client`'s."""
        return last_of_the_longest((self.ordinary, self.heavy), but=client)

    def largest_but(self, client: str) -> Job | None:
        """The largest query that waits, of the client whose bodies are the most bytes; None where these are `client`'s, or none wait."""
        return largest((self.ordinary, self.heavy), but=client)

    def stage(self, size: int, come: Sequence[Buffer] = ()) -> StagedBody | None:
        """A place for a body whose first pieces have `come`, at who will probably compute it: who rests, or has fewest such bodies."""
        workers = self.idle or self._regular()
        worker = min(workers, key=lambda worker: worker.staged_count, default=None)
        return None if worker is None else worker.stage(size, come)

    # Workers come and go

    def join(self, worker: WorkerHandle, now: float) -> None:
        self.ready[worker.number] = worker
        if worker.is_light:
            self._light.join(worker)
            self._supervisor.want_light(standby=True)
        self.feed(worker, now)

    def leave(self, worker: WorkerHandle) -> None:
        self.ready.pop(worker.number, None)
        self._light.leave(worker)
        if worker in self.idle:
            self.idle.remove(worker)

    def isolate(self, worker: WorkerHandle, now: float) -> bool:
        """Whether a worker that died may have begun several queries, together or before we heard of the first, so that nobody knows which it was.

        Then each of them is computed alone: the one that kills is found by that.
        """
        if len(worker.held) <= 1 or now - worker.head_since > _TOGETHER_S:
            return False
        self._alone.update(number for number, job in worker.held.items() if job.body)  # one that has ended has none any more
        return True

    def take_from(self, worker: WorkerHandle, jobs: list[Job], now: float) -> None:
        """Put what a dead worker held, and nobody else has, back to where it stood."""
        for job in jobs:
            worker.held.pop(job.number, None)
            job.holders = [number for number in job.holders if number != worker.number]
        self.put_back([job for job in jobs if not job.is_done and not job.holders], now)

    def replace(self, worker: WorkerHandle, reason: str, now: float) -> None:
        """Stop a worker with all that it computes, and have another in its place."""
        self.leave(worker)
        self._supervisor.replace(worker, reason)
        self.take_from(worker, list(worker.held.values()), now)

    # To workers

    def feed(self, worker: WorkerHandle, now: float) -> None:
        """Give a worker that is through with something its next queries, or find it something to take over, or let it rest."""
        if worker.is_light:
            self._feed_light(now)
            return
        while self:
            job = self._next_behind(worker) if worker.held else self._next()
            if job is None:
                break
            self._give(worker, job, now)
        if not worker.held and worker not in self.idle:
            self.idle.append(worker)
            self._relieve(now)

    def _next_behind(self, worker: WorkerHandle) -> Job | None:
        """What a worker that computes something is given in advance, if anything; nothing that was taken back, before it has dropped that."""
        head = worker.head
        if head is None or self.idle or head.is_heavy or head.number in self._alone:
            return None
        if head.size < SMALL_BYTES:
            has_room = len(worker.held) < worker.depth and not self._drains
            return self.ordinary.pop(lambda job: self._goes_behind(job) and job.number not in worker.held) if has_room else None
        # One, which it can begin while we take its answer; and only what comes next in any case, so that nobody's turn is taken.
        job = self.ordinary.first(but=self.holding) or self.ordinary.first()
        if job is None or job.number in worker.held or not worker.has(job):
            return None
        if self.heavy or len(worker.held) > 1 or job.number in self._alone:
            return None
        self.ordinary.remove(job)
        self.ordinary.send_behind(job.client)
        return job

    def _goes_behind(self, job: Job) -> bool:
        return job.size < SMALL_BYTES and not job.slices and job.number not in self._alone

    def _lacks_a_free_worker(self, now: float) -> bool:
        if self.ordinary.has(lambda job: now - job.queued > _DRAIN_AFTER_S and not self._goes_behind(job)):
            return True
        return len(self.heavy) > 0 and self._may_begin_heavy()

    def _may_begin_heavy(self) -> bool:
        return len(self._running_heavy) < max(1, self.regular_count - 1)

    @property
    def _running_heavy(self) -> list[WorkerHandle]:
        return [worker for worker in self.ready.values() if worker.head is not None and worker.head.is_heavy]

    def _feed_idle(self, now: float) -> None:
        while self.idle and self:
            self.feed(worker := self.idle.pop(), now)
            if not worker.held:
                return

    def _next(self) -> Job | None:
        """What a worker that is free computes next."""
        if not self.heavy:
            return self._next_ordinary()
        if self._may_begin_heavy() and (self._heavy_is_next or not self.ordinary):
            self._heavy_is_next = False
            return self.heavy.pop()
        self._heavy_is_next = True
        return self._next_ordinary()

    def _next_ordinary(self) -> Job | None:
        """Of a client that no worker computes for, where there is one."""
        return self.ordinary.pop(but=self.holding) or self.ordinary.pop()

    def _give(self, worker: WorkerHandle, job: Job, now: float) -> None:
        if not job.begun:
            job.begun = now
        worker.give(job, now)

    def _with_room(self, now: float) -> WorkerHandle | None:
        """The ready worker with the shortest line that moves."""
        best, fewest = None, DEPTH_LIMIT
        for worker in self.ready.values():
            if not self._alone.isdisjoint(worker.held):
                continue
            count = len(worker.held)
            if count < fewest and count < worker.depth and now - worker.head_since < _YOUNG_S and not worker.is_light:
                best, fewest = worker, count
        return best

    def _feed_light(self, now: float) -> None:
        light = self._light.worker
        if light is None or not self.ordinary or not self._light.is_free(now) or not self._all_are_stuck(now, _STUCK_BEHIND_S):
            return
        if (job := self._light.next_of(self.ordinary, self.holding)) is not None:
            self._give(light, job, now)

    def spare(self) -> list[WorkerHandle]:
        """Workers that rest while nothing waits, if one of them may be taken away: of several one is left for whoever comes."""
        return list(self.idle) if not self and len(self.idle) > min(1, self.regular_count - 1) else []

    # The clock

    def tick(self, now: float) -> None:
        """Every few milliseconds while queries are open."""
        self._drains = len(self) > 0 and self._lacks_a_free_worker(now)
        for worker in self.ready.values():
            worker.give_way(now)
        self._take_back(now)
        if self.idle:
            self._feed_idle(now)
            self._relieve(now)
        waits_since = self.ordinary.waits_since()
        if waits_since is not None:
            self._feed_light(now)
        if len(self._supervisor.slots) == 1:
            self._share(now)
        else:
            if waits_since is not None and now - waits_since > _PREEMPT_AFTER_S:
                self._preempt(now)
            self._share_among_heavy(now)
        if self._light.worker is None and self._is_light_wanted(now, waits_since):
            self._supervisor.want_light()
        job = self._light.has_had_its_time(now, self.ordinary, self.holding)
        if job is not None and self._light.worker is not None:
            self._stop(self._light.worker, job, "slice", now)
            self._feed_light(now)

    def round(self, now: float) -> None:
        """Now and then: the light worker goes when it has had nothing to do for a while."""
        if self._light.has_rested(now):
            for worker in (self._light.standby, self._light.worker):
                if worker is not None:
                    self.leave(worker)
            self._supervisor.dismiss_light()

    def _is_light_wanted(self, now: float, waits_since: float | None) -> bool:
        is_waited_for = waits_since is not None and now - waits_since > _LIGHT_AFTER_S and self.ordinary.has(self._light.fits)
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
                    if self.idle and job.holders == [busy.number] and not job.is_done:
                        self._give(self.idle.pop(), job, now)
                        busy.cancel(job)

    def _take_back(self, now: float) -> None:
        for busy in list(self.ready.values()):
            if len(busy.held) > 1 and now - busy.head_since > _STUCK_BEHIND_S:
                behind = [job for job in list(busy.held.values())[1:] if job.holders == [busy.number] and not job.is_done]
                for job in behind:
                    job.holders.clear()
                    busy.cancel(job)
                self.put_back(behind, now)

    def answered(self, job: Job, ran_s: float) -> None:
        """It took so long, from its worker's side."""
        self._light.answered(job, ran_s)

    def _preempt(self, now: float) -> None:
        """Long queries hold every worker while others wait: the youngest that is not known as heavy yet gives its worker back."""
        regular = self._regular()
        if len(regular) != len(self._supervisor.slots) or not self._all_are_stuck(now, HEAVY_S):
            return
        if (youngest := youngest_long(regular, now)) is not None and youngest.head is not None:
            self._stop(youngest, youngest.head, "share", now)

    def _share(self, now: float) -> None:
        """Another client waits for the only worker, with what the light one cannot take."""
        worker = oldest_through(self._regular(), now)
        if worker is None or (job := worker.head) is None:
            return
        is_waited_for = self.ordinary.has(self._needs_a_worker, but=(own := {job.client}))
        if is_waited_for or (self.heavy.first(but=own) is not None and can_begin_anew(job, now, self.holding, self.heavy)):
            self._heavy_is_next = not is_waited_for
            self._end_slice(worker, job, now)

    def _share_among_heavy(self, now: float) -> None:
        """A client waits whose heavy query has none of the workers that such may hold: the first of them to have had its time is stopped."""
        waits_since = self.heavy.waits_since()
        if waits_since is None or now - waits_since < _PREEMPT_AFTER_S or self._may_begin_heavy():
            return
        running = self._running_heavy
        is_waited_for = self.heavy.first(but={worker.head.client for worker in running if worker.head is not None}) is not None
        running = [each for each in running if each.head and can_begin_anew(each.head, now, self.holding, self.heavy)]
        worker = oldest_through(running, now) if is_waited_for and self.regular_count == len(self._supervisor.slots) else None
        if worker is not None and worker.head is not None:
            self._end_slice(worker, worker.head, now)

    def _end_slice(self, worker: WorkerHandle, job: Job, now: float) -> None:
        job.stops += 1
        self.ordinary.send_behind(job.client)
        self.heavy.send_behind(job.client)
        self._stop(worker, job, "share", now)

    def _needs_a_worker(self, job: Job) -> bool:
        """The light one is not for it, or there is none."""
        return not self._light.fits(job) or not self._supervisor.has_light

    def _stop(self, worker: WorkerHandle, job: Job, reason: str, now: float) -> None:
        """Stop a query that has had its turn: it waits for the next one, behind its client's others; as a heavy one, if for others' share."""
        if worker.number in job.holders:
            job.holders.remove(worker.number)
        elif job.is_waiting:  # taken back too late: the worker had begun it
            self._turns_of(job).remove(job)
        job.is_heavy = job.is_heavy or reason == "share"
        del worker.held[job.number]
        if not job.holders and not job.is_done:
            self._turns_of(job).append(job)
        self.replace(worker, reason, now)
