"""A request's own connection, as the application may use it: one write for a whole reply, and a large body in place."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any, Final, Protocol

from app.front.http import responses, uvicorn_base
from app.front.http.framing import RepeatedHead
from app.front.http.receiver import Upload
from app.front.http.uvicorn_base import Cycle
from app.front.http.wire import SMALL_BODY_BYTES, DirectQueries, DirectQuery, NoRoomError
from app.pool import linux
from app.pool.frames import Buffer

# How long after its FIN we ask whether a client that waits for its answer is still there.
_ASK_AFTER_S: Final = 1.0


class OwnConnection(Protocol):
    """What is asked of the connection."""

    upload: Upload | None

    def start_upload(self, upload: Upload) -> bool:
        """As `Wire.start`."""

    def finish(self) -> None:
        """The response is out, and it was the connection's last."""


class ConnectionWire:
    """One request's connection, as `wire.Wire` has it."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, connection: OwnConnection, cycle: Cycle) -> None:
        self._connection = connection
        self._cycle = cycle

    @property
    def awaits_continue(self) -> bool:
        return uvicorn_base.awaits_continue(self._cycle)

    @property
    def is_free(self) -> bool:
        return uvicorn_base.is_free(self._cycle)

    async def free(self) -> None:
        await uvicorn_base.free(self._cycle)

    def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Buffer, *, closes: bool) -> None:
        cycle = self._cycle
        if uvicorn_base.has_left(cycle):
            return
        head = responses.head(status, (*uvicorn_base.default_headers(cycle), *headers))
        is_last = uvicorn_base.is_last(cycle, closes=closes)
        if is_last:
            head += responses.CLOSING
        uvicorn_base.write_whole(cycle, (head, b"\r\n", body), self._connection.finish if is_last else None)

    def start(self, upload: Upload) -> bool:
        uvicorn_base.tell_to_continue(self._cycle)
        return self._connection.start_upload(upload)

    async def receive(self, upload: Upload) -> bool:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        upload.on_end = partial(_tell, done)
        if not self.start(upload):
            return False
        try:
            is_complete = await done
        finally:
            if self._connection.upload is upload:
                self._connection.upload = None
        if upload.lacks_room:
            raise NoRoomError
        return is_complete

    def drop(self) -> None:
        if self._connection.upload is not None:
            self._connection.upload.drop()


def _tell(done: asyncio.Future[bool], is_complete: bool) -> None:
    if not done.done():  # the task that waits may have been cancelled
        done.set_result(is_complete)


class Presence:
    """Whether a client that has sent its FIN still waits for the answer, or has closed: then nobody needs it.

    Only sending tells: a system whose process has closed the socket replies with a reset. An interim response is what may be sent before
    the answer, and be ignored by every client (RFC 9110, section 15.2.1).

    Attributes:
        eof_since: when the FIN came, by the loop's clock; None before.
    """

    __slots__ = ("_asked", "eof_since")

    def __init__(self) -> None:
        self.eof_since: float | None = None
        self._asked = False

    def check(self, now: float, running: Cycle | None) -> None:
        """Cut the connection of who has gone while `running` is being answered."""
        if self.eof_since is None or running is None or running.response_started or now - self.eof_since < _ASK_AFTER_S:
            return
        if not self._asked and running.scope["http_version"] == "1.1":
            self._asked = True
            uvicorn_base.send_interim(running)
        elif self._asked and linux.is_reset(running.transport.get_extra_info("socket")):
            running.transport.abort()


class DirectWay:
    """A connection's way for queries whose bodies say their length: no task for each, which costs more than all else here.

    Such a request is held back when its head has been parsed, and begun when all that came with it has been, a moment later. Where the
    next one comes under the very same head, it needs no parsing: it is the same request again, with another body.
    """

    __slots__ = ("_awaited", "_cycle", "_head", "_held", "_loop", "_query", "_tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[None]]) -> None:
        self._loop = loop
        self._tasks = tasks
        self._held: tuple[Cycle, Any] | None = None
        self._cycle: Cycle | None = None
        self._query: DirectQuery | None = None  # the last that was begun, and its cycle
        self._awaited: DirectQuery | None = None  # it, while its body comes
        self._head: RepeatedHead | None = None

    @property
    def is_held(self) -> bool:
        return self._held is not None

    @property
    def awaits_body(self) -> bool:
        """The body of a query is being received: what comes by another way is of one that has stopped."""
        return self._awaited is not None

    def holds(self, cycle: Cycle, app: Any, declared_bytes: int, bytes_at_hand: int) -> bool:
        """Hold a request back, if it is such a one. `bytes_at_hand`: what has come behind its head."""
        direct: DirectQueries | None = getattr(app, "direct_queries", None)
        if direct is None or declared_bytes <= 0 or not direct.takes(cycle.scope):  # type: ignore[arg-type]
            return False
        is_small = declared_bytes <= SMALL_BODY_BYTES and not uvicorn_base.awaits_continue(cycle)
        if bytes_at_hand < declared_bytes or is_small:
            self._held = cycle, app
        return self.is_held

    def release(self) -> tuple[Cycle, Any]:
        """The request that is held, held no longer."""
        if self._held is None:
            raise RuntimeError("no request is held")
        held, self._held = self._held, None
        return held

    def begin(self, cycle: Cycle, app: Any, size: int, head: bytes) -> bool:
        """Begin it; False where it is to be answered as every other. `head`: its bytes, empty where they did not come together."""

        def run(rest: Coroutine[Any, Any, None], waits: bool) -> None:
            self._run(rest, cycle, waits=waits)

        # A client that waits to be told to send its body must be told each time.
        repeated = None if uvicorn_base.awaits_continue(cycle) else RepeatedHead.of(head)
        query: DirectQuery | None = app.direct_queries.admit(cycle.scope, cycle.send, run)
        if query is None or not self._start(query, bytes(cycle.body), size):
            return False
        cycle.body.clear()
        self._query, self._cycle, self._head = query, cycle, repeated
        return True

    def again(self, request: bytes) -> Cycle | None:
        """Begin a request under the head of the last, which has been answered: its cycle; None where it is none such, or is not begun."""
        head, query, cycle = self._head, self._query, self._cycle
        if head is None or query is None or cycle is None or (body := head.body_of(request)) is None:
            return None
        query.again()
        if not self._start(query, *body):
            return None
        uvicorn_base.renew(cycle)
        return cycle

    def _start(self, query: DirectQuery, come: bytes, size: int) -> bool:
        if len(come) == size:
            return size <= SMALL_BODY_BYTES and query.begin(come)
        if not query.receive(come, size):
            return False
        self._awaited = query
        return True

    def received(self) -> None:
        """The body of the request that is being received has come."""
        query, self._awaited = self._awaited, None
        if query is not None:
            query.received()

    def abandon(self) -> None:
        """The client has hung up, or was cut: a query that is kept would keep its reply, and its connection."""
        query, self._query, self._awaited = self._query, None, None
        cycle, self._cycle = self._cycle, None
        if query is not None:
            query.abandon()
        if cycle is not None:
            uvicorn_base.part(cycle)

    def _run(self, rest: Coroutine[Any, Any, None], cycle: Cycle, *, waits: bool) -> None:
        if waits or not uvicorn_base.is_free(cycle):
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
