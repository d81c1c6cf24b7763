"""What the computing endpoints share: whether queries are taken, the look at the line, the wait for the reply, the lingering refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.types import Receive

from app.errors import PullbackError
from app.front.http.body import Body, ClientGoneError
from app.front.http.exchange import Exchange, Headers, text_of
from app.front.http.wire import WIRE
from app.pool.frames import Buffer
from app.pool.job import Asked, Job, Result, WorkerReply, asked_of
from app.pool.pool import Pool
from app.settings import Settings

# Nobody hangs up within the time of a small query: only what takes longer is worth a look at the line.
_WATCH_AFTER_S: Final = 0.05


class Admission:
    """What all computing endpoints share: the pool, the settings, and whether new queries are still taken."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self.pool = pool
        self.settings = settings
        self.draining = False
        self.busy = 0

    @property
    def is_ready(self) -> bool:
        """A worker answers, of this front or of another, which is then handed what comes."""
        return self.pool.is_ready or self.pool.share.is_ready_elsewhere

    def check_open(self) -> None:
        """Raises PullbackError draining after the signal to end."""
        if self.draining:
            raise PullbackError(
                "draining", "The service is shutting down.", fix="Send the query again, to another server.", retry_after_s=5
            )


async def through(
    admission: Admission, exchange: Exchange, receive: Receive, answer: Callable[[Exchange, Receive, Body], Awaitable[None]]
) -> None:
    """Read a body, have it answered, and give its room back; a refusal before all of it has come closes the connection.

    Raises:
        PullbackError: every other refusal.
        ClientGoneError: it hung up.
    """
    body = Body(admission.pool, admission.settings, exchange.client)
    admission.busy += 1
    try:
        admission.check_open()
        admission.pool.check_room(exchange.client)
        await body.read(receive, exchange.headers, exchange.scope.get(WIRE))
        exchange.bytes_in = body.size
        await answer(exchange, receive, body)
    except PullbackError as error:
        if exchange.status or body.is_complete:
            raise
        # The client may still be sending; its connection reads on for a while, so that it sees this.
        await exchange.refuse(error, closes=True)
    finally:
        body.release()
        admission.busy -= 1


class Watch:
    """Looks for the client's hanging up while a job runs, and abandons the job then."""

    __slots__ = ("_job", "_pool", "_receive", "_task", "_timer")

    def __init__(self, pool: Pool, job: Job, receive: Receive) -> None:
        self._pool = pool
        self._job = job
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._start)

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._pool.abandon(self._job)

    def end(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        # The cancelled task's traceback refers to this object: it must not lead on to the body and the reply.
        del self._job, self._task


class Awaited:
    """What a job ends with, for a task that awaits it: `tell` is the job's `on_end`."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def tell(self, result: Result) -> None:
        if not self._future.done():  # the task may have been cancelled
            self._future.set_result(result)

    async def reply(self) -> WorkerReply:
        """The worker's reply.

        Raises:
            PullbackError: the pool's refusal.
            ClientGoneError: nobody waits for it any more.
        """
        result = await self._future
        if isinstance(result, WorkerReply):
            return result
        # An error's traceback refers to this frame, and so must not find its way back to the error.
        del self
        try:
            raise ClientGoneError if result is None else result
        finally:
            del result


async def ask(
    admission: Admission,
    endpoint: str,
    exchange: Exchange,
    receive: Receive,
    body: Body,
    parameters: Mapping[str, str] | None = None,
) -> WorkerReply:
    """The worker's reply to this exchange's body, at `endpoint` of the road; the client's hanging up ends the wait.

    Raises:
        PullbackError: the pool's refusal.
        ClientGoneError: nobody waits for it any more.
    """
    awaited = Awaited()
    asked = asked_by(exchange.headers, endpoint, parameters)
    job = admission.pool.ask(asked, exchange.request_id, body.pieces, body.size, exchange.client, awaited.tell)
    watch = Watch(admission.pool, job, receive)
    try:
        reply = await awaited.reply()
        note(exchange, job, reply)
    finally:
        watch.end()
        # Nobody computes it any more, and the client may take the reply for minutes.
        body.release()
        # Its refusal refers to this frame by its traceback.
        del job, awaited
    return reply


def asked_by(headers: Mapping[bytes, bytes], endpoint: str, parameters: Mapping[str, str] | None = None) -> Asked:
    """What a request's headers ask of `endpoint` of the road."""
    return asked_of(
        endpoint,
        text_of(headers, b"content-type"),
        text_of(headers, b"content-encoding"),
        text_of(headers, b"accept"),
        parameters,
    )


def response(exchange: Exchange, reply: WorkerReply) -> tuple[int, bytes, Buffer, Headers]:
    """Status, media type, body and headers of a worker's reply."""
    headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
    return reply.status, reply.media_type.encode(), reply.body, [*headers, (b"server-timing", timing(exchange))]


def note(exchange: Exchange, job: Job, reply: WorkerReply) -> None:
    """Keep for the log and the metrics what the worker said."""
    exchange.labels = reply.labels
    exchange.timings = reply.timings
    exchange.queue_s = job.begun - job.arrived
    exchange.worker = job.worker
    code = reply.labels.get("code", "")
    exchange.code = "" if code == "ok" else code


def add_times(exchange: Exchange, job: Job, reply: WorkerReply) -> None:
    """Add one query's seconds to those of the list that it stands in."""
    exchange.queue_s += job.begun - job.arrived
    together = dict(exchange.timings)
    for name, seconds in reply.timings.items():
        together[name] = together.get(name, 0.0) + seconds
    exchange.timings = together


def timing(exchange: Exchange) -> bytes:
    """`Server-Timing`: where a query's time went, in milliseconds."""
    timings = exchange.timings
    return b"queue;dur=%.3f, compute;dur=%.3f, encode;dur=%.3f" % (
        exchange.queue_s * 1e3,
        timings.get("compute", 0.0) * 1e3,
        timings.get("encode", 0.0) * 1e3,
    )
