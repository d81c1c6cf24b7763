"""uvicorn, as far as Pullback is built on it: its server, its connection, and the cycle of a request and its response.

Much of it is no public interface (names with underscores, fields that a cycle sets), and may change with a release: pyproject.toml allows
one minor version.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, cast

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# One request and its response. Others read `scope`, `send`, `transport`, `body`, `response_started` and `response_complete`; what
# changes one stands below.
Cycle = RequestResponseCycle

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def awaits_continue(cycle: Cycle) -> bool:
    """The client holds its body back until it is told to go on."""
    return cycle.waiting_for_100_continue


def tell_to_continue(cycle: Cycle) -> None:
    if cycle.waiting_for_100_continue and not cycle.transport.is_closing():
        cycle.waiting_for_100_continue = False
        send_interim(cycle)


def send_interim(cycle: Cycle) -> None:
    """An interim response, which every client may ignore (RFC 9110, section 15.2.1)."""
    cycle.transport.write(_CONTINUE)


def is_free(cycle: Cycle) -> bool:
    """The client has taken all that was sent before."""
    return not cycle.flow.write_paused


async def free(cycle: Cycle) -> None:
    """Return when it is."""
    if cycle.flow.write_paused:
        await cycle.flow.drain()


def has_left(cycle: Cycle) -> bool:
    """Nobody waits for the response any more."""
    return cycle.disconnected or cycle.transport.is_closing()


def default_headers(cycle: Cycle) -> list[tuple[bytes, bytes]]:
    """What the server adds to every response: the date."""
    return cycle.default_headers


def is_last(cycle: Cycle, *, closes: bool) -> bool:
    """Whether its response is the connection's last, as the client or, with `closes`, we want it."""
    if closes:
        cycle.keep_alive = False
    return not cycle.keep_alive


def keep_behind(cycle: Cycle, keeps: bool) -> None:
    """Whether the connection stays open behind its response."""
    cycle.keep_alive = keeps


def write_whole(cycle: Cycle, pieces: tuple[Any, ...], finish: Callable[[], None] | None) -> None:
    """Write the whole response with one system call; then `finish` is called, where it is the connection's last."""
    cycle.response_started = True
    cycle.waiting_for_100_continue = False
    cycle.transport.writelines(pieces)
    cycle.response_complete = True
    cycle.message_event.set()
    if finish is not None:
        finish()
    cycle.on_response()


def renew(cycle: Cycle) -> None:
    """As a new cycle begins: the next request under the same head."""
    cycle.response_started = cycle.response_complete = False
    cycle.chunked_encoding = None
    cycle.expected_content_length = 0


def break_off(cycle: Cycle) -> None:
    """Whoever waits for the rest of the body learns that it will not come, and writes nothing more."""
    cycle.disconnected = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()


def part(cycle: Cycle) -> None:
    """It refers to its connection no more: as each refers to the other, only a collector would find them."""
    cycle.on_response = _nothing


def _nothing() -> None:
    """What follows the response to a request whose connection has ended."""


