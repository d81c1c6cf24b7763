"""The light worker: a process more for small queries while all workers are busy, what it may compute and for how long; and its standby.

A long query is known there by its time alone, and ends with the process that computes it. So another process stands by that has computed
nothing yet, and takes over in that moment: whoever waits for a small query need not wait for a fork. Only one of the two ever computes.
"""

from __future__ import annotations

import math
from collections.abc import Set
from typing import Final

from app.pool.handles.worker_handle import WorkerHandle
from app.pool.job import Job
from app.pool.queueing.quarantine import fingerprint
from app.pool.queueing.turns import Turns

# What the light worker takes; above, a query's tensors take memory that it does not have.
LIGHT_BYTES: Final = 256 << 10
# Of CPU time, as all these: a small query or program takes 9 to 26 ms in a process that has computed nothing before.
SLICE_S: Final = 0.06
SLICES: Final = 3  # tries of one query on the light worker: 180 ms of CPU time, seven times what the slowest small one takes
# For a client that holds other workers too, while another waits who holds none: as long as a small query takes.
_BRIEF_S: Final = 0.03
# Where no other waits for it, the light worker is left for this long to one query; and the longest that a query may take to get its time.
_LONE_S: Final = 2.0
_HELD_LIMIT_S: Final = 10.0
_IDLE_S: Final = 4.0  # after which its memory is given back: a fork of 15 ms every four seconds is 0.4 % of a core
# Queries that have been long for the light worker and may be sent again; 16 bytes each, and what a dict adds.
_KNOWN_LIMIT: Final = 4096


class LightWork:
    """The light worker, if there is one, and what is known of queries that were there.

    Attributes:
        worker: the one that computes; None while there is none.
        standby: the one that takes its place.
    """

    def __init__(self) -> None:
        self.worker: WorkerHandle | None = None
        self.standby: WorkerHandle | None = None
        self._idle_since = math.inf
        self._newest_is_next = True
        self._slices_of: dict[bytes, int] = {}  # of queries that were stopped there, by their marks

    def join(self, worker: WorkerHandle) -> None:
        if self.worker is None:
            self.worker = worker
        else:
            self.standby = worker

    def leave(self, worker: WorkerHandle) -> None:
        if worker is self.worker:
            self.worker, self.standby = self.standby, None
            self._idle_since = math.inf  # who comes next has not rested yet
        elif worker is self.standby:
            self.standby = None

    def is_free(self, now: float) -> bool:
        """There is one that computes nothing."""
        if self.worker is None or self.worker.held:
            return False
        self._idle_since = min(self._idle_since, now)
        return True

    def has_rested(self, now: float) -> bool:
        """It has had nothing to do for a while."""
        return self.is_free(now) and now - self._idle_since > _IDLE_S

    def next_of(self, waiting: Turns, holding: Set[str]) -> Job | None:
        """What it computes next, taken from those that wait; the clients in `holding`, who hold workers already, come last.

        Of one client the newest and the oldest by turns: where clients share an address, whoever comes now must not wait for all that
        another has sent at once before.
        """
        job = (
            waiting.pop(self.is_fresh, last=self._newest_is_next, but=holding)
            or waiting.pop(self.is_fresh, last=self._newest_is_next)
            or waiting.pop(self.fits)
        )
        if job is not None:
            self._newest_is_next = not self._newest_is_next
            self._idle_since = math.inf
        return job

    def fits(self, job: Job) -> bool:
        """It may be a small one, for all that is known."""
        return job.size < LIGHT_BYTES and job.slices < SLICES

    def is_fresh(self, job: Job) -> bool:
        """It fits and was not stopped there yet."""
        return job.size < LIGHT_BYTES and not job.slices

    def recall(self, job: Job) -> None:
        """It comes to wait: note on it how often the same was stopped there before."""
        if self._slices_of and job.size < LIGHT_BYTES and not job.mark:
            job.slices = max(job.slices, self._slices_of.get(_mark(job), 0))

    def has_had_its_time(self, now: float, waiting: Turns, holding: Set[str]) -> Job | None:
        """The query that must leave it now; None where there is none. `holding`: clients whose queries the other workers compute."""
        worker = self.worker
        if worker is None or (job := worker.head) is None:
            return None
        self.recall(job)
        computed_s = worker.computed_s(now)
        if computed_s > _LONE_S or now - worker.head_since > _HELD_LIMIT_S:
            job.slices = SLICES
        elif self._is_due(job, computed_s, waiting, holding):
            job.slices += 1
        else:
            return None
        if len(self._slices_of) >= _KNOWN_LIMIT:
            self._slices_of.pop(next(iter(self._slices_of)))
        self._slices_of[_mark(job)] = job.slices
        for other in waiting:
            if other.size == job.size and _mark(other) == job.mark:
                other.slices = max(other.slices, job.slices)
        return job

    def _is_due(self, job: Job, computed_s: float, waiting: Turns, holding: Set[str]) -> bool:
        if computed_s > _BRIEF_S and job.client in holding and waiting.has(self.is_fresh, but=holding):
            return True
        return computed_s >= SLICE_S and waiting.has(self.is_fresh)

    def answered(self, job: Job, ran_s: float) -> None:
        """What was stopped only because the machine was slow then is not held against it."""
        if job.slices and ran_s < SLICE_S:
            self._slices_of.pop(job.mark, None)


def _mark(job: Job) -> bytes:
    """Its fingerprint, which is made when somebody needs it: most queries never wait beside a long one."""
    job.mark = job.mark or fingerprint(job.asked, job.body)
    return job.mark
