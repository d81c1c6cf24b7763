"""The supervisor: keeps the forkserver and one worker for each slot alive, and says who came and who went.

Knows starting, reaping, back-off and replacement. Refuses to know jobs: what the dead one held is its caller's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Final, Protocol

import orjson

from app.errors import EXIT_WORKERS, ServiceError
from app.pool import linux
from app.pool.channel import Channel
from app.pool.environment import environment
from app.pool.frames import Frame, Kind, encode
from app.pool.worker_handle import WorkerHandle
from app.pool.worker_slots import WorkerSlot, places
from app.settings import Settings

# Seconds before the n-th attempt in a row, after workers that died before they were ready (TorchServe's steps).
BACK_OFF_S: Final = (0.0, 0.0, 1.0, 2.0, 3.0, 5.0)
_START_LIMIT_S: Final = 120.0
_PROBE_LIMIT_S: Final = 10.0
_PROBE_EVERY_S: Final = 15.0
# What dies so often in a row before it was ever ready will not heal.
_FORKSERVER_TRIES: Final = 3
_WORKER_TRIES: Final = 6
# How long the verdict on a death waits for the exit status.
_STATUS_LIMIT_S: Final = 0.25
_STOP_LIMIT_S: Final = 2.0


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
    """The workers of one machine.

    Attributes:
        workers: those alive, by their slot.
        restarts: how many were replaced, by reason: crash, deadline, gone, retire, probe, forkserver.
        functions: the listing of kept functions as JSON, as the forkserver has read them; empty until it is warm.
        failure: resolves where no worker can be had, now or later, so that the service must end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings, observer: WorkerObserver) -> None:
        self.workers: dict[int, WorkerHandle] = {}
        self.restarts: Counter[str] = Counter()
        self.functions = b""
        self.failure: asyncio.Future[ServiceError] = loop.create_future()
        self._loop = loop
        self._settings = settings
        self._observer = observer
        self._slots: tuple[WorkerSlot, ...] = ()
        self._numbers: Iterator[int] = count(1)
        self._unreaped: dict[int, WorkerHandle] = {}  # every process not yet reaped, by number
        self._awaiting_status: set[int] = set()
        self._failures: Counter[int] = Counter()  # attempts in a row that failed before ready, by slot
        self._forkserver: subprocess.Popen[bytes] | None = None
        self._forkserver_failures = 0
        self._line: Channel | None = None
        self._ever_ready = False
        self._stopping = False

    # The forkserver

    def start(self) -> None:
        """Start the forkserver; workers follow by themselves as soon as it is warm."""
        ours, theirs = socket.socketpair()
        linux.enlarge(ours)
        try:
            self._forkserver = subprocess.Popen(  # noqa: S603 - our own module, no client's word in it
                [sys.executable, "-m", "app.pool.forkserver", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment(self._settings),
            )
        finally:
            theirs.close()
        self._line = Channel(self._loop, ours, self._forkserver_sent, self._forkserver_lost)

    def _forkserver_sent(self, frame: Frame) -> None:
        facts = orjson.loads(frame.meta)
        if frame.kind is Kind.HELLO:
            self._warm(facts, bytes(frame.body))
        elif frame.kind is Kind.FAILED:
            self._fail(facts["reason"], facts["exit_status"])
        elif frame.kind is Kind.FORKED and frame.number in self._unreaped:
            self._unreaped[frame.number].forked(facts["pid"])
        elif frame.kind is Kind.EXITED and frame.number in self._unreaped:
            self._reap(self._unreaped.pop(frame.number), facts["code"])

    def _warm(self, facts: Mapping[str, Any], functions: bytes) -> None:
        self.functions = functions
        self._forkserver_failures = 0
        self._slots = places(self._settings, facts["gpus"])
        for index in range(len(self._slots)):
            self._spawn(index)

    def _forkserver_lost(self) -> None:
        """The forkserver died, and its children with it; all of that starts again."""
        if self._stopping:
            return
        if self._forkserver is not None:
            self._forkserver.kill()
            self._forkserver.wait()
        self._observer.on_event(
            "the forkserver died and is started again", code=self._forkserver.returncode if self._forkserver else None
        )
        for worker in list(self.workers.values()):
            self.restarts["forkserver"] += 1
            self._depart(worker)
        for worker in self._unreaped.values():
            self._exited(worker, None)
            worker.forget()
        self._unreaped.clear()
        self._forkserver_failures += 1
        if self._forkserver_failures >= _FORKSERVER_TRIES:
            code = None if self._forkserver is None else self._forkserver.returncode
            self._fail(
                f"The parent of the workers died {_FORKSERVER_TRIES} times in a row before it was ready, the last time with "
                f"exit status {code}; what it said stands above.",
                EXIT_WORKERS,
            )
            return
        delay = BACK_OFF_S[min(self._forkserver_failures, len(BACK_OFF_S) - 1)]
        self._loop.call_later(delay, self._start_again)

    def _fail(self, reason: str, exit_status: int) -> None:
        """Start nothing more: what is wrong stays wrong until a person changes it."""
        if not self._stopping:
            self._stopping = True
            self.failure.set_result(ServiceError(reason, exit_status))

    def _start_again(self) -> None:
        if not self._stopping:
            self.start()

    # Workers

    def _spawn(self, index: int) -> None:
        if self._stopping or self._line is None or self._line.closed or index in self.workers:
            return
        ours, theirs = socket.socketpair()
        linux.enlarge(ours)
        linux.enlarge(theirs)
        number, slot = next(self._numbers), self._slots[index]
        worker = WorkerHandle(self._loop, number, index, slot, ours, self._worker_sent, self._worker_lost)
        self.workers[index] = self._unreaped[number] = worker
        meta = orjson.dumps({"device": slot.device, "threads": slot.threads, "memory_bytes": slot.memory_bytes})
        with theirs, contextlib.suppress(OSError):
            # A forkserver that is gone shows as the end of its line; the worker is then removed with the others.
            self._line.send_with(encode(Kind.FORK, number, meta=meta), theirs.fileno())

    def _worker_sent(self, worker: WorkerHandle, frame: Frame) -> None:
        if frame.kind is not Kind.READY:
            self._observer.on_frame(worker, frame)
            return
        good = worker.probe_answered(frame, time.monotonic())
        if not good:
            self._give_up(worker)
        elif worker.state == "starting":
            worker.state = "ready"
            self._failures[worker.index] = 0
            self._ever_ready = True
            self._observer.on_event("a worker is ready", worker=worker.index, start_s=round(worker.probed - worker.started, 4))
            self._observer.on_ready(worker)

    def _worker_lost(self, worker: WorkerHandle) -> None:
        """Its end of the line is closed: it is dead, or dies now."""
        if self._forkserver is not None and self._forkserver.poll() is not None:
            self._forkserver_lost()
            return
        self.restarts["crash"] += 1
        was_starting = worker.state == "starting"
        self._remove(worker)
        worker.kill()
        self._awaiting_status.add(worker.number)
        self._loop.call_later(_STATUS_LIMIT_S, self._exited, worker, None)
        self._observer.on_lost(worker)
        self._follow(worker.index, failed=was_starting)

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

    def _reap(self, worker: WorkerHandle, code: int) -> None:
        worker.forget()
        self._exited(worker, code)

    def _exited(self, worker: WorkerHandle, code: int | None) -> None:
        if worker.number in self._awaiting_status:
            self._awaiting_status.discard(worker.number)
            self._observer.on_event("a worker died", worker=worker.index, code=code)
            self._observer.on_exit(worker, code)

    def look_after(self, now: float) -> None:
        """Once in a while: probe who is idle, and replace who hangs outside of a query."""
        for worker in list(self.workers.values()):
            if worker.state == "starting":
                if now - worker.started > _START_LIMIT_S:
                    self._give_up(worker)
            elif worker.probing_since:
                if not worker.held and now - worker.probing_since > _PROBE_LIMIT_S:
                    self._give_up(worker)
            elif not worker.held and now - worker.probed > _PROBE_EVERY_S:
                worker.probe(now)

    # The end

    async def stop(self) -> None:
        """Kill every worker, let the forkserver reap them, and wait until it is gone too."""
        self._stopping = True
        for worker in list(self.workers.values()):
            self._remove(worker)
            worker.kill()
        if self._forkserver is None or self._line is None:
            return
        patience = time.monotonic() + _STOP_LIMIT_S
        while self._unreaped and not self._line.closed and time.monotonic() < patience:
            await asyncio.sleep(0.002)
        self._line.close()
        while self._forkserver.poll() is None and time.monotonic() < patience:
            await asyncio.sleep(0.002)
        self._forkserver.kill()
        self._forkserver.wait()

    def kill(self) -> None:
        """The same at once, without waiting."""
        self._stopping = True
        for worker in list(self.workers.values()):
            worker.kill()
        if self._forkserver is not None:
            self._forkserver.kill()