class UvicornConnection(HttpToolsProtocol):
    """uvicorn's connection, with what it does by itself in the hands of a subclass.

    Attributes:
        running: the request that was begun last.
        idle_since: since when it waits for a request behind an answered one, by the loop's clock; None where it does not.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.running: Cycle | None = None
        # The server looks at it now and then, as a timer for each request costs more.
        self.idle_since: float | None = None

    def answers_itself(self, cycle: Cycle, app: Any) -> bool:
        """Whether a request that begins is answered without a task of its own."""
        raise NotImplementedError

    def answered(self) -> None:
        """A response has been given."""
        raise NotImplementedError

    @property
    def has_answered(self) -> bool:
        """The request that was parsed last has its response."""
        return self.cycle.response_complete

    @property
    def has_queued(self) -> bool:
        """Requests that have been parsed wait for the one that is being answered."""
        return bool(self.pipeline)

    def is_answering_another(self, but: Cycle | None) -> bool:
        """A response other than that of `but` is still to be given or finished."""
        running = self.running
        waits = any(cycle is not but for cycle, _ in self.pipeline)
        return waits or (running is not None and running is not but and not running.response_complete)

    def withdraw(self, cycle: Cycle | None) -> None:
        """It will not be begun."""
        self.pipeline = deque(entry for entry in self.pipeline if entry[0] is not cycle)

    def take_up(self, cycle: Cycle) -> None:
        """A request under the head of the last one begins, in the last one's cycle."""
        self.idle_since = None
        cycle.default_headers = self.server_state.default_headers
        self.cycle = self.running = cycle

    def start_task(self, cycle: Cycle, app: Any) -> None:
        super()._start_asgi_task(cycle, app)

    def has_idled(self, now: float) -> bool:
        """It has waited for a request for as long as connections are kept."""
        return self.idle_since is not None and now - self.idle_since > self.timeout_keep_alive

    def renew_parser(self) -> None:
        """A parser that is at no request, set as uvicorn sets its own."""
        self.parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(AttributeError):  # before httptools 0.6.3
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def parse(self, piece: memoryview) -> str:
        """Have a piece parsed: `parsed`, `upgrade` where another protocol was asked for, `invalid` where it is no HTTP."""
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            return "upgrade"
        except httptools.HttpParserError:
            return "invalid"
        return "parsed"

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for cycle in (self.running, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            else:
                self.idle_since = self.loop.time()
        self.answered()

    def _unset_keepalive_if_required(self) -> None:
        self.idle_since = None

    def _start_asgi_task(self, cycle: Cycle, app: Any) -> None:
        self.running = cycle
        if not self.answers_itself(cycle, app):
            super()._start_asgi_task(cycle, app)


class UvicornServer(uvicorn.Server):
    """uvicorn's server, with connections of ours and without its log.

    Arguments:
        connection: makes one, of what uvicorn gives by name.
        keep_alive_s: that a connection may wait for a request; `last_bytes_s`: that those which are open may take at the end.
        listens: on sockets, and to signals; else both are another's, and it is handed connections.
    """

    def __init__(
        self,
        application: ASGIApp,
        connection: Callable[..., UvicornConnection],
        *,
        keep_alive_s: int,
        last_bytes_s: int,
        listens: bool,
    ) -> None:
        # Its own lines are replaced by ours; what it would say of a broken application, the middleware has said.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().__init__(
            uvicorn.Config(
                application,
                loop="uvloop",
                http=cast(type[asyncio.Protocol], connection),
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=keep_alive_s,
                timeout_graceful_shutdown=last_bytes_s,
            )
        )
        self._listens = listens
        self._new_connection = connection

    def started_up(self) -> None:
        """The application has started; `is_ending` already where a signal has come."""

    def tick(self, counter: int) -> None:
        """Called every tenth of a second."""

    def signalled(self) -> None:
        """A signal to end has come."""

    def hung_up(self) -> None:
        """The terminal has gone (SIGHUP)."""

    @property
    def is_ending(self) -> bool:
        return self.should_exit

    def end_soon(self, *, at_once: bool = False) -> None:
        """End with the next tick; `at_once`: without waiting for connections."""
        self.force_exit = self.force_exit or at_once
        self.should_exit = True

    @property
    def open_connections(self) -> list[UvicornConnection]:
        return [one for one in self.server_state.connections if isinstance(one, UvicornConnection)]

    async def connect(self, accepted: socket.socket) -> None:
        """Serve a connection that another has accepted."""

        def protocol() -> UvicornConnection:
            return self._new_connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

        await asyncio.get_running_loop().connect_accepted_socket(protocol, accepted)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets if self._listens else [])
        self.started_up()

    async def on_tick(self, counter: int) -> bool:
        self.tick(counter)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.signalled()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if not self._listens:
            yield
            return
        before = signal.getsignal(signal.SIGHUP)
        with super().capture_signals():
            if before is not signal.SIG_IGN:  # `nohup`
                signal.signal(signal.SIGHUP, lambda number, frame: self.hung_up())
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, before)
