"""Preemption: which long query gives its worker back because others wait for one.

The time of a query is CPU time: one that is kept from the processor, by others or by a slow machine, has not had any.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Final

from app.pool.handles.worker_handle import WorkerHandle
from app.pool.job import Job

# With the time that a query waits before another is stopped for it, and that of a fork, less than a second.
HEAVY_S: Final = 0.5
# Times its time that a query may hold a worker without computing for as long: one of twenty on its core.
_SLOWNESS: Final = 20
# For other heavy queries: what is stopped twice has had 1.5 s for nothing; and each client's time is an eighth at most of what is left until
# the deadline, so that what would all be answered one after the other still is.
_STOPS: Final = 2
_PART: Final = 8


def youngest_long(workers: Iterable[WorkerHandle], now: float) -> WorkerHandle | None:
    """The worker whose query, long but not known as heavy yet, it began last."""
    stoppable = [
        worker for worker in workers if worker.head and not worker.head.is_heavy and _can_stop(worker) and worker.is_long(now)
    ]
    return max(stoppable, key=lambda worker: worker.head_since, default=None)


def oldest_through(workers: Iterable[WorkerHandle], now: float) -> WorkerHandle | None:
    """The worker whose query has had its time and which began it first."""
    through = [worker for worker in workers if _can_stop(worker) and _has_had_its_time(worker, now)]
    return min(through, key=lambda worker: worker.head_since, default=None)


def can_begin_anew(job: Job, now: float, holding: Set[str], waiting: Iterable[Job]) -> bool:
    """It would still end in time, where each client that holds workers or has queries `waiting` loses as much time as it does."""
    clients = len(holding | {each.client for each in waiting})
    return job.stops < _STOPS and _PART * clients * _time_s(job) <= job.deadline - now


def _time_s(job: Job) -> float:
    """That doubles with each stop, so that a query ends after at most as much time again as it takes."""
    return HEAVY_S * (1 << job.stops)


def _can_stop(worker: WorkerHandle) -> bool:
    """A GPU worker takes seconds to replace."""
    return worker.slot.device == "cpu"


def _has_had_its_time(worker: WorkerHandle, now: float) -> bool:
    job = worker.head
    if job is None:
        return False
    held_s, time_s = now - worker.head_since, _time_s(job)
    return held_s > time_s and (worker.computed_s(now) > time_s or held_s > _SLOWNESS * time_s)
