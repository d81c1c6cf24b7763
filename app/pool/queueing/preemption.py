"""Preemption: which long query gives its worker back because others wait for one.

The time of a query is CPU time: one that is kept from the processor, by others or by a slow machine, has not had any.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from app.pool.handles.worker_handle import WorkerHandle

# With the time that a query waits before another is stopped for it, and that of a fork, less than a second.
HEAVY_S: Final = 0.5
# Times its time that a query may hold a worker without computing for as long: a machine twenty times slower. Chosen.
_SLOWNESS: Final = 20


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


def _can_stop(worker: WorkerHandle) -> bool:
    """A GPU worker takes seconds to replace."""
    return worker.slot.device == "cpu"


def _has_had_its_time(worker: WorkerHandle, now: float) -> bool:
    """That doubles with each stop, so that a query ends after at most as much time again as it takes."""
    job = worker.head
    if job is None:
        return False
    held_s, time_s = now - worker.head_since, HEAVY_S * (1 << job.stops)
    return held_s > time_s and (worker.computed_s(now) > time_s or held_s > _SLOWNESS * time_s)
