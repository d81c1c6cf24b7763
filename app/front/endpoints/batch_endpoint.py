"""The endpoint of a list of queries: a worker cuts the list, and each query then goes its own way through the pool.

Knows how answers and refusals are put side by side. Refuses to know what a query says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from starlette.types import Receive

from app.errors import PullbackError
from app.front.endpoints.admission import Admission, answered, ask, through, timing
from app.front.http.body import Body
from app.front.http.exchange import Exchange, problem
from app.pool.frames import Buffer
from app.pool.job import Job, WorkerReply

JSON: Final = "application/json"
_LENGTH_LIMIT: Final = 10_000
# Of one list, so that it can neither fill the queue nor let a worker wait.
_AT_ONCE_A_WORKER: Final = 2


class BatchEndpoint:
    """`POST /v1/queries`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def __call__(self, exchange: Exchange, receive: Receive) -> None:
        await through(self._admission, exchange, receive, self._answer_list)

    async def _answer_list(self, exchange: Exchange, receive: Receive, body: Body) -> None:
        reply = await self._cut(exchange, receive, body)
        # What the pieces are cut out of is the reply's now.
        body.pieces = []
        if reply.status == HTTPStatus.OK:
            pieces = await self._answer_all(exchange, receive, reply.parts())
            await exchange.respond_in_pieces(HTTPStatus.OK, JSON.encode(), pieces, ((b"server-timing", timing(exchange)),))
        else:
            await exchange.respond(reply.status, reply.media_type.encode(), reply.body)

    async def _cut(self, exchange: Exchange, receive: Receive, body: Body) -> WorkerReply:
        reply = await ask(self._admission, "split", exchange, receive, body)
        if reply.pieces > _LENGTH_LIMIT:
            raise PullbackError(
                "bad_request",
                "The list holds more queries than one request may.",
                expected=f"at most {_LENGTH_LIMIT} queries",
                given=f"{reply.pieces}",
                fix="Send several lists.",
            )
        return reply

    async def _answer_all(self, exchange: Exchange, receive: Receive, queries: Sequence[memoryview]) -> list[Buffer]:
        """The list of answers, as JSON in pieces."""
        todo = iter(enumerate(queries))
        answers: list[Buffer] = [b"null"] * len(queries)
        room = self._admission.settings.result_limit_bytes
        running: set[Job] = set()

        async def answer_some() -> None:
            nonlocal room
            for index, query in todo:
                answers[index] = await self._answer(f"{exchange.request_id}.{index}", query, running, room)
                room -= len(answers[index])

        width = min(len(queries), _AT_ONCE_A_WORKER * max(1, len(self._admission.pool.supervisor.workers)))
        lines = [asyncio.create_task(answer_some()) for _ in range(width)]
        watch = asyncio.create_task(self._abandon_when_gone(receive, running))
        try:
            await asyncio.gather(*lines)
        finally:
            for task in (*lines, watch):
                task.cancel()
            self._abandon(running)
        pieces: list[Buffer] = [b"["]
        for index, answer in enumerate(answers):
            pieces += [b",", answer] if index else [answer]
        return [*pieces, b"]"]

    async def _abandon_when_gone(self, receive: Receive, running: set[Job]) -> None:
        """When the client hangs up, whoever waits for a running job learns that nobody waits for the list."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._abandon(running)

    def _abandon(self, running: set[Job]) -> None:
        for job in list(running):
            self._admission.pool.abandon(job)

    async def _answer(self, request_id: str, query: memoryview, running: set[Job], room: int) -> Buffer:
        """One query's answer, or its refusal, as JSON."""
        job = None
        try:
            job = self._admission.pool.ask("query", request_id, JSON, None, JSON, [query], len(query))
            running.add(job)
            reply = await answered(job)
            if len(reply.body) > room:
                raise _too_large_together(len(reply.body), room)
        except PullbackError as error:
            return problem(error, request_id)
        finally:
            if job is not None:
                running.discard(job)
        return reply.body


def _too_large_together(size: int, room: int) -> PullbackError:
    return PullbackError(
        "result_too_large",
        "The answers of this list are too large together.",
        expected=f"at most {max(room, 0)} bytes more",
        given=f"{size} bytes",
        fix="Ask this query on its own.",
    )
