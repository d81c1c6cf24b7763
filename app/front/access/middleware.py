"""The middleware: the outermost layer. Header caps, keys, foreign pages, request ids; and no exception passes it.

Knows which endpoints compute, and leads to them directly; everything else goes to the application behind it. Refuses to know bodies.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
import traceback
from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import CODES, PullbackError
from app.front.http.body import ClientGoneError
from app.front.http.exchange import (
    CLIENT_GONE,
    HEADER_BYTES_LIMIT,
    HEADER_COUNT_LIMIT,
    REFUSED,
    Exchange,
    RequestIds,
    headers_too_large,
)
from app.front.observability.request_recorder import RequestRecorder
from app.protocols.registry import PUBLIC_PATHS, protocol_of
from app.settings import Settings

# Where an inner application finds the request's id in its scope.
REQUEST_ID: Final = "pullback.request_id"
# Open to all: what asks them, an orchestrator's probe, carries no key.
_OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready"}) | PUBLIC_PATHS
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Endpoint(Protocol):
    """An endpoint that computes: it is handed the exchange, so that a small query pays for nothing that it does not use."""

    async def __call__(self, exchange: Exchange, receive: Receive) -> None: ...


class Middleware:
    """ASGI application around `inner`.

    Arguments:
        endpoints: path → the endpoint that takes `POST` there.
        foreign: name of a foreign protocol → what takes everything at its addresses.
    """

    def __init__(
        self,
        inner: ASGIApp,
        endpoints: Mapping[str, Endpoint],
        foreign: Mapping[str, Endpoint],
        settings: Settings,
        recorder: RequestRecorder,
    ) -> None:
        self._inner = inner
        self._endpoints = endpoints
        self._foreign = foreign
        self._recorder = recorder
        self._keys = tuple(hashlib.sha256(key.encode()).digest() for key in settings.api_keys)
        self._origins = frozenset(settings.allowed_origins)
        self._only_loopback = settings.host in _LOOPBACK_NAMES
        self._ids = RequestIds(secrets.token_hex(4))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        pairs: list[tuple[bytes, bytes]] = scope["headers"]
        headers = dict(pairs)
        exchange = Exchange(scope, send, headers, self._ids.of(headers), time.monotonic())
        try:
            self._check_size(pairs)
            if self._keys and exchange.path not in _OPEN_PATHS:
                self._check_key(pairs)
            if (origin := headers.get(b"origin")) is not None and await self._origin_answered(exchange, origin):
                return
            endpoint = self._endpoints.get(exchange.path)
            if endpoint is None:
                await self._elsewhere(exchange, receive)
            elif exchange.method == "POST":
                await endpoint(exchange, receive)
            else:
                await exchange.refuse(_not_allowed(exchange.method, "POST"), [(b"allow", b"POST")])
        except PullbackError as error:
            await self._refuse(exchange, error)
        except ClientGoneError:
            self._note_gone(exchange)
        except Exception as error:
            await self._broken(exchange, error)
        finally:
            self._recorder.ended(exchange)

    async def _elsewhere(self, exchange: Exchange, receive: Receive) -> None:
        """A foreign protocol's address, or a page."""
        protocol = protocol_of(exchange.path)
        if protocol is None:
            await self._pass_on(exchange, receive)
        else:
            await self._foreign[protocol.name](exchange, receive)

    async def _pass_on(self, exchange: Exchange, receive: Receive) -> None:
        # The server, which has its own scope, leaves the body of a HEAD out.
        method = "GET" if exchange.method == "HEAD" else exchange.method
        scope = {**exchange.scope, "method": method, REQUEST_ID: exchange.request_id}
        await self._inner(scope, receive, exchange.send_watched)

    async def _refuse(self, exchange: Exchange, error: PullbackError) -> None:
        if exchange.status:
            # Too late for another status: the connection is closed instead, by the server.
            raise error
        headers = [(b"www-authenticate", b"Bearer")] if error.code == "unauthorized" else []
        await exchange.refuse(error, headers)

    def _note_gone(self, exchange: Exchange) -> None:
        """The client has hung up, or its connection has refused it: as our log and metrics should have it."""
        exchange.code = exchange.scope.get(REFUSED, "")
        exchange.status = CODES[exchange.code][0] if exchange.code else CLIENT_GONE

    async def _broken(self, exchange: Exchange, error: Exception) -> None:
        trace = "".join(traceback.format_exception(error))
        self._recorder.log.event("exception", level="error", request_id=exchange.request_id, trace=trace)
        if exchange.status:
            raise error
        await exchange.refuse(
            PullbackError("internal", "Something broke on our side; it has been logged under the request id.")
        )

    def _check_size(self, pairs: list[tuple[bytes, bytes]]) -> None:
        size = 0
        for name, value in pairs:
            size += len(name) + len(value)
        if len(pairs) > HEADER_COUNT_LIMIT or size > HEADER_BYTES_LIMIT:
            raise headers_too_large()

    def _check_key(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """Every key that is given must be one of ours; comparing takes the same time wherever they differ."""
        given = []
        for name, value in pairs:
            if name == b"x-api-key":
                given.append(value)
            elif name == b"authorization":
                scheme, _, key = value.partition(b" ")
                given.append(key.strip() if scheme.lower() == b"bearer" else b"")
        if not given or not all(self._is_key(key) for key in given):
            raise PullbackError(
                "unauthorized",
                "This server answers only to those who have one of its API keys.",
                expected="the header Authorization: Bearer KEY, or X-API-Key: KEY",
                fix="Send one of the keys that the server was started with (PULLBACK_API_KEYS).",
            )

    def _is_key(self, given: bytes) -> bool:
        digest = hashlib.sha256(given).digest()
        found = False
        for key in self._keys:
            found |= hmac.compare_digest(digest, key)
        return found

    async def _origin_answered(self, exchange: Exchange, origin: bytes) -> bool:
        """Whether a browser's request needs no more than this: a preflight. Pages of other hosts are refused."""
        text = origin.decode("latin-1")
        if self._is_own(text, exchange.headers.get(b"host", b"").decode("latin-1")):
            return False
        if text not in self._origins:
            raise PullbackError(
                "foreign_origin",
                "A page from another address sent this, and that address is not on the server's allow-list.",
                expected="an origin in PULLBACK_ALLOWED_ORIGINS, or this server's own",
                given=text,
                fix="Add the page's origin to PULLBACK_ALLOWED_ORIGINS.",
            )
        exchange.extra += [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"x-request-id, server-timing, retry-after"),
            (b"vary", b"origin"),
        ]
        if exchange.method != "OPTIONS" or b"access-control-request-method" not in exchange.headers:
            return False
        allowed = exchange.headers.get(b"access-control-request-headers", b"content-type")
        await exchange.respond(
            204,
            b"text/plain",
            b"",
            [
                (b"access-control-allow-methods", b"GET, HEAD, POST"),
                (b"access-control-allow-headers", allowed),
                (b"access-control-max-age", b"600"),
            ],
        )
        return True

    def _is_own(self, origin: str, host: str) -> bool:
        """A page of this very server. On loopback the host must also be called so: a foreign name may be made to point here."""
        try:
            page = urlsplit(origin)
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if not host or page.netloc.lower() != host.lower():
            return False
        return not self._only_loopback or name in _LOOPBACK_NAMES


def _not_allowed(method: str, allowed: str) -> PullbackError:
    return PullbackError(
        "method_not_allowed",
        f"This address takes {allowed}, not {method}.",
        expected=allowed,
        given=method,
        fix=f"Send {allowed}.",
    )
