"""A request's own connection, as the application may use it: one write for a whole reply, and a large body in place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.front.http import responses
from app.front.http.receiver import Upload
from app.front.http.wire import SMALL_BODY_BYTES, SmallQueries, SmallQuery
from app.pool.frames import Buffer


class OwnConnection(Protocol):
    """What is asked of the connection."""

    upload: Upload | None

    async def receive_upload(self, size: int, allocate: Callable[[int], memoryview | None]) -> list[memoryview] | None:
        """As `Wire.receive`."""

    def finish(self) -> None:
        """The response is out, and it was the connection's last."""


class ConnectionWire:
    """One request's connection, as `wire.Wire` has it."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, connection: OwnConnection, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle

    @property
    def awaits_continue(self) -> bool:
        return self._cycle.waiting_for_100_continue

    async def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Buffer, *, closes: bool) -> None:
        cycle = self._cycle
        if cycle.flow.write_paused:
            # The reply before this one has not been taken yet.
            await cycle.flow.drain()
        if cycle.disconnected or cycle.transport.is_closing():
            return
        head = responses.head(status, (*cycle.default_headers, *headers))
        if not cycle.keep_alive or closes:
            cycle.keep_alive = False
            head += responses.CLOSING
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        cycle.transport.writelines((head, b"\r\n", body))
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._connection.finish()
        cycle.on_response()

    async def receive(self, size: int, allocate: Callable[[int], memoryview | None]) -> list[memoryview] | None:
        return await self._connection.receive_upload(size, allocate)

    def drop(self) -> None:
        if self._connection.upload is not None:
            self._connection.upload.drop()


class SmallWay:
    """A connection's way for small queries, whose whole body comes with their head: no task for each, which costs more than all else here.

    Such a request is held back when its head has been parsed, and begun when its body has, a moment later.
    """

    __slots__ = ("_held", "_loop", "_query", "_tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[None]]) -> None:
        self._loop = loop
        self._tasks = tasks
        self._held: tuple[RequestResponseCycle, Any] | None = None
        self._query: SmallQuery | None = None  # the one that is being answered

    @property
    def is_held(self) -> bool:
        return self._held is not None

    def holds(self, cycle: RequestResponseCycle, app: Any, declared_bytes: int, bytes_at_hand: int) -> bool:
        """Hold a request back, if it is such a one. `bytes_at_hand`: what has come behind its head."""
        small: SmallQueries | None = getattr(app, "small_queries", None)
        is_whole = 0 < declared_bytes <= min(bytes_at_hand, SMALL_BODY_BYTES) and not cycle.waiting_for_100_continue
        if is_whole and small is not None and small.takes(cycle.scope):  # type: ignore[arg-type]
            self._held = cycle, app
        return self.is_held

    def release(self) -> tuple[RequestResponseCycle, Any]:
        """The request that is held, held no longer."""
        if self._held is None:
            raise RuntimeError("no request is held")
        held, self._held = self._held, None
        return held

    def begin(self, cycle: RequestResponseCycle, app: Any) -> bool:
        """Begin it; False where it is to be answered as every other."""

        def run(rest: Coroutine[Any, Any, None], waits: bool) -> None:
            self._run(rest, cycle, waits=waits)

        self._query = app.small_queries.begin(cycle.scope, cycle.send, bytes(cycle.body), run)
        return self._query is not None

    def abandon(self) -> None:
        """The client has hung up, or was cut: a query that is kept would keep its reply."""
        query, self._query = self._query, None
        if query is not None:
            query.abandon()

    def end(self) -> None:
        """The response is out."""
        self._query = None

    def _run(self, rest: Coroutine[Any, Any, None], cycle: RequestResponseCycle, *, waits: bool) -> None:
        if waits or cycle.flow.write_paused:
            task = self._loop.create_task(rest)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        try:
            rest.send(None)
        except StopIteration:
            return
        except Exception:  # it has been logged; as where a task ends so, there is no response to give
            cycle.transport.close()
            return
        raise RuntimeError("a reply waited although nothing was to be waited for")
