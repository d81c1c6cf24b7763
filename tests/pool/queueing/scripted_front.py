"""A pool in this process whose workers are this side's alone: a test says what they answer, and what the time is."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence

from app.pool.budget import SMALL_BYTES
from app.pool.frames import Buffer, Frame, Kind, Reader
from app.pool.handles.worker_handle import WorkerHandle
from app.pool.job import Job, asked_of, nobody_waits
from app.pool.pool import Pool
from app.pool.slabs.slab import Slab
from app.pool.worker_slots import WorkerSlot
from app.settings import Settings


class Front:
    """A pool with workers that do only what the test says, and what the first was sent. Times are seconds after its beginning."""

    def __init__(self, count: int = 1) -> None:
        self.began = time.monotonic()
        self.pool = Pool(Settings(workers=1, device="cpu"), lambda event, **facts: None)
        self.dispatch = self.pool._dispatch
        slot = WorkerSlot("cpu", 1, 1 << 30, 8 << 20)
        self.pool.supervisor.slots = (slot,) * count
        loop = asyncio.get_running_loop()
        lines = [socket.socketpair() for _ in range(count)]
        self._worker_end, *self._others_ends = (worker_end for _, worker_end in lines)
        self.worker, *self.others = (
            WorkerHandle(loop, index + 1, index, slot, front_end, self.pool.on_frame, self.pool.on_lost, lambda _: None)
            for index, (front_end, _) in enumerate(lines)
        )
        for worker in (*self.others, self.worker):
            worker.probe_answered(Frame(Kind.READY, 0, 0.0, b'{"probe": true, "slab": true}', b""), self.began)
            worker.state = "ready"
            self.pool.on_ready(worker)

    def ask(self, number: int, client: str = "a", *, large: bool = False, deadline_s: float = 60.0, size: int = 1) -> Job:
        """`large`: as large as stands in the slab of the worker; `size`: in bytes, of another."""
        size = SMALL_BYTES if large else size
        body: Sequence[Buffer] = (b"x" * size,)
        if large:
            staged = self.worker.stage(size)
            assert staged is not None
            body = staged
        asked = asked_of("query", None, None, None)
        now = self.began
        meta = asked.meta("x")
        job = Job(number, client, asked.text, meta, body, size, now, now + deadline_s, nobody_waits)
        self.pool._queue(job, now)
        return job

    def begun(self, number: int) -> None:
        """The worker has begun it, as its slab says."""
        (descriptor,) = self.worker._shared.descriptors
        Slab(descriptor, self.worker.slot.slab_bytes, is_front=False, on_read=lambda _: None).mark(number)

    def died(self, exit_code: int, seconds: float) -> None:
        """The worker has, and its line and its parent have said so."""
        self.pool.supervisor._worker_lost(self.worker)
        self.worker.head_since -= seconds
        self.pool.supervisor._exited(self.worker, exit_code)

    def tick(self, seconds: float) -> None:
        self.dispatch.tick(self.began + seconds)

    def replied(self, number: int) -> None:
        meta = b'{"status": 200, "media_type": "application/json"}'
        self.pool.on_frame(self.worker, Frame(Kind.REPLY, number, 0.0, meta, b"{}"))

    def dropped(self, number: int) -> None:
        self.pool.on_frame(self.worker, Frame(Kind.DROPPED, number, 0.0, b"", b""))

    async def end(self) -> list[tuple[Kind, int]]:
        """What the worker was sent, in order; nothing more will be."""
        await asyncio.sleep(0)
        for worker, worker_end in zip(self.others, self._others_ends, strict=True):
            worker.kill()
            worker_end.close()
        self.worker.kill()
        self._worker_end.setblocking(False)
        reader, frames = Reader(), list[Frame]()
        with self._worker_end:
            while count := self._worker_end.recv_into(reader.buffer()):
                frames += reader.received(count)
        self.pool.kill()
        return [(frame.kind, frame.number) for frame in frames]
