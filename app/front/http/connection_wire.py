"""A request's own connection, as the application may use it: one write for a whole reply, and a large body in place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any, Final, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.front.http import responses
from app.front.http.framing import RepeatedHead
from app.front.http.receiver import Upload
from app.front.http.wire import SMALL_BODY_BYTES, DirectQueries, DirectQuery, NoRoomError
from app.pool import linux
from app.pool.frames import Buffer

# How long after its FIN we ask whether a client that waits for its answer is still there.
_ASK_AFTER_S: Final = 1.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class OwnConnection(Protocol):
    """What is asked of the connection."""

    upload: Upload | None

    def start_upload(self, upload: Upload) -> bool:
        """As `Wire.start`."""

    def finish(self) -> None:
        """The response is out, and it was the connection's last."""


def new_parser(protocol: object) -> httptools.HttpRequestParser:
    """A parser that calls the `protocol`, set as uvicorn sets its own."""
    parser = httptools.HttpRequestParser(protocol)
    with contextlib.suppress(AttributeError):  # before httptools 0.6.3
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


class ConnectionWire:
    """One request's connection, as `wire.Wire` has it."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, connection: OwnConnection, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle

    @property
    def awaits_continue(self) -> bool:
        return self._cycle.waiting_for_100_continue

    @property
    def is_free(self) -> bool:
        return not self._cycle.flow.write_paused

    async def free(self) -> None:
        if self._cycle.flow.write_paused:
            await self._cycle.flow.drain()

    def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Buffer, *, closes: bool) -> None:
        cycle = self._cycle
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

    def start(self, upload: Upload) -> bool:
        cycle = self._cycle
        if cycle.waiting_for_100_continue and not cycle.transport.is_closing():
            cycle.waiting_for_100_continue = False
            cycle.transport.write(_CONTINUE)
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

    def check(self, now: float, running: RequestResponseCycle | None) -> None:
        """Cut the connection of who has gone while `running` is being answered."""
        if self.eof_since is None or running is None or running.response_started or now - self.eof_since < _ASK_AFTER_S:
            return
        if not self._asked and running.scope["http_version"] == "1.1":
            self._asked = True
            running.transport.write(_CONTINUE)
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
        self._held: tuple[RequestResponseCycle, Any] | None = None
        self._cycle: RequestResponseCycle | None = None
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

    def holds(self, cycle: RequestResponseCycle, app: Any, declared_bytes: int, bytes_at_hand: int) -> bool:
        """Hold a request back, if it is such a one. `bytes_at_hand`: what has come behind its head."""
        direct: DirectQueries | None = getattr(app, "direct_queries", None)
        if direct is None or declared_bytes <= 0 or not direct.takes(cycle.scope):  # type: ignore[arg-type]
            return False
        is_small = declared_bytes <= SMALL_BODY_BYTES and not cycle.waiting_for_100_continue
        if bytes_at_hand < declared_bytes or is_small:
            self._held = cycle, app
        return self.is_held

    def release(self) -> tuple[RequestResponseCycle, Any]:
        """The request that is held, held no longer."""
        if self._held is None:
            raise RuntimeError("no request is held")
        held, self._held = self._held, None
        return held

    def begin(self, cycle: RequestResponseCycle, app: Any, size: int, head: bytes) -> bool:
        """Begin it; False where it is to be answered as every other. `head`: its bytes, empty where they did not come together."""

        def run(rest: Coroutine[Any, Any, None], waits: bool) -> None:
            self._run(rest, cycle, waits=waits)

        # A client that waits to be told to send its body must be told each time.
        repeated = None if cycle.waiting_for_100_continue else RepeatedHead.of(head)
        query: DirectQuery | None = app.direct_queries.admit(cycle.scope, cycle.send, run)
        if query is None or not self._start(query, bytes(cycle.body), size):
            return False
        cycle.body.clear()
        self._query, self._cycle, self._head = query, cycle, repeated
        return True

    def again(self, request: bytes) -> RequestResponseCycle | None:
        """Begin a request under the head of the last, which has been answered: its cycle; None where it is none such, or is not begun."""
        head, query, cycle = self._head, self._query, self._cycle
        if head is None or query is None or cycle is None or (body := head.body_of(request)) is None:
            return None
        query.again()
        if not self._start(query, *body):
            return None
        # As a new cycle begins.
        cycle.response_started = cycle.response_complete = False
        cycle.chunked_encoding = None
        cycle.expected_content_length = 0
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
            # The connection's; as each refers to the other, only a collector would find them.
            cycle.on_response = _nothing

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


def _nothing() -> None:
    """What follows the response to a request whose connection has ended."""
