"""An exchange: one HTTP request and its response, with what the log and the metrics want to know of it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, MutableMapping
from itertools import count
from typing import Any, Final

import orjson
from starlette.types import Message, Scope, Send

from app.errors import PullbackError
from app.front.http.responses import retry_after
from app.front.http.wire import REQUEST_ID, WIRE, Wire
from app.pool.frames import Buffer
from app.protocols.registry import refused_at

Headers = Iterable[tuple[bytes, bytes]]

# Where a connection that refuses a request by itself leaves the code, in the request's scope.
REFUSED: Final = "pullback.refused"

# A response larger than this is sent in pieces, each after the client has taken most of the one before.
PIECE_BYTES: Final = 1 << 20
_CLOSE: Final = (b"connection", b"close")
# A client's own name for a request; 128 letters hold a trace context (55) twice.
REQUEST_ID_PATTERN: Final = "[A-Za-z0-9._-]{1,128}"
_REQUEST_ID: Final = re.compile(REQUEST_ID_PATTERN.encode())
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# What a client that has hung up is logged with (nginx's number).
CLIENT_GONE: Final = 499


class Exchange:
    """One request on its way.

    Attributes:
        client: who asks, as far as the queue tells clients apart: the owner of a key, or an address.
        headers: the request's, by lower-case name; of a repeated one the last.
        arrived: seconds on CLOCK_MONOTONIC.
        status, bytes_out: of the response, 0 while there is none; `bytes_in`: of the body.
        code: the error's code, empty where there is none.
        labels, timings, worker: what the worker said; empty and -1 where none was asked.
    """

    __slots__ = (
        "arrived", "bytes_in", "bytes_out", "client", "code", "extra", "headers", "labels", "method", "path", "queue_s", "request_id",
        "scope", "send", "status", "timings", "traceparent", "worker",
    )  # fmt: skip

    def __init__(
        self, scope: Scope, send: Send, headers: MutableMapping[bytes, bytes], request_id: str, arrived: float
    ) -> None:
        scope[REQUEST_ID] = request_id
        self.scope = scope
        self.send = send
        self.headers = headers
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.request_id = request_id
        self.arrived = arrived
        self.client = address_of(scope)
        traceparent = headers.get(b"traceparent")
        self.traceparent = traceparent if traceparent is not None and _TRACEPARENT.fullmatch(traceparent) else None
        self.extra: list[tuple[bytes, bytes]] = []
        self._begin_anew()

    def again(self, request_id: str, arrived: float) -> Exchange:
        """The exchange of the next request under the same head, on the same connection; only its Content-Length may be another."""
        other = Exchange.__new__(Exchange)
        scope = self.scope
        scope[REQUEST_ID] = request_id
        other.scope = scope
        other.send = self.send
        other.headers = self.headers
        other.method = self.method
        other.path = self.path
        other.request_id = request_id
        other.arrived = arrived
        other.client = self.client
        other.traceparent = self.traceparent
        other.extra = self.extra
        other._begin_anew()
        return other

    def _begin_anew(self) -> None:
        """There is no answer yet."""
        self.status = 0
        self.code = ""
        self.bytes_in = 0
        self.bytes_out = 0
        self.queue_s = 0.0
        self.labels: Mapping[str, str] = {}
        self.timings: Mapping[str, float] = {}
        self.worker = -1

    def common_headers(self) -> list[tuple[bytes, bytes]]:
        """What every response carries."""
        headers = [(b"x-request-id", self.request_id.encode()), *self.extra]
        if self.traceparent is not None:
            headers.append((b"traceparent", self.traceparent))
        return headers

    async def respond(self, status: int, media_type: bytes, body: Buffer, headers: Headers = ()) -> None:
        """Send the whole response; returns when the client has taken it, but for a last piece of `PIECE_BYTES`."""
        wire: Wire | None = self.scope.get(WIRE)
        if len(body) <= PIECE_BYTES:
            await self._respond_at_once(status, media_type, body, headers)
        elif wire is not None and self.method != "HEAD":
            # The memory is there in any case, and the system takes from it what it can without us.
            await self._respond_at_once(status, media_type, body, headers)
            await wire.free()
        else:
            await self._respond_piece_by_piece(status, media_type, body, headers)

    async def _respond_piece_by_piece(self, status: int, media_type: bytes, body: Buffer, headers: Headers) -> None:
        await self._begin(status, media_type, len(body), headers)
        view = memoryview(body)
        for start in range(0, len(view), PIECE_BYTES):
            end = start + PIECE_BYTES
            await self.send({"type": "http.response.body", "body": view[start:end], "more_body": end < len(view)})

    async def respond_in_pieces(
        self, status: int, media_type: bytes, size: int, pieces: Iterable[Buffer], headers: Headers = ()
    ) -> None:
        """Send a response of `size` bytes whose body is not joined."""
        await self._begin(status, media_type, size, headers)
        gathered = bytearray()
        for piece in pieces:
            gathered += piece
            if len(gathered) >= PIECE_BYTES:
                await self.send({"type": "http.response.body", "body": gathered, "more_body": True})
                gathered = bytearray()
        await self.send({"type": "http.response.body", "body": gathered})

    async def refuse(self, error: PullbackError, headers: Headers = (), *, closes: bool = False) -> None:
        """Send a refusal in the shape of the path's protocol. `closes`: the client may still be sending what was not read."""
        self.code = error.code
        refusal = refused_at(self.path, error, self.request_id)
        headers = [*retry_after(error), *headers]
        await self._respond_at_once(
            refusal.status, refusal.media_type.encode(), b"".join(refusal.buffers), headers, closes=closes
        )

    async def _respond_at_once(
        self, status: int, media_type: bytes, body: Buffer, headers: Headers, *, closes: bool = False
    ) -> None:
        wire: Wire | None = self.scope.get(WIRE)
        if wire is None or self.method == "HEAD":
            await self._begin(status, media_type, len(body), [*headers, *([_CLOSE] if closes else [])])
            await self.send({"type": "http.response.body", "body": body})
            return
        await wire.free()
        self.respond_now(wire, status, media_type, body, headers, closes=closes or wire.awaits_continue)

    def respond_now(
        self, wire: Wire, status: int, media_type: bytes, body: Buffer, headers: Headers = (), *, closes: bool = False
    ) -> None:
        """Send the whole response, where the connection takes it at once."""
        self.status = status
        self.bytes_out = len(body)
        wire.reply(status, self._headers(media_type, len(body), headers), body, closes=closes)

    def _headers(self, media_type: bytes, size: int, headers: Headers) -> list[tuple[bytes, bytes]]:
        return [(b"content-type", media_type), (b"content-length", b"%d" % size), *self.common_headers(), *headers]

    async def _begin(self, status: int, media_type: bytes, size: int, headers: Headers) -> None:
        self.status = status
        self.bytes_out = size
        headers = [*self._headers(media_type, size, headers), *self._closing()]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    def _closing(self) -> list[tuple[bytes, bytes]]:
        """The body of a client that waits for "100 Continue" will not come, nor may the next request be taken for it (9110, 10.1.1)."""
        wire: Wire | None = self.scope.get(WIRE)
        return [_CLOSE] if wire is not None and wire.awaits_continue else []

    async def send_watched(self, message: Message) -> None:
        """An ASGI `send` for applications that speak for themselves: adds the common headers and takes note."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            message = {**message, "headers": headers + self.common_headers() + self._closing()}
        elif message["type"] == "http.response.body":
            self.bytes_out += len(message.get("body", b""))
        await self.send(message)


def address_of(scope: Mapping[str, Any]) -> str:
    """The client's address; of IPv6 the network of 64 bits, which one customer has for himself (RFC 6177)."""
    host: str = (scope.get("client") or ("",))[0]
    if ":" not in host:
        return host
    try:
        return str(ipaddress.IPv6Network((host.partition("%")[0], 64), strict=False))
    except ValueError:
        return host


class RequestIds:
    """The client's own request id where it is a harmless word of at most 128 letters, digits and `._-`; else one of ours."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._count = count(1)

    def of(self, headers: Mapping[bytes, bytes]) -> str:
        sent = headers.get(b"x-request-id")
        if sent is not None and _REQUEST_ID.fullmatch(sent):
            return sent.decode("ascii")
        return f"{self._seed}-{next(self._count):x}"


def problem(error: PullbackError, request_id: str | None) -> bytes:
    """The body of a refusal, as `application/problem+json`."""
    return orjson.dumps(error.problem(request_id))


def text_of(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    """A header as text, None where it is absent."""
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
