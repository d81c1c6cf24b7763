"""The middleware: the outermost layer. Header caps, keys, foreign pages, request ids; and no exception passes it."""

from __future__ import annotations

import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from starlette.datastructures import URL
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import CODES, PullbackError
from app.front.access.keys import ApiKeys
from app.front.access.origins import Origins, answer_preflight, is_preflight
from app.front.http import http_refusals
from app.front.http.body import ClientGoneError
from app.front.http.codings import content_encoding
from app.front.http.exchange import CLIENT_GONE, REFUSED, Exchange, RequestIds
from app.front.http.http_refusals import HEADER_BYTES_LIMIT, HEADER_COUNT_LIMIT, PAGE_METHODS, headers_too_large
from app.front.http.wire import REQUEST_ID, WIRE
from app.front.observability.request_recorder import RequestRecorder
from app.protocols.content import JSON
from app.protocols.registry import PUBLIC_PATHS, protocol_of
from app.settings import Settings

# Open to all: what asks them, an orchestrator's probe, carries no key.
_OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready"}) | PUBLIC_PATHS


class Endpoint(Protocol):
    """An endpoint that computes: it is handed the exchange, so that a small query pays for nothing that it does not use."""

    async def __call__(self, exchange: Exchange, receive: Receive) -> None: ...


class Middleware:
    """ASGI application around `inner`.

    Arguments:
        endpoints: path → the endpoint that takes `POST` there.
        foreign: name of a foreign protocol → what takes everything at its addresses.
        probes: path → what gives the JSON that is answered there, or raises PullbackError; asked every few seconds by an orchestrator.
    """

    def __init__(
        self,
        inner: ASGIApp,
        endpoints: Mapping[str, Endpoint],
        foreign: Mapping[str, Endpoint],
        probes: Mapping[str, Callable[[], bytes]],
        settings: Settings,
        recorder: RequestRecorder,
    ) -> None:
        self._inner = inner
        self._endpoints = endpoints
        self._foreign = foreign
        self._probes = probes
        self._recorder = recorder
        self._keys = ApiKeys(settings.api_keys)
        self._origins = Origins(settings.host, settings.allowed_origins, settings.allowed_hosts)
        self._ids = RequestIds(secrets.token_hex(4))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        exchange = self.exchange(scope, send)
        await self.conclude(exchange, self._answer(exchange, receive))

    def exchange(self, scope: Scope, send: Send) -> Exchange:
        """A request on its way, with its id."""
        headers = dict(scope["headers"])
        # It has one where the direct way has left it to this one.
        request_id = scope.get(REQUEST_ID) or self._ids.of(headers)
        return Exchange(scope, send, headers, request_id, time.monotonic())

    def again(self, exchange: Exchange) -> Exchange:
        """The next request under the head of one that was admitted."""
        return exchange.again(self._ids.of(exchange.headers), time.monotonic())

    def admit(self, exchange: Exchange) -> None:
        """Raises PullbackError where the request is not right, or has not the key that its address needs."""
        self._check(exchange)
        self._check_key(exchange)

    async def conclude(self, exchange: Exchange, answer: Awaitable[None]) -> None:
        """Await the answer of a request, refuse where it raises, and take note of how it ended."""
        try:
            await answer
        except PullbackError as error:
            await self._refuse(exchange, error)
        except ClientGoneError:
            self._note_gone(exchange)
        except Exception as error:
            await self._broken(exchange, error)
        finally:
            self.ended(exchange)

    def ended(self, exchange: Exchange) -> None:
        """Take note of how a request ended."""
        self._recorder.ended(exchange)
        # It refers to the connection, whose request refers to this scope: no collector should have to find that.
        exchange.scope.pop(WIRE, None)

    async def _answer(self, exchange: Exchange, receive: Receive) -> None:
        self._check(exchange)
        if is_preflight(exchange) and b"origin" in exchange.headers:
            await answer_preflight(exchange)
            return
        self._check_key(exchange)
        endpoint = self._endpoints.get(exchange.path)
        if exchange.path in self._probes:
            await self._probe(exchange, self._probes[exchange.path])
        elif exchange.path.endswith("/") and exchange.path.rstrip("/") in self._probes:
            await self._redirect(exchange, receive)
        elif endpoint is None:
            await self._elsewhere(exchange, receive)
        elif exchange.method == "POST":
            await endpoint(exchange, receive)
        else:
            await exchange.refuse(http_refusals.method_not_allowed(exchange.method, "POST"), [(b"allow", b"POST")])

    async def _probe(self, exchange: Exchange, body: Callable[[], bytes]) -> None:
        try:
            if exchange.method not in ("GET", "HEAD"):
                raise http_refusals.method_not_allowed(exchange.method, PAGE_METHODS)
            content = body()
        except PullbackError as error:
            allowed = [(b"allow", PAGE_METHODS.encode())] if error.code == "method_not_allowed" else []
            await exchange.refuse(error, allowed)
            # As of every page: not ready is what was asked, every few seconds, and no query that was refused.
            exchange.code = ""
        else:
            await exchange.respond(200, JSON.encode(), content)

    async def _redirect(self, exchange: Exchange, receive: Receive) -> None:
        """To the address without the slashes at its end, as the pages do."""
        scope = {**exchange.scope, "path": exchange.path.rstrip("/")}
        await RedirectResponse(URL(scope=scope))(scope, receive, exchange.send_watched)

    async def _elsewhere(self, exchange: Exchange, receive: Receive) -> None:
        """A foreign protocol's address, or a page."""
        protocol = protocol_of(exchange.path)
        endpoint = None if protocol is None else self._foreign.get(protocol.name)
        if endpoint is None:
            await self._pass_on(exchange, receive)
        else:
            await endpoint(exchange, receive)

    async def _pass_on(self, exchange: Exchange, receive: Receive) -> None:
        # The server, which has its own scope, leaves the body of a HEAD out.
        method = "GET" if exchange.method == "HEAD" else exchange.method
        scope = {**exchange.scope, "method": method}
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
        await exchange.refuse(http_refusals.broken())

    def _check_key(self, exchange: Exchange) -> None:
        if self._keys and exchange.path not in _OPEN_PATHS:
            exchange.client = self._keys.check(exchange.scope["headers"])

    def _check(self, exchange: Exchange) -> None:
        """What must be right of any request, with or without a key. Raises PullbackError."""
        pairs: list[tuple[bytes, bytes]] = exchange.scope["headers"]
        self._check_size(pairs)
        headers = exchange.headers
        self._origins.check_host([value for name, value in pairs if name == b"host"], exchange.scope["http_version"])
        if (origin := headers.get(b"origin")) is not None:
            # Before the key: the page of an allowed origin may read that its key is wrong.
            self._origins.check_origin(exchange, origin.decode("latin-1"))
        is_coded = b"transfer-encoding" in headers or b"content-encoding" in headers
        if is_coded and (coding := content_encoding(pairs)) is not None:
            headers[b"content-encoding"] = coding

    def _check_size(self, pairs: list[tuple[bytes, bytes]]) -> None:
        size = 0
        for name, value in pairs:
            size += len(name) + len(value)
        if len(pairs) > HEADER_COUNT_LIMIT or size > HEADER_BYTES_LIMIT:
            raise headers_too_large()
