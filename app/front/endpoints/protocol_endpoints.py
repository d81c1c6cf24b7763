"""The endpoints of the foreign protocols: pages answered here, bodies handed to a worker, and what has been counted of each model."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import orjson
from starlette.types import Receive

from app.errors import PullbackError
from app.front.endpoints.admission import Admission, ask, asked_by, response, through
from app.front.http.body import Body
from app.front.http.exchange import Exchange, text_of
from app.front.http.http_refusals import method_not_allowed, not_found
from app.group.counts import COUNTER, LARGEST
from app.pool.job import Asked
from app.protocols.message import Written
from app.protocols.models import Models
from app.protocols.registry import Protocol
from app.protocols.routes import ModelCounts, PageRequest, Route


class ProtocolEndpoints:
    """One protocol's addresses. `of_all`: the counts of all fronts."""

    def __init__(self, protocol: Protocol, admission: Admission, of_all: Callable[[], Awaitable[Mapping[str, float]]]) -> None:
        self.protocol = protocol
        self._of_all = of_all
        self._admission = admission
        self._counts: dict[str, ModelCounts] = {}

    async def __call__(self, exchange: Exchange, receive: Receive) -> None:
        """Raises PullbackError: whatever the page or the query is refused with."""
        routes, parameters = self.protocol.routes.find(exchange.path)
        method = "GET" if exchange.method == "HEAD" else exchange.method
        route = next((route for route in routes if route.method == method), None)
        if route is None:
            methods = ", ".join(route.method for route in routes)
            headers = [(b"allow", methods.encode())] if methods else []
            refusal = method_not_allowed(exchange.method, methods) if methods else not_found(exchange.path)
            await exchange.refuse(refusal, headers)
            return
        if route.page is not None:
            counts = await self._model_counts() if route.counts else {}
            await _send(exchange, route.page(self._page_request(parameters, counts)))
            return

        async def answer(exchange: Exchange, receive: Receive, body: Body) -> None:
            await self._ask(exchange, receive, body, route, parameters)

        try:
            await through(self._admission, exchange, receive, answer)
        finally:
            self.count(exchange)

    async def _ask(self, exchange: Exchange, receive: Receive, body: Body, route: Route, parameters: Mapping[str, str]) -> None:
        extra = _worker_parameters(exchange, route, parameters)
        await exchange.respond(*response(exchange, await ask(self._admission, route.endpoint, exchange, receive, body, extra)))

    def takes(self, path: str) -> bool:
        """Whether what is posted there goes to a worker."""
        return self._posted(path) is not None

    def asked(self, exchange: Exchange) -> Asked:
        """What its head asks of a worker, where `takes` its path."""
        posted = self._posted(exchange.path)
        if posted is None:
            raise RuntimeError("nothing is posted there")
        route, parameters = posted
        return asked_by(exchange.headers, route.endpoint, _worker_parameters(exchange, route, parameters))

    def _posted(self, path: str) -> tuple[Route, Mapping[str, str]] | None:
        routes, parameters = self.protocol.routes.find(path)
        route = next((route for route in routes if route.method == "POST" and route.page is None), None)
        return None if route is None else (route, parameters)

    def _page_request(self, parameters: Mapping[str, str], counts: Mapping[str, ModelCounts]) -> PageRequest:
        ready = not self._admission.draining and self._admission.is_ready
        return PageRequest(parameters, self._models, ready, counts)

    def counts(self) -> dict[str, float]:
        """What has been counted here, as numbers that can be summed with those of other fronts."""
        return {
            (LARGEST if name == "last" else COUNTER) + orjson.dumps([self.protocol.name, model, name]).decode(): number
            for model, counts in self._counts.items()
            for name, number in asdict(counts).items()
        }

    async def _model_counts(self) -> Mapping[str, ModelCounts]:
        """What has been counted of each model, here and in other fronts."""
        if self._admission.pool.share.count == 1:
            return self._counts
        fields: dict[str, dict[str, Any]] = {}
        for key, number in (await self._of_all()).items():
            protocol, model, name = orjson.loads(key[1:])
            if protocol == self.protocol.name:
                fields.setdefault(model, {})[name] = number
        return {model: ModelCounts(**counts) for model, counts in fields.items()}

    @cached_property
    def _models(self) -> Models:
        listing = self._admission.pool.supervisor.functions
        if not listing:
            raise PullbackError(
                "starting", "The functions are still being read.", fix="Try again in a moment.", retry_after_s=2
            )
        return Models(orjson.loads(listing)["functions"])

    def count(self, exchange: Exchange) -> None:
        """Only what a worker has read is counted, so the names are those of models and their number is bounded."""
        name = exchange.labels.get("operation")
        if not name:
            return
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = ModelCounts()
        spent = time.monotonic() - exchange.arrived
        counts.last = time.time()
        if exchange.code:
            counts.failed += 1
            counts.failure_s += spent
            return
        counts.succeeded += 1
        counts.success_s += spent
        counts.queue_s += exchange.queue_s
        counts.compute_s += exchange.timings.get("compute", 0.0)
        counts.encode_s += exchange.timings.get("encode", 0.0)


def _worker_parameters(exchange: Exchange, route: Route, parameters: Mapping[str, str]) -> Mapping[str, str]:
    """What a worker is told besides the headers of every request."""
    sent = {name: text_of(exchange.headers, name.encode()) for name in route.headers}
    return {**parameters, **{name: value for name, value in sent.items() if value is not None}}


async def _send(exchange: Exchange, page: Written) -> None:
    headers = [(name.encode(), value.encode()) for name, value in page.headers.items()]
    await exchange.respond(page.status, page.media_type.encode(), b"".join(page.buffers), headers)
