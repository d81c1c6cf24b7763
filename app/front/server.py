"""The server: uvicorn with our connections, and an end in three steps: refuse what is new, finish what runs, leave nothing behind."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final

from app.errors import ServiceError
from app.front.application import Application
from app.front.connection_limit import Connections, most_connections
from app.front.http.connection import Connection
from app.front.http.pace import TransferLimits
from app.front.http.uvicorn_base import UvicornServer
from app.front.membership import Membership
from app.pool import linux
from app.settings import Settings

_KEEP_ALIVE_S: Final = 75  # nginx's default (keepalive_timeout)
# After the drain, for connections to take their last bytes.
_LAST_BYTES_S: Final = 2
_STEP_S: Final = 0.01  # how late the end of the last query is noticed while the server drains
# From one look at the connections to the next: twice uvicorn's tick; what is more, this process did not run.
_LATE_S: Final = 0.2
# Every five seconds; a trim of a gigabyte takes a tenth of a second.
_TRIM_EVERY_TICKS: Final = 50
# So much is kept for the next bodies.
_FREE_BYTES_LIMIT: Final = 64 << 20
# Beside a whole body: what else a client sends that does not look for our refusal.
_DISCARDED_BYTES: Final = 64 << 20


class Server(UvicornServer):
    """One server on one listening socket.

    Arguments:
        on_ready: called once, when the first worker can answer.
        membership: where this is one of several fronts.

    Attributes:
        failure: why it has ended by itself, where it has.
    """

    def __init__(
        self,
        application: Application,
        settings: Settings,
        on_ready: Callable[[], None],
        membership: Membership | None = None,
    ) -> None:
        fronts = 1 if membership is None else membership.count
        limit = most_connections(application.settings.queue_bytes, application.settings.workers, fronts)
        crowd = Connections(limit) if membership is None else membership.connections(limit)
        super().__init__(
            application,
            partial(Connection, crowd=crowd, uncounted_port=settings.metrics_port),
            keep_alive_s=_KEEP_ALIVE_S,
            last_bytes_s=_LAST_BYTES_S,
            listens=membership is None,
        )
        self._application = application
        self._settings = settings
        self._on_ready = on_ready
        self._resident_bytes = 0  # at the start
        self._looked = math.inf  # at the connections
        self.failure: ServiceError | None = None
        self._limits = TransferLimits(
            settings.body_timeout_s,
            settings.body_floor_bytes_per_s,
            settings.reply_floor_bytes_per_s,
            application.settings.body_limit_bytes + _DISCARDED_BYTES,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def started_up(self) -> None:
        self._resident_bytes = linux.resident_bytes()
        self._loop = asyncio.get_running_loop()
        if not self.is_ending:
            self._start(self._announce())
            self._start(self._end_on_failure())

    def tick(self, counter: int) -> None:
        now = asyncio.get_running_loop().time()
        late_s, self._looked = max(0.0, now - self._looked - _LATE_S), now
        admission = self._application.admission
        pressed = admission is not None and admission.pool.budget.is_pressed
        for connection in self.open_connections:
            if isinstance(connection, Connection):
                connection.check_in_time(now, self._limits, pressed=pressed, late_s=late_s)
        if counter % _TRIM_EVERY_TICKS == 0 and admission is not None:
            # Freed buffers are kept for the next bodies, but not for ever: malloc would never give back what lies in between.
            excess = linux.resident_bytes() - admission.pool.budget.held_bytes - self._resident_bytes
            if excess > _FREE_BYTES_LIMIT:
                linux.trim_heap()

    def signalled(self) -> None:
        """The first signal begins the drain; the second ends everything at once."""
        admission = self._application.admission
        if self._loop is None or admission is None:
            self.end_soon()
        elif admission.draining:
            self.end_soon(at_once=True)
            self._loop.call_soon_threadsafe(admission.pool.kill)
        else:
            admission.draining = True
            self._loop.call_soon_threadsafe(self._start_drain)

    def hung_up(self) -> None:
        """As the first signal, never as the second: the shell and the system may both send it."""
        admission = self._application.admission
        if admission is None or not admission.draining:
            self.signalled()

    def _start_drain(self) -> None:
        self._start(self._drain())

    async def _drain(self) -> None:
        """Queries in flight are finished, new ones are refused with 503, and then the server ends."""
        admission = self._application.admission
        loop = asyncio.get_running_loop()
        patience = loop.time() + self._settings.drain_timeout_s
        while admission is not None and admission.busy and loop.time() < patience:
            await asyncio.sleep(_STEP_S)
        self._drained()

    def _drained(self) -> None:
        """No query is in flight any more."""
        self.end_soon()

    async def _announce(self) -> None:
        admission = self._application.admission
        if admission is not None:
            await admission.pool.until_ready()
            self._on_ready()

    async def _end_on_failure(self) -> None:
        admission = self._application.admission
        if admission is not None:
            self.failure = await admission.pool.supervisor.failure
            self.end_soon()

    def _start(self, step: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
