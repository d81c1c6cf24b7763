"""Direct queries: the queries, of any protocol, whose bodies say their length, answered by their connections, without a task for each.

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
from app.front.http.body import Body, ClientGoneError
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


class DirectQueries:
    """As `wire.DirectQueries`."""

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

    def admit(self, scope: Scope, send: Send, run: Run) -> DirectQuery | None:
        """As `wire.DirectQueries`."""
        exchange = self._conduct.exchange(scope, send)
        try:
            self._conduct.admit(exchange)
        except PullbackError:
            return None
        protocol = None if exchange.path == _PATH else self._protocol(exchange.path)
        return DirectQuery(self._admission, self._conduct, exchange, run, protocol)


class DirectQuery:
    """As `wire.DirectQuery`: the queries under one head, one at a time; their bytes are held until they have ended."""

    __slots__ = ("_admission", "_asked", "_body", "_conduct", "_exchange", "_job", "_limit", "_protocol", "_run", "_wire")

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
        self._body: Body | None = None  # of one that has not come with its head

    def again(self) -> None:
        """As `wire.DirectQuery`."""
        self._exchange = self._conduct.again(self._exchange)

    def begin(self, body: bytes) -> bool:
        """As `wire.DirectQuery`."""
        pool, exchange, size = self._admission.pool, self._exchange, len(body)
        if not self._is_open() or size > self._limit:
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
        self._admission.busy += 1
        return True

    def receive(self, come: bytes, size: int) -> bool:
        """As `wire.DirectQuery`."""
        admission, client = self._admission, self._exchange.client
        if not self._is_open():
            return False
        try:
            admission.pool.check_room(client)
        except PullbackError:
            return False
        body = Body(admission.pool, admission.settings, client)
        if not body.start(come, size, self._wire, self._stopped):
            return False
        self._body = body
        admission.busy += 1
        return True

    def received(self) -> None:
        """As `wire.DirectQuery`."""
        body, exchange = self._body, self._exchange
        if body is None:
            return
        body.finish()
        exchange.bytes_in = body.size
        try:
            self._job = self._admission.pool.ask(
                self._asked, exchange.request_id, body.pieces, body.size, exchange.client, self._ended
            )
        except Exception as error:  # logged and answered as everywhere; else nothing would give back what it holds
            self._ended(error)

    def abandon(self) -> None:
        """The client has hung up."""
        if self._job is not None:
            self._admission.pool.abandon(self._job)

    def _is_open(self) -> bool:
        return not (self._admission.draining or self._admission.pool.budget.is_pressed)

    def _stopped(self, error: PullbackError | None) -> None:
        """The rest of the body does not come."""
        self._body = None
        # The connection is amid something else then.
        asyncio.get_running_loop().call_soon(self._conclude, error, None, False)

    def _ended(self, result: Result | Exception) -> None:
        job, self._job = self._job, None
        self._give_back()
        if not isinstance(result, WorkerReply):
            # The pool is amid something else then.
            asyncio.get_running_loop().call_soon(self._conclude, result, job, True)
        elif len(result.body) <= PIECE_BYTES and self._wire.is_free:
            self._respond(result, job)
        else:
            self._conclude(result, job, True)

    def _respond(self, reply: WorkerReply, job: Job | None) -> None:
        """Answer on the spot, as nothing is to be waited for."""
        exchange = self._exchange
        try:
            try:
                self._note(exchange, reply, job)
            finally:
                self._leave(exchange)
            exchange.respond_now(self._wire, *response(exchange, reply))
            self._conduct.ended(exchange)
        except Exception as error:  # logged and refused as everywhere; the pool goes on with the replies behind this one
            self._run(self._conduct.conclude(exchange, _raising(error)), False)

    def _conclude(self, result: Result | Exception, job: Job | None, is_whole: bool) -> None:
        """Answer as every request is answered; where its body is not whole, the client may still be sending."""
        exchange = self._exchange
        waits = isinstance(result, WorkerReply) and len(result.body) > PIECE_BYTES
        self._run(self._conduct.conclude(exchange, self._reply(exchange, result, job, is_whole)), waits)

    async def _reply(self, exchange: Exchange, result: Result | Exception, job: Job | None, is_whole: bool) -> None:
        # Here and not before: the end of the reply under the same head before this one takes it out of the scope.
        exchange.scope[WIRE] = self._wire
        try:
            if isinstance(result, WorkerReply):
                self._note(exchange, result, job)
                await exchange.respond(*response(exchange, result))
            elif result is None:
                raise ClientGoneError
            elif isinstance(result, PullbackError) and not is_whole:
                # Its connection reads on for a while, so that it sees this.
                await exchange.refuse(result, closes=True)
            else:
                raise result
        finally:
            self._leave(exchange)
            # An error's traceback refers to this frame, and so must not find its way back to the error.
            del result

    def _note(self, exchange: Exchange, reply: WorkerReply, job: Job | None) -> None:
        if job is not None:
            note(exchange, job, reply)

    def _give_back(self) -> None:
        """The body's room: nobody computes it any more, and the client may take the reply for minutes."""
        body, self._body = self._body, None
        if body is None:
            self._admission.pool.budget.release(self._exchange.bytes_in)
        else:
            body.release()

    def _leave(self, exchange: Exchange) -> None:
        self._admission.busy -= 1
        if self._protocol is not None:
            self._protocol.count(exchange)


async def _raising(error: Exception) -> None:
    raise error
