"""The supervisor: keeps the forkserver and one worker for each slot alive, and says who came and who went."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, Final, Protocol

import orjson

from app.errors import EXIT_SETTINGS, EXIT_WORKERS, ServiceError
from app.pool import linux
from app.pool.frames import Frame, Kind
from app.pool.handles.forkserver_handle import START_LIMIT_S, ForkserverHandle
from app.pool.handles.forkserver_process import ForkserverProcess, Lifeline
from app.pool.handles.worker_handle import WorkerHandle
from app.pool.share import Share
from app.pool.worker_slots import WorkerSlot, light_slot, worker_slots
from app.settings import Settings

# Seconds before the n-th attempt in a row after workers that died unsettled: a fork, 15 ms, is 6 % of a pause; doubled, TorchServe's longest.
BACK_OFF_S: Final = (0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 5.0)
# A busy worker is looked at from this age of its query on, and twice: a debugger may stop a process for an instant.
_LOOK_AFTER_S: Final = 0.25
_STOPPED_LOOKS: Final = 2
# Seconds without any CPU time, though it holds a query, after which a worker on the CPU counts as stuck.
_STUCK_S: Final = 3.0
# Until descriptors or memory for a new process may be free again.
_RETRY_S: Final = 0.5
_PROBE_LIMIT_S: Final = 10.0  # an idle worker answers at once; 350 MiB swapped out take 3.5 s from a disk of 100 MB/s
_PROBE_EVERY_S: Final = 15.0  # an idle worker that dies is seen at once; one that is frozen is replaced after 25 s
# What dies so often in a row before it was ever ready will not heal.
_FORKSERVER_TRIES: Final = 3
_WORKER_TRIES: Final = 6
# How long the verdict on a death waits for the exit status.
_STATUS_LIMIT_S: Final = 0.25
_STOP_LIMIT_S: Final = 2.0  # for reaping killed workers: 1 GiB takes 32 ms (measured), but the kernel may hold one


class WorkerObserver(Protocol):
    """Who is told what becomes of the workers."""

    def on_ready(self, worker: WorkerHandle) -> None:
        """It is ready for jobs."""

    def on_frame(self, worker: WorkerHandle, frame: Frame) -> None:
        """It sent a frame about a job."""

    def on_lost(self, worker: WorkerHandle) -> None:
        """It died of itself; a replacement is on its way."""

    def on_exit(self, worker: WorkerHandle, exit_code: int | None) -> None:
        """Later, once: how it died, None where nobody knows (the forkserver died with it)."""

    def on_event(self, event: str, **facts: Any) -> None:
        """Something that an operator wants to read."""


class Supervisor:
    """The workers of one machine. `allocate` gives the memory of a large reply, None where there is no room for it.

    Attributes:
        workers: those alive, by their slot.
        slots: where workers compute, without the light one; `slots_of_all`: in other fronts too. Empty until GPUs were looked for.
        restarts: how many were replaced, by reason: crash, deadline, gone, retire, probe, frozen, slice, share, forkserver.
        functions: the listing of kept functions as JSON, as the forkserver has read them; empty until it is warm.
        failure: resolves where no worker can be had, now or later, so that the service must end.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        observer: WorkerObserver,
        allocate: Callable[[int], memoryview | None],
        share: Share,
    ) -> None:
        self.workers: dict[int, WorkerHandle] = {}
        self.restarts: Counter[str] = Counter()
        self.functions = b""
        self.failure: asyncio.Future[ServiceError] = loop.create_future()
        self._loop = loop
        self._settings = settings
        self._observer = observer
        self._allocate = allocate
        self._share = share
        self.slots: tuple[WorkerSlot, ...] = ()
        self.slots_of_all: tuple[WorkerSlot, ...] = ()
        self._light_slot: WorkerSlot | None = None
        self._light_wanted = 0  # the light worker, and its standby
        self._numbers: Iterator[int] = count(1)
        self._unreaped: dict[int, WorkerHandle] = {}  # every process not yet reaped, by number
        self._awaiting_status: set[int] = set()
        self._failures: Counter[int] = Counter()  # attempts in a row that failed before they had settled, by slot
        self._forkserver: ForkserverHandle | None = None
        self._forkserver_failures = 0
        self._lifeline: Lifeline | None = None
        self._ever_ready = False
        self._stopping = False

    # The forkserver

    def start(self, started: ForkserverProcess | None = None) -> None:
        """Start the forkserver where it is not `started`; workers follow by themselves as soon as it is warm."""
        if self._stopping:
            return
        linux.adopt_orphans()
        try:
            started = started or ForkserverProcess(self._settings, self._lifeline)
            self._lifeline = started.lifeline
            self._forkserver = ForkserverHandle(self._loop, started, self._forkserver_sent, self._forkserver_lost)
        except OSError as error:
            self._observer.on_event("the forkserver cannot be started yet", level="error", error=str(error))
            self._loop.call_later(_RETRY_S, self.start)

    def _forkserver_sent(self, frame: Frame) -> None:
        facts = orjson.loads(frame.meta)
        if frame.kind is Kind.HELLO:
            self._fork_all(facts, bytes(frame.body))
        elif frame.kind is Kind.FAILED:
            self._fail(facts["reason"], facts["exit_status"])
        elif frame.kind is Kind.FORKED and frame.number in self._unreaped:
            self._unreaped[frame.number].forked(facts["pid"])
        elif frame.kind is Kind.EXITED and frame.number in self._unreaped:
            self._reap(self._unreaped.pop(frame.number), facts["code"])

    def _fork_all(self, facts: Mapping[str, Any], functions: bytes) -> None:
        self.functions = functions
        if self._forkserver is not None:
            self._forkserver.is_warm = True
        self._forkserver_failures = 0
        self.slots_of_all = worker_slots(self._settings, facts["gpus"])
        self.slots = tuple(self._share.slots(self.slots_of_all))
        if not self.slots:
            self._fail(self._share.too_few(len(self.slots_of_all)), EXIT_SETTINGS)
            return
        self._light_slot = light_slot(self._settings, self.slots)
        for index in range(len(self.slots) + self._light_wanted):
            self._spawn(index)
        for worker in list(self.workers.values()):
            # Children of an earlier forkserver: they have served while there was none, and go as soon as they are free.
            if worker.is_orphan:
                worker.is_outdated = True
                if not worker.held:
                    self.restarts["forkserver"] += 1
                    self._depart(worker)
                    self._follow(worker.index, failed=False)

    def _forkserver_lost(self) -> None:
        """The forkserver died: another is started, while the workers that it left serve on."""
        if self._stopping or self._forkserver is None:
            return
        code = self._forkserver.kill()
        self._forkserver = None
        self._observer.on_event("the forkserver died and is started again", code=code)
        for worker in list(self._unreaped.values()):
            self._adopt(worker)
        self._forkserver_failures += 1
        if self._forkserver_failures >= _FORKSERVER_TRIES:
            self._fail(
                f"The parent of the workers died {_FORKSERVER_TRIES} times in a row before it was ready, the last time with "
                f"exit status {code}; what it said stands above.",
                EXIT_WORKERS,
            )
            return
        delay = BACK_OFF_S[min(self._forkserver_failures, len(BACK_OFF_S) - 1)]
        self._loop.call_later(delay, self.start)

    def _fail(self, reason: str, exit_status: int) -> None:
        """Start nothing more: what is wrong stays wrong until a person changes it."""
        if not self._stopping:
            self._stopping = True
            self.failure.set_result(ServiceError(reason, exit_status))

    def _adopt(self, worker: WorkerHandle) -> None:
        """Its parent is dead, so that its exit status comes to this process, by the system."""
        if not worker.pid:
            # Not forked, or nobody will ever tell its pid: it ends when it finds its line closed.
            del self._unreaped[worker.number]
            if worker.state != "dead":
                self._depart(worker)
            self._exited(worker, None)
            return
        worker.is_orphan = True
        if worker.pidfd is not None:
            self._loop.add_reader(worker.pidfd, self._collect, worker)

    def _collect(self, worker: WorkerHandle) -> None:
        """Reap an orphan if it is dead."""
        ended, code = linux.exit_code(worker.pid)
        if not ended or worker.number not in self._unreaped:
            return
        if worker.pidfd is not None:
            self._loop.remove_reader(worker.pidfd)
        del self._unreaped[worker.number]
        self._reap(worker, code)

    # Workers

    def _spawn(self, index: int) -> None:
        forkserver, slot = self._forkserver, self._slot(index)
        if self._stopping or slot is None or forkserver is None or not forkserver.is_warm or index in self.workers:
            return
        try:
            front_end, worker_end = socket.socketpair()
        except OSError as error:
            self._observer.on_event("a worker cannot be started yet", level="error", worker=index, error=str(error))
            self._loop.call_later(_RETRY_S, self._spawn, index)
            return
        linux.enlarge(front_end)
        linux.enlarge(worker_end)
        number = next(self._numbers)
        worker = WorkerHandle(self._loop, number, index, slot, front_end, self._worker_sent, self._worker_lost, self._allocate)
        worker.is_light = index >= len(self.slots)
        self.workers[index] = self._unreaped[number] = worker
        with contextlib.suppress(OSError):
            # A forkserver that is gone or frozen is noticed; the worker is then removed with the others.
            worker.fork(forkserver, worker_end)

    def _slot(self, index: int) -> WorkerSlot | None:
        """After the others come those of the light worker and its standby, while they are wanted."""
        if index < len(self.slots):
            return self.slots[index]
        return self._light_slot if index < len(self.slots) + self._light_wanted else None

    @property
    def has_light(self) -> bool:
        """Whether there can be a light worker."""
        return self._light_slot is not None

    def want_light(self, *, standby: bool = False) -> None:
        """Have one worker more than slots, for light work, or its standby too; on the CPU, where a process takes milliseconds to fork."""
        wanted = 2 if standby else 1
        if self._light_wanted < wanted and self._light_slot is not None:
            self._light_wanted = wanted
            self._spawn(len(self.slots) + wanted - 1)

    def dismiss_light(self) -> None:
        """They are not needed now."""
        self._light_wanted = 0
        for worker in [worker for worker in self.workers.values() if worker.is_light]:
            self._remove(worker)
            worker.kill()

    def _worker_sent(self, worker: WorkerHandle, frame: Frame) -> None:
        if frame.kind is not Kind.READY:
            self._observer.on_frame(worker, frame)
            return
        if not worker.probe_answered(frame, time.monotonic()):
            self._give_up(worker)
        elif worker.state == "starting":
            worker.state = "ready"
            self._ever_ready = True
            self._observer.on_event("a worker is ready", worker=worker.index, start_s=round(worker.probed - worker.started, 4))
            self._observer.on_ready(worker)

    def _worker_lost(self, worker: WorkerHandle) -> None:
        """Its end of the line is closed: it is dead, or dies now."""
        self.restarts["crash"] += 1
        failed = not (worker.held or worker.is_settled(time.monotonic()))  # of a query that it held it may have died
        self._remove(worker)
        worker.kill()
        self._awaiting_status.add(worker.number)
        self._loop.call_later(_STATUS_LIMIT_S, self._exited, worker, None)
        self._observer.on_lost(worker)
        self._follow(worker.index, failed=failed)

    def replace(self, worker: WorkerHandle, reason: str) -> None:
        """Kill a worker and start another in its place at once; the caller deals with the jobs that it held."""
        if worker.state == "dead":
            return
        self._remove(worker)
        worker.kill()
        self.restarts[reason] += 1
        self._follow(worker.index, failed=False)

    def _give_up(self, worker: WorkerHandle) -> None:
        """It hangs or no longer differentiates, by no query's fault."""
        self.restarts["probe"] += 1
        self._depart(worker)
        self._follow(worker.index, failed=True)

    def _depart(self, worker: WorkerHandle) -> None:
        self._remove(worker)
        worker.kill()
        self._observer.on_lost(worker)
        self._observer.on_exit(worker, None)

    def _follow(self, index: int, *, failed: bool) -> None:
        delay = 0.0
        if failed:
            delay = BACK_OFF_S[min(self._failures[index], len(BACK_OFF_S) - 1)]
            self._failures[index] += 1
            if not self._ever_ready and self._failures[index] >= _WORKER_TRIES:
                self._fail(
                    f"A worker died {_WORKER_TRIES} times in a row before it was ready, and none ever was; "
                    "what it said stands above.",
                    EXIT_WORKERS,
                )
                return
        if delay:
            self._loop.call_later(delay, self._spawn, index)
        else:
            self._spawn(index)

    def _remove(self, worker: WorkerHandle) -> None:
        worker.state = "dead"
        if self.workers.get(worker.index) is worker:
            del self.workers[worker.index]

    def _reap(self, worker: WorkerHandle, code: int | None) -> None:
        """The process is gone. Where its line has not shown that yet, what it still said is taken from it first."""
        worker.forget()
        worker.drain()
        self._exited(worker, code)

    def _exited(self, worker: WorkerHandle, code: int | None) -> None:
        if worker.number in self._awaiting_status:
            self._awaiting_status.discard(worker.number)
            self._observer.on_event("a worker died", worker=worker.index, code=code)
            self._observer.on_exit(worker, code)

    def look_after(self, now: float) -> None:
        """Once in a while: see that the forkserver lives, probe who is idle, and replace who is frozen or hangs."""
        self._look_after_forkserver(now)
        for worker in list(self._unreaped.values()):
            if worker.is_orphan and worker.pidfd is None:
                self._collect(worker)
        for worker in list(self.workers.values()):
            if worker.is_settled(now):
                self._failures[worker.index] = 0
            if worker.state == "starting":
                if now - worker.started > START_LIMIT_S:
                    self._give_up(worker)
            elif worker.held:
                if now - worker.head_since > _LOOK_AFTER_S:
                    self._look_at(worker, now)
            elif worker.probing_since:
                if now - worker.probing_since > _PROBE_LIMIT_S:
                    self._give_up(worker)
            elif now - worker.probed > _PROBE_EVERY_S:
                worker.probe(now)

    def _look_after_forkserver(self, now: float) -> None:
        if not self._stopping and self._forkserver is not None and self._forkserver.is_hung(now):
            self._observer.on_event("the forkserver does not answer", level="error")
            self._forkserver_lost()

    def _look_at(self, worker: WorkerHandle, now: float) -> None:
        """Replace a worker that is stopped or stuck amid a query, which is by no fault of the query."""
        activity = linux.activity(worker.pid)
        if activity is None:
            return
        if activity != worker.activity or worker.activity_since < worker.head_since:
            worker.activity, worker.activity_since, worker.looks = activity, now, 0
        worker.looks += 1
        stuck = not activity.is_running and worker.slot.device == "cpu" and now - worker.activity_since > _STUCK_S
        if stuck or (activity.is_stopped and worker.looks >= _STOPPED_LOOKS):
            self._observer.on_event("a worker is frozen", level="error", worker=worker.index)
            self.restarts["frozen"] += 1
            self._depart(worker)
            self._follow(worker.index, failed=False)

    # The end

    async def stop(self) -> None:
        """Kill every worker, let the forkserver reap them, and wait until it is gone too."""
        self._stopping = True
        for worker in list(self.workers.values()):
            self._remove(worker)
            worker.kill()
        forkserver = self._forkserver
        patience = time.monotonic() + _STOP_LIMIT_S
        while forkserver is not None and self._unreaped and not forkserver.is_lost and time.monotonic() < patience:
            await asyncio.sleep(0.002)
        self._cut_lifeline()
        if forkserver is not None:
            forkserver.close()
            while not forkserver.has_ended() and time.monotonic() < patience:
                await asyncio.sleep(0.002)
            forkserver.kill()

    def kill(self) -> None:
        """The same at once, without waiting."""
        self._stopping = True
        for worker in list(self.workers.values()):
            worker.kill()
        self._cut_lifeline()
        if self._forkserver is not None:
            self._forkserver.kill()

    def _cut_lifeline(self) -> None:
        if self._lifeline is not None:
            self._lifeline.cut()
            self._lifeline = None
