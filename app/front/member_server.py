"""The server of one front of several: it listens nowhere, is handed connections by the parent, and ends when the parent says so."""

from __future__ import annotations

import asyncio
import socket
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

    def started_up(self) -> None:
        super().started_up()
        if not self.is_ending:
            self._membership.listen(asyncio.get_running_loop(), self)

    def tick(self, counter: int) -> None:
        self._tell_ready()
        if counter % _COUNTS_EVERY_TICKS == 0 and (counts := self.counts()) != self._counted:
            self._counted = counts
            self._membership.tell_counts(counts)
        super().tick(counter)

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
            await self.connect(connection)
            if is_counted:
                self._membership.tell_taken()
        except OSError:
            connection.close()
            if is_counted:
                self._membership.lost()

    def drain(self) -> None:
        self.signalled()

    def end(self, *, at_once: bool) -> None:
        admission = self._application.admission
        if at_once and admission is not None:
            admission.pool.kill()
        self.end_soon(at_once=at_once and admission is not None)

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
