"""The wire: what a request can do with its own connection beyond ASGI: reply in one write, and receive a large body in place.

Knows uvicorn's request cycle and asyncio's buffered protocols. Refuses to know what is sent and received. Handed to the
application in the request's scope; where another server runs the application it is not there, and ASGI serves as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.pool.frames import Buffer

if TYPE_CHECKING:
    from app.front.http.connection import Connection

# The key of a request's wire in its scope.
WIRE: Final = "pullback.wire"
# So that one upload leaves the others their turn.
_TURN_BYTES: Final = 1 << 20


class Wire:
    """One request's connection."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle

    def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Buffer) -> None:
        """Send a whole response with one system call, where ASGI's two messages would take two and wake the client twice."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        head = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            head += (name, b": ", value, b"\r\n")
        head.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        cycle.transport.writelines((b"".join(head), body))
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()

    async def receive_into(self, memory: memoryview) -> bool:
        """Receive the rest of a body of known length into `memory`, which it fills; False where the client hung up before."""
        upload = Upload(self._connection, memory)
        return await upload.run()


class Upload(asyncio.BufferedProtocol):
    """Takes the place of a connection's HTTP protocol while the rest of a body comes: no parser needs to see it."""

    def __init__(self, connection: Connection, memory: memoryview) -> None:
        self._connection = connection
        self._memory = memory
        self._filled = 0
        self._done: asyncio.Future[bool] = connection.loop.create_future()

    async def run(self) -> bool:
        connection = self._connection
        if connection.transport.is_closing():
            return False
        connection.upload = self
        connection.transport.set_protocol(self)
        connection.flow.resume_reading()
        try:
            complete = await self._done
        finally:
            connection.upload = None
            connection.transport.set_protocol(connection)
        if complete:
            connection.body_complete()
        return complete

    def end(self, complete: bool) -> None:
        """All of it is there, or no more of it will come."""
        if not self._done.done():
            self._done.set_result(complete)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._memory[self._filled : self._filled + _TURN_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._connection.note_progress(nbytes)
        if self._filled == len(self._memory):
            # What follows belongs to the next request, and so to the parser.
            self._connection.flow.pause_reading()
            self.end(True)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
        self.end(False)
