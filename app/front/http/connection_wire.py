"""A request's own connection, as the application may use it: one write for a whole reply, and a large body in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.front.http import responses
from app.front.http.receiver import Upload
from app.pool.frames import Buffer


class OwnConnection(Protocol):
    """What is asked of the connection."""

    upload: Upload | None

    async def receive_upload(self, size: int, allocate: Callable[[int], memoryview | None]) -> list[memoryview] | None:
        """As `Wire.receive`."""

    def finish(self) -> None:
        """The response is out, and it was the connection's last."""


class ConnectionWire:
    """One request's connection, as `wire.Wire` has it."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, connection: OwnConnection, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle

    @property
    def awaits_continue(self) -> bool:
        return self._cycle.waiting_for_100_continue

    async def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Buffer, *, closes: bool) -> None:
        cycle = self._cycle
        if cycle.flow.write_paused:
            # The reply before this one has not been taken yet.
            await cycle.flow.drain()
        if cycle.disconnected or cycle.transport.is_closing():
            return
        head = responses.head(status, (*cycle.default_headers, *headers))
        if not cycle.keep_alive or closes:
            cycle.keep_alive = False
            head += responses.CLOSING
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        cycle.transport.writelines((head, b"\r\n", body))
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._connection.finish()
        cycle.on_response()

    async def receive(self, size: int, allocate: Callable[[int], memoryview | None]) -> list[memoryview] | None:
        return await self._connection.receive_upload(size, allocate)

    def drop(self) -> None:
        if self._connection.upload is not None:
            self._connection.upload.drop()
