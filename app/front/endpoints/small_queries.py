"""Small queries: the native queries whose whole body came with their head, answered without a task for each.

Every rule is that of the other road: the same checks, the same pool, the same reply. What is not plain (a refusal, a queue that is full,
bytes that are short) is left to it before anything has begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, Protocol

from starlette.types import Scope, Send

from app.errors import PullbackError
from app.front.endpoints.admission import Admission, note, timing
from app.front.http.body import ClientGoneError
from app.front.http.exchange import PIECE_BYTES, Exchange, text_of
from app.front.http.wire import Run
from app.pool.job import Job, WorkerReply

_PATH: Final = "/v1/query"


class Conduct(Protocol):
    """How every request is taken, checked and concluded."""

    def exchange(self, scope: Scope, send: Send) -> Exchange: ...

    def admit(self, exchange: Exchange) -> None: ...

    async def conclude(self, exchange: Exchange, answer: Awaitable[None]) -> None: ...


class SmallQueries:
    """As `wire.SmallQueries`."""

    def __init__(self, admission: Admission, conduct: Conduct) -> None:
        self._admission = admission
        self._conduct = conduct
        self._port = admission.settings.metrics_port

    def takes(self, scope: Scope) -> bool:
        """`POST /v1/query`, but not on the port for metrics."""
        return scope["path"] == _PATH and scope["method"] == "POST" and not (self._port and scope["server"][1] == self._port)

    def begin(self, scope: Scope, send: Send, body: bytes, run: Run) -> SmallQuery | None:
        """As `wire.SmallQueries`."""
        admission = self._admission
        pool, size = admission.pool, len(body)
        if (
            admission.draining
            or pool.budget.is_pressed
            or size > min(admission.settings.body_limit_bytes, pool.budget.limit_bytes)
        ):
            return None
        exchange = self._conduct.exchange(scope, send)
        try:
            self._conduct.admit(exchange)
            pool.check_room(exchange.client)
            headers = exchange.headers
            job = pool.ask(
                "query",
                exchange.request_id,
                text_of(headers, b"content-type"),
                text_of(headers, b"content-encoding"),
                text_of(headers, b"accept"),
                (body,),
                size,
                None,
                exchange.client,
            )
        except PullbackError:
            return None
        exchange.bytes_in = size
        return SmallQuery(admission, self._conduct, exchange, job, run)


class SmallQuery:
    """As `wire.SmallQuery`; its bytes are held until it has ended."""

    __slots__ = ("_admission", "_conduct", "_exchange", "_job", "_run")

    def __init__(self, admission: Admission, conduct: Conduct, exchange: Exchange, job: Job, run: Run) -> None:
        self._admission = admission
        self._conduct = conduct
        self._exchange = exchange
        self._job = job
        self._run = run
        admission.busy += 1
        admission.pool.budget.reserve(exchange.bytes_in)
        job.future.add_done_callback(self._answered)

    def abandon(self) -> None:
        """The client has hung up."""
        self._admission.pool.abandon(self._job)

    def _answered(self, future: asyncio.Future[WorkerReply | PullbackError | None]) -> None:
        result = future.result()
        waits = isinstance(result, WorkerReply) and len(result.body) > PIECE_BYTES
        self._run(self._conduct.conclude(self._exchange, self._reply(result)), waits)

    async def _reply(self, result: WorkerReply | PullbackError | None) -> None:
        exchange = self._exchange
        try:
            if not isinstance(result, WorkerReply):
                raise ClientGoneError if result is None else result
            note(exchange, self._job, result)
            await exchange.respond(
                result.status, result.media_type.encode(), result.body, ((b"server-timing", timing(exchange)),)
            )
        finally:
            self._admission.pool.budget.release(exchange.bytes_in)
            self._admission.busy -= 1
            # An error's traceback refers to this frame, and so must not find its way back to the error.
            del result
