"""The front's end of a worker's loop, which runs in a thread of the test."""

from __future__ import annotations

import socket
import threading

from app.limits import Limits
from app.pool.frames import Frame, Reader
from app.pool.slabs.worker_bodies import WorkerBodies
from app.pool.worker import Worker
from app.road import Road


class WorkerLine:
    """A socketpair with a worker behind it. `bodies`: the worker's side of a slab, where there is one."""

    def __init__(self, bodies: WorkerBodies | None = None) -> None:
        self.connection, self._other = socket.socketpair()
        self.connection.settimeout(60)  # a hang guard
        self._reader = Reader()
        self._thread = threading.Thread(target=Worker(self._other, Road(Limits(), "cpu"), bodies).run, daemon=True)
        self._thread.start()

    def received(self) -> list[Frame]:
        """The frames that the next bytes complete, if any."""
        count = self.connection.recv_into(self._reader.buffer())
        assert count, "the worker has ended"
        return self._reader.received(count)

    def close(self) -> None:
        self.connection.close()
        self._thread.join()
        self._other.close()
