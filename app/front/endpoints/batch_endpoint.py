"""The endpoint of a list of queries: a worker cuts the list, and each query then goes its own way through the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from starlette.types import Receive

from app.errors import PullbackError
from app.front.endpoints.admission import Admission, Awaited, add_times, ask, through, timing
from app.front.http.body import Body
from app.front.http.exchange import Exchange, problem
from app.pool import refusals
from app.pool.frames import LARGE_BYTES, Buffer
from app.pool.job import Job, asked_of

JSON: Final = "application/json"
# Of one list, so that it can neither fill the queue nor let a worker wait.
_AT_ONCE_A_WORKER: Final = 2
# What an answer takes beside its bytes: an object, its place in the list, and a comma.
_ITEM_BYTES: Final = 64
_ASKED: Final = asked_of("query", JSON, None, JSON)
# One object for all, where not even a refusal of its own finds room.
_NO_ROOM: Final = problem(refusals.queue_full("this answer found no room beside the others that are held"), None)


class BatchEndpoint:
    """`POST /v1/queries`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def __call__(self, exchange: Exchange, receive: Receive) -> None:
        await through(self._admission, exchange, receive, self._answer_list)

    async def _answer_list(self, exchange: Exchange, receive: Receive, body: Body) -> None:
        reply = await ask(self._admission, "split", exchange, receive, body)
        if reply.status == HTTPStatus.OK:
            answers = _Answers(self._admission, reply.pieces)
            try:
                await self._answer_all(exchange, receive, reply.parts(), answers)
                await exchange.respond_in_pieces(
                    HTTPStatus.OK, JSON.encode(), answers.size(), answers.pieces(), ((b"server-timing", timing(exchange)),)
                )
            finally:
                answers.release()
        else:
            await exchange.respond(reply.status, reply.media_type.encode(), reply.body)

    async def _answer_all(self, exchange: Exchange, receive: Receive, queries: Iterator[memoryview], answers: _Answers) -> None:
        todo = iter(enumerate(queries))
        running: set[Job] = set()

        async def answer_some() -> None:
            for index, query in todo:
                answers.put(index, await self._answer(exchange, index, query, running, answers))

        width = min(answers.count, _AT_ONCE_A_WORKER * max(1, len(self._admission.pool.supervisor.workers)))
        tasks = [asyncio.create_task(answer_some()) for _ in range(width)]
        watch = asyncio.create_task(self._abandon_when_gone(receive, running))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in (*tasks, watch):
                task.cancel()
            self._abandon(running)
            # A task that failed refers to this frame by its traceback, and this frame must not refer to the task.
            tasks.clear()

    async def _abandon_when_gone(self, receive: Receive, running: set[Job]) -> None:
        """When the client hangs up, whoever waits for a running job learns that nobody waits for the list."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._abandon(running)

    def _abandon(self, running: set[Job]) -> None:
        for job in list(running):
            self._admission.pool.abandon(job)

    async def _answer(self, exchange: Exchange, index: int, query: memoryview, running: set[Job], answers: _Answers) -> Buffer:
        """One query's answer, or its refusal, as JSON."""
        request_id = f"{exchange.request_id}.{index}"
        job, awaited = None, Awaited()
        try:
            job = self._admission.pool.ask(_ASKED, request_id, [query], len(query), exchange.client, awaited.tell)
            running.add(job)
            reply = await awaited.reply()
            add_times(exchange, job, reply)
            answers.check_room(len(reply.body))
        except PullbackError as error:
            return problem(error, request_id)
        finally:
            if job is not None:
                running.discard(job)
            # The job's refusal refers to this frame by its traceback, and the frame to a part of the list.
            del job, awaited
        return reply.body


class _Answers:
    """The answers of one list, in order, and the bytes that they hold.

    A large reply counts as held by itself, as long as it is there; many small ones must be counted here.
    """

    def __init__(self, admission: Admission, count: int) -> None:
        self.count = count
        self._budget = admission.pool.budget
        self._room = admission.settings.result_limit_bytes
        self._reserved = 0
        self._reserve(count * _ITEM_BYTES)
        self._answers: list[Buffer] = [b"null"] * count

    def check_room(self, size: int) -> None:
        """Raises PullbackError result_too_large where the list has no room for `size` bytes more."""
        if size > self._room:
            raise _too_large_together(size, self._room)

    def put(self, index: int, answer: Buffer) -> None:
        self._room -= len(answer)
        if len(answer) < LARGE_BYTES:
            try:
                self._reserve(len(answer))
            except PullbackError:
                answer = _NO_ROOM
        self._answers[index] = answer

    def pieces(self) -> Iterator[Buffer]:
        """The list as JSON; each answer is let go as soon as it is taken."""
        yield b"["
        for index in range(self.count):
            if index:
                yield b","
            answer, self._answers[index] = self._answers[index], b""
            yield answer
        yield b"]"

    def size(self) -> int:
        return sum(map(len, self._answers)) + self.count + 1 + (self.count == 0)

    def release(self) -> None:
        self._answers.clear()
        self._budget.release(self._reserved)
        self._reserved = 0

    def _reserve(self, size: int) -> None:
        self._budget.reserve(size)
        self._reserved += size


def _too_large_together(size: int, room: int) -> PullbackError:
    return PullbackError(
        "result_too_large",
        "The answers of this list are too large together.",
        expected=f"at most {max(room, 0)} bytes more",
        given=f"{size} bytes",
        fix="Ask this query on its own.",
    )
