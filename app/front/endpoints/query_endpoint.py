"""The endpoint of a query: body in, reply out, through the pool."""

from __future__ import annotations

from starlette.types import Receive

from app.front.endpoints.admission import Admission, ask, response, through
from app.front.http.body import Body
from app.front.http.exchange import Exchange


class QueryEndpoint:
    """`POST /v1/query`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def __call__(self, exchange: Exchange, receive: Receive) -> None:
        await through(self._admission, exchange, receive, self._answer)

    async def _answer(self, exchange: Exchange, receive: Receive, body: Body) -> None:
        reply = await ask(self._admission, "query", exchange, receive, body)
        await exchange.respond(*response(exchange, reply))
