"""The application: endpoints, pages, health and the middleware around them, put together."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Final

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__
from app.errors import PROBLEM_MEDIA_TYPE, PullbackError
from app.front.access.middleware import Endpoint, Middleware
from app.front.endpoints import catalogue_pages, health, limits_page
from app.front.endpoints.admission import Admission
from app.front.endpoints.batch_endpoint import BatchEndpoint
from app.front.endpoints.direct_queries import DirectQueries
from app.front.endpoints.protocol_endpoints import ProtocolEndpoints
from app.front.endpoints.query_endpoint import QueryEndpoint
from app.front.http import http_refusals
from app.front.http.exchange import problem
from app.front.http.http_refusals import PAGE_METHODS
from app.front.http.responses import retry_after
from app.front.http.wire import REQUEST_ID
from app.front.membership import Membership
from app.front.observability import exposition
from app.front.observability.log import Log, Writer
from app.front.observability.metrics import Metrics
from app.front.observability.request_recorder import RequestRecorder
from app.front.openapi.document import document
from app.front.pages import docs
from app.group.counts import Counts
from app.machine.memory_budget import Budget
from app.pool import linux
from app.pool.handles.forkserver_process import ForkserverProcess
from app.pool.pool import Pool
from app.pool.share import Share
from app.protocols.registry import PROTOCOLS
from app.settings import Settings

_STDOUT: Final = 1  # POSIX


class Application:
    """The ASGI application. What needs an event loop is made when the server starts it (lifespan).

    Arguments:
        settings: settled by the budget.
        membership: where this is one of several fronts.
        started: the first parent of its workers, where it was started before.

    Attributes:
        admission, direct_queries: while it runs.
    """

    def __init__(
        self,
        settings: Settings,
        budget: Budget,
        membership: Membership | None = None,
        started: ForkserverProcess | None = None,
    ) -> None:
        self._settings = settings
        self._started = started
        self._membership = membership
        self._share: Share = membership or Share()
        self._recorder: RequestRecorder | None = None
        self._protocols: list[ProtocolEndpoints] = []
        self._budget = budget
        self._pages = FastAPI(
            title="Pullback", version=__version__, openapi_url=None, docs_url=None, redoc_url=None, lifespan=self._lifespan
        )
        self._outermost: ASGIApp = self._pages
        # What the port for metrics leads to: health and metrics, without a key.
        self._monitoring = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        self._outermost_of_monitoring: ASGIApp = self._monitoring
        for pages in (self._pages, self._monitoring):
            _handle_errors(pages)
        self.admission: Admission | None = None
        self.direct_queries: DirectQueries | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        to_monitoring = (
            scope["type"] == "http" and self._settings.metrics_port and scope["server"][1] == self._settings.metrics_port
        )
        await (self._outermost_of_monitoring if to_monitoring else self._outermost)(scope, receive, send)

    @property
    def settings(self) -> Settings:
        """Settled: what is derived from the machine stands in them."""
        return self._settings

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        linux.keep_buffers()
        membership = self._membership
        writer = Writer(os.dup(_STDOUT)) if membership is None else Writer(os.dup(_STDOUT), membership.writing)
        log = Log(self._settings.log_format, writer)
        note = log.event if membership is None else partial(log.event, front=membership.index)
        pool = Pool(self._settings, note, self._share)
        recorder = self._recorder = RequestRecorder(Metrics(pool), log)
        admission = Admission(pool, self._settings)
        self._add_routes(admission)
        endpoints: dict[str, Endpoint] = {"/v1/query": QueryEndpoint(admission), "/v1/queries": BatchEndpoint(admission)}
        self._protocols = [ProtocolEndpoints(protocol, admission, self._counts_of_all) for protocol in PROTOCOLS]
        foreign: dict[str, Endpoint] = {endpoints.protocol.name: endpoints for endpoints in self._protocols}
        probes = health.probes(admission)
        self._outermost = middleware = Middleware(self._pages, endpoints, foreign, probes, self._settings, recorder)
        self.direct_queries = DirectQueries(admission, middleware, self._protocols)
        keyless = self._settings.model_copy(update={"api_keys": ()})
        self._monitoring.include_router(health.router(self._metrics))
        self._outermost_of_monitoring = Middleware(self._monitoring, {}, {}, probes, keyless, recorder)
        self.admission = admission
        catalogue_pages.load()
        # What is here now stays; without this each full collection would walk through it, for tens of milliseconds.
        gc.collect()
        gc.freeze()
        if not self._share.index:
            log.event("budget", **self._budget.facts())
        pool.start(self._started)
        try:
            yield
        finally:
            admission.draining = True
            await pool.stop()
            recorder.flush()
            log.close()

    def counts(self) -> Counts:
        """What has been counted by this process, so that it can be summed with what others have."""
        families = self._recorder.families() if self._recorder is not None else []
        counts = exposition.numbers(families)
        for endpoints in self._protocols:
            counts.update(endpoints.counts())
        return counts

    async def _counts_of_all(self) -> Counts:
        return await self._share.of_all(self.counts())

    async def _metrics(self) -> bytes:
        known = self._recorder.families() if self._recorder is not None else []
        if self._share.count == 1:
            return exposition.text(known)
        return exposition.text(exposition.families(await self._counts_of_all(), known))

    def _add_routes(self, admission: Admission) -> None:
        self._pages.include_router(health.router(self._metrics))
        self._pages.include_router(catalogue_pages.router(admission.pool))
        self._pages.include_router(limits_page.router(admission.pool, self._settings, self._budget))
        schema = orjson.dumps(document(__version__))

        @self._pages.get("/openapi.json")
        async def openapi() -> Response:
            return Response(schema, media_type="application/json")

        self._pages.router.routes.extend(docs.routes)


def _handle_errors(pages: FastAPI) -> None:
    """Every refusal of a page has the one shape."""

    @pages.exception_handler(PullbackError)
    async def refused(request: Request, error: PullbackError) -> Response:
        return _problem(request, error)

    @pages.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"][1:])
        return _problem(request, PullbackError("bad_request", f"{first['msg']}.", at=at, given=first.get("input")))

    @pages.exception_handler(HTTPException)
    async def without_route(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            return _problem(request, http_refusals.method_not_allowed(request.method, PAGE_METHODS), {"Allow": PAGE_METHODS})
        return _problem(request, http_refusals.not_found(request.url.path))


def _problem(request: Request, error: PullbackError, headers: dict[str, str] | None = None) -> Response:
    response = Response(problem(error, request.scope.get(REQUEST_ID)), error.status, headers, PROBLEM_MEDIA_TYPE)
    for name, value in retry_after(error):
        response.headers[name.decode()] = value.decode()
    return response
