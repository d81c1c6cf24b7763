"""The forkserver: a warm parent that has imported torch, computes nothing, and forks a worker whenever the front asks.

It never touches CUDA and starts no threads, so that a fork is safe (POSIX lets only the calling thread survive it) and takes
milliseconds where a fresh import takes seconds.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import orjson

from app.errors import EXIT_SETTINGS, EXIT_THREADS, ServiceError
from app.pool import linux
from app.pool.environment import NO_GPU
from app.pool.frames import Kind, Reader, encode
from app.pool.worker import send_all, work
from app.pool.worker_slots import WorkerSlot, limits, worker_slots
from app.settings import Settings

if TYPE_CHECKING:
    from app.road import Road

# Descriptors of one receipt, which may hold several frames with one each; the kernel's own bound is 253 (SCM_MAX_FD).
_FDS_LIMIT: Final = 64
# Characters of what CUDA says: one pipe holds them with the sizes of any number of GPUs.
_REASON_LIMIT: Final = 400


class Forkserver:
    """The parent's loop over the front's wishes and its children's ends."""

    def __init__(self, connection: socket.socket, lifeline: int, road: Road, settings: Settings) -> None:
        self._connection = connection
        self._lifeline = lifeline
        self._settings = settings
        self._road = road
        self._reader = Reader()
        self._children: dict[int, tuple[int, int]] = {}  # pidfd → (pid, the front's number for it)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def run(self) -> None:
        """Fork and wait until the front hangs up. The children outlive this process, not the front, which holds their lifeline."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._connection.fileno():
                    self._reap(descriptor)
                elif not self._listen():
                    return

    def _listen(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._connection, 1 << 16, _FDS_LIMIT)
        if not data:
            return False
        self._reader.buffer()[: len(data)] = data
        frames = self._reader.received(len(data))
        connections = iter(descriptors)
        for frame in frames:
            if frame.kind is Kind.PING:
                self._tell(Kind.PONG, frame.number, {})
            elif (connection := next(connections, None)) is not None:
                slot = WorkerSlot(**orjson.loads(frame.meta))
                slab = next(connections, None) if slot.slab_bytes else None
                try:
                    self._fork(frame.number, slot, socket.socket(fileno=connection), slab)
                finally:
                    if slab is not None:
                        os.close(slab)
            # Else there was no descriptor left for it here: the front finds that line closed, and asks again.
        return True

    def _fork(self, number: int, slot: WorkerSlot, connection: socket.socket, slab: int | None) -> None:
        _check_threads()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            # No process, or no memory for one, to be had now: likewise.
            connection.close()
            return
        if pid == 0:
            if not linux.die_with_pipe(self._lifeline):
                linux.die_with_parent(parent)
            linux.close_all_but([connection.fileno(), self._lifeline, *([] if slab is None else [slab])])
            work(connection, lambda: self._road_for(slot), slot, slab)
        connection.close()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            # Nobody would know how it ends.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        self._children[pidfd] = (pid, number)
        self._poll.register(pidfd, select.POLLIN)
        self._tell(Kind.FORKED, number, {"pid": pid})

    def _road_for(self, slot: WorkerSlot) -> Road:
        from app.road import Road

        if slot.device == "cpu":
            return self._road
        # CUDA cannot be warmed before the fork, so each GPU worker warms itself before it is ready.
        road = Road(limits(self._settings, slot), slot.device, self._settings.functions_folder, self._settings.batching)
        road.warm()
        return road

    def _reap(self, pidfd: int) -> None:
        pid, number = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self._tell(Kind.EXITED, number, {"pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def _tell(self, kind: Kind, number: int, meta: dict[str, int]) -> None:
        send_all(self._connection, encode(kind, number, meta=orjson.dumps(meta)))


def gpu_bytes() -> tuple[list[int], str]:
    """The memory of each CUDA device, in bytes, and why those that are here cannot be used, empty where they can.

    Asked in a child, so that this process never touches CUDA.
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            linux.die_with_parent(parent)  # a driver that hangs must not outlive who asked
            os.write(writing, orjson.dumps(_ask_cuda()))
        except Exception as error:
            os.write(writing, orjson.dumps(([], str(error).partition("\n")[0][:_REASON_LIMIT])))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    sizes, reason = orjson.loads(text) if text else ([], "The process that asked for them died.")
    return sizes, reason


def _ask_cuda() -> tuple[list[int], str]:
    import torch

    return [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())], ""


def _check_threads() -> None:
    """Only the calling thread survives a fork, and autograd refuses to work in the child of a process that had others.

    Raises:
        ServiceError: this process has more than one thread.
    """
    threads = linux.status_field("Threads")
    if threads > 1:
        raise ServiceError(
            f"The parent of the workers has {threads} threads, which would not survive a fork: something that is loaded into "
            "every Python process here (a profiler, a tracer, sitecustomize) starts threads. Start the service without it.",
            EXIT_THREADS,
        )


def prepare(settings: Settings) -> tuple[list[int], Road]:
    """The GPUs' memory in bytes, and the road, warm where that is safe before a fork.

    Raises:
        ServiceError: a device that is not here, or threads.
    """
    _check_threads()
    from app.road import Road

    gpus, reason = ([], "") if settings.device == "cpu" else gpu_bytes()
    if reason and settings.device == "auto":
        sys.stderr.write(f"pullback: there are GPUs, and CUDA cannot use them, so the CPU computes: {reason}\n")
    if not gpus:
        os.environ.update(NO_GPU)
    try:
        first = worker_slots(settings, gpus)[0]
    except RuntimeError as error:
        raise ServiceError(f"{error}.{reason and f' CUDA says: {reason}'}", EXIT_SETTINGS) from None
    road = Road(limits(settings, first), "cpu", settings.functions_folder, settings.batching)
    if not gpus:
        # With GPUs, even a backward pass on the CPU would start a thread for each and open CUDA here.
        road.warm()
    _check_threads()
    return gpus, road


@contextlib.contextmanager
def never_collected() -> Iterator[None]:
    """What is made within is never looked through by the garbage collector."""
    # Next to nothing of what an import of PyTorch makes is garbage (14,000 of 340,000 objects, and no page comes free where they go): to
    # look through it again and again was a fifth of the start, to do so once at its end still 0.25 to 0.3 s of CPU time.
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # the collector must not write into pages that parent and children share
        gc.enable()


def main(parent_pid: int, descriptor: int, lifeline: int) -> None:
    """Serve the front, process `parent_pid`, at the other end of `descriptor`, a Unix stream socket; `lifeline`: a pipe from it."""
    linux.die_with_parent(parent_pid)
    linux.ignore_terminal_signals()
    linux.keep_buffers()
    connection = socket.socket(fileno=descriptor)
    try:
        settings = Settings()
        with never_collected():
            gpus, road = prepare(settings)
        send_all(connection, encode(Kind.HELLO, meta=orjson.dumps({"gpus": gpus}), body=[road.functions()]))
        Forkserver(connection, lifeline, road, settings).run()
    except ServiceError as error:
        # Said by the front, which ends with this status.
        meta = {"reason": str(error), "exit_status": error.exit_status}
        send_all(connection, encode(Kind.FAILED, meta=orjson.dumps(meta)))
        sys.exit(error.exit_status)
    except Exception as error:
        # It may heal (no memory, no process to be had), so the front tries again some times; one line says what it was.
        sys.exit(f"pullback: the parent of the workers: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
