"""Small queries: the queries, of any protocol, whose whole body came with their head, answered without a task for each.

Every rule is that of the other road: the same checks, the same pool, the same reply. What is not plain (a refusal, a queue that is full,
bytes that are short) is left to it before anything has begun. What hangs on the head alone is checked once for a head that repeats.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final, Protocol

from starlette.types import Scope, Send

from app.errors import PullbackError
from app.front.endpoints.admission import Admission, asked_by, note, response
from app.front.http.body import ClientGoneError
from app.front.http.exchange import PIECE_BYTES, Exchange
from app.front.http.wire import WIRE, Run, Wire
from app.pool.job import Asked, Job, Result, WorkerReply

_PATH: Final = "/v1/query"


class Conduct(Protocol):
    """How every request is taken, checked and concluded."""

    def exchange(self, scope: Scope, send: Send) -> Exchange: ...

    def again(self, exchange: Exchange) -> Exchange: ...

    def admit(self, exchange: Exchange) -> None: ...

    async def conclude(self, exchange: Exchange, answer: Awaitable[None]) -> None: ...

    def ended(self, exchange: Exchange) -> None: ...


class Foreign(Protocol):
    """Another protocol's addresses."""

    def takes(self, path: str) -> bool: ...

    def asked(self, exchange: Exchange) -> Asked: ...

    def count(self, exchange: Exchange) -> None: ...


class SmallQueries:
    """As `wire.SmallQueries`."""

    def __init__(self, admission: Admission, conduct: Conduct, foreign: Sequence[Foreign]) -> None:
        self._admission = admission
        self._conduct = conduct
        self._foreign = foreign
        self._port = admission.settings.metrics_port

    def takes(self, scope: Scope) -> bool:
        """What is posted to `/v1/query` or to a worker's endpoint of another protocol, but not on the port for metrics."""
        if scope["method"] != "POST" or (self._port and scope["server"][1] == self._port):
            return False
        return scope["path"] == _PATH or self._protocol(scope["path"]) is not None

    def _protocol(self, path: str) -> Foreign | None:
        return next((protocol for protocol in self._foreign if protocol.takes(path)), None)

    def begin(self, scope: Scope, send: Send, body: bytes, run: Run) -> SmallQuery | None:
        """As `wire.SmallQueries`."""
        exchange = self._conduct.exchange(scope, send)
        try:
            self._conduct.admit(exchange)
        except PullbackError:
            return None
        protocol = None if exchange.path == _PATH else self._protocol(exchange.path)
        query = SmallQuery(self._admission, self._conduct, exchange, run, protocol)
        return query if query.begin(exchange, body) else None


class SmallQuery:
    """As `wire.SmallQuery`: the queries under one head, one at a time; their bytes are held until they have ended."""

    __slots__ = ("_admission", "_asked", "_conduct", "_exchange", "_job", "_limit", "_protocol", "_run", "_wire")

    def __init__(self, admission: Admission, conduct: Conduct, exchange: Exchange, run: Run, protocol: Foreign | None) -> None:
        self._admission = admission
        self._conduct = conduct
        self._exchange = exchange
        self._protocol = protocol
        self._asked = asked_by(exchange.headers, "query") if protocol is None else protocol.asked(exchange)
        self._wire: Wire = exchange.scope[WIRE]
        self._run = run
        self._limit = min(admission.settings.body_limit_bytes, admission.pool.budget.limit_bytes)
        self._job: Job | None = None

    def again(self, body: bytes) -> bool:
        """As `wire.SmallQuery`."""
        return self.begin(self._conduct.again(self._exchange), body)

    def begin(self, exchange: Exchange, body: bytes) -> bool:
        """Have the body's query answered; False where that would be refused, and nothing was begun."""
        admission = self._admission
        pool, size = admission.pool, len(body)
        if admission.draining or pool.budget.is_pressed or size > self._limit:
            return False
        try:
            pool.check_room(exchange.client)
            pool.budget.reserve(size)
        except PullbackError:
            return False
        try:
            self._job = pool.ask(self._asked, exchange.request_id, (body,), size, exchange.client, self._ended)
        except PullbackError:
            pool.budget.release(size)
            return False
        exchange.bytes_in = size
        self._exchange = exchange
        admission.busy += 1
        return True

    def abandon(self) -> None:
        """The client has hung up."""
        if self._job is not None:
            self._admission.pool.abandon(self._job)

    def _ended(self, result: Result) -> None:
        if not isinstance(result, WorkerReply):
            # The pool is amid something else then.
            asyncio.get_running_loop().call_soon(self._conclude, result)
        elif len(result.body) <= PIECE_BYTES and self._wire.is_free:
            self._respond(result)
        else:
            self._conclude(result)

    def _respond(self, reply: WorkerReply) -> None:
        """Answer on the spot, as nothing is to be waited for."""
        exchange = self._exchange
        try:
            self._note(exchange, reply)
            self._release(exchange)
            exchange.respond_now(self._wire, *response(exchange, reply))
            self._conduct.ended(exchange)
        except Exception as error:  # logged and refused as everywhere; the pool goes on with the replies behind this one
            self._run(self._conduct.conclude(exchange, _raising(error)), False)

    def _conclude(self, result: Result) -> None:
        """Answer as every request is answered."""
        exchange = self._exchange
        exchange.scope[WIRE] = self._wire
        waits = isinstance(result, WorkerReply) and len(result.body) > PIECE_BYTES
        self._run(self._conduct.conclude(exchange, self._reply(exchange, result)), waits)

    async def _reply(self, exchange: Exchange, result: Result) -> None:
        try:
            if not isinstance(result, WorkerReply):
                raise ClientGoneError if result is None else result
            self._note(exchange, result)
            await exchange.respond(*response(exchange, result))
        finally:
            self._release(exchange)
            # An error's traceback refers to this frame, and so must not find its way back to the error.
            del result

    def _note(self, exchange: Exchange, reply: WorkerReply) -> None:
        if self._job is not None:
            note(exchange, self._job, reply)

    def _release(self, exchange: Exchange) -> None:
        self._job = None
        self._admission.pool.budget.release(exchange.bytes_in)
        self._admission.busy -= 1
        if self._protocol is not None:
            self._protocol.count(exchange)


async def _raising(error: Exception) -> None:
    raise error
