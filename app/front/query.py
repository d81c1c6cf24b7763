"""The door of a query: body in, reply out, through the pool.

Knows what a worker is told of a request besides its body. Refuses to know what the body says; the worker decodes, answers and refuses.
"""

from __future__ import annotations

from starlette.types import Receive

from app.errors import PullbackError
from app.front.body import Body
from app.front.exchange import Exchange
from app.front.gate import Gate, ask, is_closing, refuse_sending, timing
from app.front.wire import WIRE


class QueryDoor:
    """`POST /v1/query`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __call__(self, exchange: Exchange, receive: Receive) -> None:
        gate = self._gate
        body = Body(gate.pool, gate.settings)
        gate.busy += 1
        try:
            gate.check_open()
            gate.pool.check_room()
            await body.read(receive, exchange.headers, exchange.scope.get(WIRE))
            exchange.bytes_in = body.size
            reply = await ask(gate, "query", exchange, receive, body)
            await exchange.respond(reply.status, reply.media_type.encode(), reply.body, ((b"server-timing", timing(exchange)),))
        except PullbackError as error:
            if exchange.status or not is_closing(error):
                raise
            await refuse_sending(exchange, receive, error)
        finally:
            body.release()
            gate.busy -= 1
