"""A connection: uvicorn's httptools protocol with the bounds that it leaves open.

Knows header bytes, chunks and stalls as they arrive, where the middleware, which sees whole requests, comes too late. Refuses to know
what a request asks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.errors import PullbackError
from app.front.http.exchange import HEADER_BYTES_LIMIT, REFUSED, headers_too_large
from app.front.http.wire import WIRE
from app.pool.frames import Buffer
from app.protocols.registry import refused_at

# Triton's cap on the chunks of one body, after CVE-2025-23310.
CHUNK_LIMIT: Final = 65_536
# Below this rate, in bytes a second, a body counts as stalled even if a byte comes now and then.
_SLOWEST: Final = 1024
# For how long a refused client may go on sending before the connection is cut: it should read the refusal first.
_LINGER_S: Final = 1.0
# So that one upload leaves the others their turn.
_TURN_BYTES: Final = 1 << 20


class Connection(HttpToolsProtocol):
    """One client's connection. `check_in_time` is called by the server now and then."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Since when, on the loop's clock, a request is being received; None while none is.
        self._receiving_since: float | None = None
        self.upload: Upload | None = None
        self._unsent = (0, 0.0)  # bytes that the client has not taken, and since when just so many
        self._in_headers = True
        self._last_data = 0.0
        self._received = 0
        self._chunks = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._receiving_since = self._last_data = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._receiving_since is not None:
            self._last_data = self.loop.time()
            self._received += len(data)
            # Counted here, as the parser speaks of a header only when all of it is there.
            if self._in_headers and self._received > HEADER_BYTES_LIMIT:
                self._refuse(headers_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._receiving_since = self._last_data = self.loop.time()
        self._in_headers = True
        self._received = self._chunks = 0

    def on_headers_complete(self) -> None:
        self._in_headers = False
        super().on_headers_complete()
        # The request's task starts later, so that it finds this in its scope.
        self.scope[WIRE] = ConnectionWire(self, self.cycle)  # type: ignore[typeddict-unknown-key]

    def on_message_complete(self) -> None:
        self._receiving_since = None
        super().on_message_complete()

    def on_chunk_header(self) -> None:
        """Called by the parser before each chunk of a body."""
        self._chunks += 1
        if self._chunks == CHUNK_LIMIT + 1:
            self._refuse(
                PullbackError(
                    "bad_request",
                    "The body comes in too many chunks.",
                    expected=f"at most {CHUNK_LIMIT} chunks",
                    fix="Send larger chunks, or the whole body with a Content-Length.",
                )
            )

    def note_progress(self, count: int) -> None:
        """`count` bytes of the body have come by an upload."""
        self._last_data = self.loop.time()
        self._received += count

    def body_complete(self) -> None:
        """An upload has received the rest of the body, past the parser, whose message ends with that."""
        self.parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(AttributeError):  # before httptools 0.6.3; as uvicorn does
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(PullbackError("bad_request", msg, fix="Send HTTP/1.1 as RFC 9112 has it."))

    def check_in_time(self, now: float, limit_s: float) -> None:
        """Refuse where a request has begun to come and nothing more of it has come for `limit_s` seconds, or too little in all."""
        self._check_sending(now, limit_s)
        if self._receiving_since is None or self.flow.read_paused or self._refused:
            return
        worst = self._receiving_since + limit_s + self._received / _SLOWEST
        if now > min(self._last_data + limit_s, worst):
            self._refuse(
                PullbackError(
                    "body_timeout",
                    f"After {self._received} bytes, the rest of the request did not come in time.",
                    expected=f"the next bytes within {limit_s:g} s, and at least {_SLOWEST} bytes a second",
                    fix="Check that Content-Length is the length of what is sent, and send without pauses.",
                )
            )

    def _check_sending(self, now: float, limit_s: float) -> None:
        """Cut a client that takes nothing of its reply for `limit_s` seconds: the reply would stay in memory for ever."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent != self._unsent[0]:
            self._unsent = (unsent, now)
        elif now - self._unsent[1] > limit_s:
            self.transport.abort()

    def _refuse(self, error: PullbackError) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._receiving_since = None
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            # Before the request line is read there is no path, and the refusal is in our own shape.
            refusal = refused_at(getattr(self, "scope", {}).get("path", ""), error, None)
            body = b"".join(refusal.buffers)
            self.transport.write(
                STATUS_LINE[refusal.status]
                + b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (refusal.media_type.encode(), len(body), body)
            )
        if cycle is not None and not cycle.response_complete:
            # Whoever waits for the rest of the body learns that it will not come, and writes nothing more.
            self.scope[REFUSED] = error.code  # type: ignore[typeddict-unknown-key]
            cycle.disconnected = True
            cycle.message_event.set()
        if self.upload is not None:
            self.upload.end(complete=False)
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_S, self._cut)

    def _cut(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class ConnectionWire:
    """One request's connection, as `wire.Wire` has it."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle

    def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Buffer) -> None:
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
