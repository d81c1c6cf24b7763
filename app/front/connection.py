"""A connection: uvicorn's httptools protocol with the bounds that it leaves open.

Knows header bytes, chunks and stalls as they arrive, where the guard, which sees whole requests, comes too late. Refuses to know
what a request asks.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.errors import PROBLEM_MEDIA_TYPE, PullbackError
from app.front.exchange import problem
from app.front.guard import HEADER_BYTES_LIMIT, headers_too_large

# Triton's cap on the chunks of one body, after CVE-2025-23310.
CHUNK_LIMIT: Final = 65_536
# For how long a refused client may go on sending before the connection is cut: it should read the refusal first.
_LINGER_S: Final = 1.0


class Connection(HttpToolsProtocol):
    """One client's connection.

    Attributes:
        waiting_since: since when the rest of a request's headers is awaited, on the loop's clock; None while none is.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.waiting_since: float | None = None
        self._header_bytes = 0
        self._chunks = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waiting_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self.waiting_since is not None:
            # Counted here, as the parser speaks of a header only when all of it is there.
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_BYTES_LIMIT:
                self._refuse(headers_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.waiting_since = self.loop.time()
        self._header_bytes = self._chunks = 0

    def on_headers_complete(self) -> None:
        self.waiting_since = None
        super().on_headers_complete()

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

    def send_400_response(self, msg: str) -> None:
        self._refuse(PullbackError("bad_request", msg, fix="Send HTTP/1.1 as RFC 9112 has it."))

    def check_headers_in_time(self, now: float, limit_s: float) -> None:
        """Refuse where the headers of a request have not come within `limit_s` seconds."""
        if self.waiting_since is not None and now - self.waiting_since > limit_s and not self._refused:
            self._refuse(PullbackError("body_timeout", f"The request's headers did not come within {limit_s:g} s."))

    def _refuse(self, error: PullbackError) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self.waiting_since = None
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = problem(error, None)
            self.transport.write(
                STATUS_LINE[error.status]
                + b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (PROBLEM_MEDIA_TYPE.encode(), len(body), body)
            )
        self.transport.resume_reading()
        self.loop.call_later(_LINGER_S, self._cut)

    def _cut(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
