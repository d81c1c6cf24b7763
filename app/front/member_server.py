"""The server of one front of several: it listens nowhere, is handed connections by the parent, and ends when the parent says so."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from functools import partial
from typing import Final

from app.front.application import Application
from app.front.membership import Membership
from app.front.server import Server
from app.group.counts import Counts
from app.settings import Settings

# Ticks between two reports of what was counted: a second. It costs a third of a millisecond.
_COUNTS_EVERY_TICKS: Final = 10
_AGAIN_S: Final = 0.1  # where the line to the parent is full


class MemberServer(Server):
    """One front's. What the parent may ask of it is `membership.Conduct`."""

    def __init__(self, application: Application, settings: Settings, membership: Membership) -> None:
        super().__init__(application, settings, self._tell_ready, membership)
        self._membership = membership
        self._counted: Counts = {}

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The parent has them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        if not self.should_exit:
            self._membership.listen(asyncio.get_running_loop(), self)

    async def on_tick(self, counter: int) -> bool:
        self._tell_ready()
        if counter % _COUNTS_EVERY_TICKS == 0 and (counts := self.counts()) != self._counted:
            self._counted = counts
            self._membership.tell_counts(counts)
        return await super().on_tick(counter)

    def _tell_ready(self) -> None:
        admission = self._application.admission
        self._membership.beat(ready=admission is not None and admission.pool.is_ready)

    # What the parent asks

    def take(self, connection: socket.socket) -> None:
        self._start(self._take(connection))

    async def _take(self, connection: socket.socket) -> None:
        # On the port of metrics it is the operator who asks.
        is_counted = connection.getsockname()[1] != self._settings.metrics_port
        try:
            connection.setblocking(False)
            state = self.lifespan.state
            protocol = partial(self._connection, config=self.config, server_state=self.server_state, app_state=state)
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
            if is_counted:
                self._membership.tell_taken()
        except OSError:
            connection.close()
            if is_counted:
                self._membership.lost()

    def drain(self) -> None:
        self.handle_exit(signal.SIGTERM, None)

    def end(self, *, at_once: bool) -> None:
        admission = self._application.admission
        if at_once and admission is not None:
            self.force_exit = True
            admission.pool.kill()
        self.should_exit = True

    def quarantine(self, mark: str, size: int) -> None:
        if self._application.admission is not None:
            self._application.admission.pool.quarantine(mark, size)

    def learn(self, asked: bytes, meta: bytes, body: bytes) -> None:
        if self._application.admission is not None:
            self._application.admission.pool.rehearsal.learn(asked, meta, body)

    def forget(self, mark: bytes) -> None:
        if self._application.admission is not None:
            self._application.admission.pool.rehearsal.forget(mark)

    def counts(self) -> Counts:
        return self._application.counts()

    def _drained(self) -> None:
        """The others may not be."""
        if not self._membership.tell_drained():
            asyncio.get_running_loop().call_later(_AGAIN_S, self._drained)
