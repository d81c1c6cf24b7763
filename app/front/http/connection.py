"""A connection: uvicorn's with the bounds that it leaves open, and HTTP/1.1 as clients really speak it.

One request is parsed at a time: what is pipelined behind it waits, unparsed, for its response (RFC 9112, section 9.3.2).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from app.errors import PullbackError
from app.front.http import http_refusals as refusals
from app.front.http import responses, uvicorn_base
from app.front.http.connection_wire import ConnectionWire, DirectWay, Presence
from app.front.http.exchange import REFUSED, address_of
from app.front.http.framing import Framing, Stage, framing_head
from app.front.http.http_refusals import CHUNK_LIMIT, HEADER_COUNT_LIMIT
from app.front.http.pace import TransferLimits, Transfers
from app.front.http.receiver import Receiver, Upload
from app.front.http.uvicorn_base import Cycle, UvicornConnection
from app.front.http.wire import WIRE, Crowd


class Connection(UvicornConnection):
    """One client's connection. `check_in_time` is called by the server now and then.

    Arguments:
        crowd: those that are open, where they are counted; not on `uncounted_port`.
    """

    def __init__(self, *arguments: Any, crowd: Crowd[Connection] | None = None, uncounted_port: int = 0, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._crowd = crowd
        self._uncounted_port = uncounted_port
        self.address = ""  # of the client, as the queue tells clients apart
        self.upload: Upload | None = None
        self._framing = Framing()
        self._transfers = Transfers()
        self._backlog = b""  # received behind a request that is being answered
        self._at_hand = 0  # bytes that have come behind the head that is being parsed
        self._head = b""  # its bytes, where they came together
        self._direct = DirectWay(self.loop, self.tasks)
        self._switching = False  # an upgrade was asked for, and the parser waits for the other protocol's bytes
        self._muted = False
        self._refused = False
        self._postponed: PullbackError | None = None  # a refusal that waits for the answers before it
        self._presence = Presence()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Writing is paused until the system has taken everything, so that a connection never holds more than one piece.
        transport.set_write_buffer_limits(high=0)
        transport.set_protocol(Receiver(self))
        self._begin()
        self.address = address_of({"client": self.client})
        # On the port of metrics it is the operator who asks.
        if self._crowd is not None and self.server is not None and self.server[1] != self._uncounted_port:
            admission = self._crowd.join(self)
            if admission == "cut":
                transport.abort()
            elif admission == "refused":
                self._refuse(refusals.too_many_connections())

    def feed(self, data: bytes) -> None:
        """Parse what has come, request by request; while one is being answered, what follows it waits."""
        if self._refused or self._postponed is not None or self._direct.awaits_body:
            self._transfers.discard(self.loop.time(), len(data))
            return
        if data and self._begin_again(data):
            return
        if self._backlog:
            data, self._backlog = self._backlog + data, b""
        if not data:
            return
        self.idle_since = None
        view, start = memoryview(data), 0
        while start < len(data) and not self._refused and not self.transport.is_closing():
            if self._framing.stage is Stage.COMPLETE:
                if self.is_answering_another(None):
                    self._backlog = data[start:]
                    self.flow.pause_reading()
                    return
                self._begin()
            end = self._framing.step(data, start)
            self._at_hand = len(data) - end
            self._parse(view[start:end])
            start = end
        if self._direct.is_held:
            self._start_held()

    def _begin_again(self, data: bytes) -> bool:
        """Begin a query under the head of the last one without parsing it, where nothing else is under way; False: it is none."""
        is_between = self._framing.stage is Stage.COMPLETE and self.has_answered and not self._backlog and not self.has_queued
        if not is_between or self.transport.is_closing() or (cycle := self._direct.again(data)) is None:
            return False
        self.take_up(cycle)
        if self.upload is not None:
            self._begin()
            self._framing = Framing.amid_body(len(data), self.upload.left)
        return True

    def upload_progressed(self, count: int) -> None:
        upload = self.upload
        if upload is None:
            return
        self._transfers.received(self.loop.time())
        self._framing.body_bytes += count
        if upload.received(count):
            self.upload = None
            if upload.lacks_room:
                return
            if self._framing.framing_bytes:  # of a head that the parser has seen, but not the rest of the body
                self.renew_parser()
            self.on_message_complete()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client will send no more; one that waits for an answer gets it all the same (RFC 9112, section 9.6)."""
        if self._presence.eof_since is None:
            self._presence.eof_since = self.loop.time()
        if self._refused or (self._framing.stage is Stage.BODY and self.has_answered):
            return False
        if self._framing.stage is Stage.BODY or (self._framing.stage is Stage.HEAD and self._framing.framing_bytes):
            self._refuse(refusals.ended_early())
            return True
        if self.running is not None and not self.running.response_complete:
            uvicorn_base.keep_behind(self.running, bool(self._backlog) or self.has_queued)
            return True
        return False

    def pause_writing(self) -> None:
        super().pause_writing()
        self._transfers.paused(self.loop.time(), self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._transfers.resumed()

    @property
    def is_answering(self) -> bool:  # a request, on this connection; a large answer leaves in one write, and is not taken yet
        return self.is_answering_another(None) or self.transport.get_write_buffer_size() > 0

    def leave(self) -> None:
        """Close it, as others need its place."""
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._crowd is not None:
            self._crowd.part(self)
        self._backlog = b""
        self._direct.abandon()
        if self.upload is not None:
            self.upload.end(complete=False)

    def on_message_begin(self) -> None:
        if self._muted:
            return
        super().on_message_begin()
        if self._framing.stage is Stage.COMPLETE:
            # Parsed with the end of a chunked body before it; of how much of it, the parser does not say.
            self._begin()
            self._framing.framing_bytes = 1

    def on_url(self, url: bytes) -> None:
        if not self._muted:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers come here too: they are no headers, and none of ours may be given in them (RFC 9110, section 6.5.1)."""
        if self._muted or self._refused or self._framing.stage is not Stage.HEAD:
            return
        if len(self.headers) == HEADER_COUNT_LIMIT:
            self._refuse(refusals.headers_too_large())
            return
        name = name.lower()
        if name == b"content-length":
            with contextlib.suppress(ValueError):
                self._framing.declared_bytes = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._muted or self._refused:
            return
        if self.parser.get_http_version() == "1.0":
            # It does not know 1xx responses (RFC 9110, section 10.1.1).
            self.expect_100_continue = False
        self._switching = self.parser.should_upgrade()
        super().on_headers_complete()
        self._framing.stage = Stage.BODY
        # The request's task starts later, so that it finds this in its scope.
        self.scope[WIRE] = ConnectionWire(self, self.cycle)  # type: ignore[typeddict-unknown-key]

    def on_chunk_header(self) -> None:
        """Called by the parser before each chunk of a body."""
        self._framing.chunks += 1
        if self._framing.chunks == CHUNK_LIMIT + 1:
            self._refuse(refusals.too_many_chunks())

    def on_body(self, body: bytes) -> None:
        self._framing.body_bytes += len(body)
        if self._refused:
            return
        if self.has_answered:
            # Of a request that was refused without it.
            self._transfers.discard(self.loop.time(), len(body))
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused or self._switching:
            return
        self._framing.stage = Stage.COMPLETE
        self._transfers.complete()
        super().on_message_complete()
        if self._direct.is_held:
            self._start_held()
        else:
            self._direct.received()
        if self.has_answered and not self.transport.is_closing():
            self.idle_since = self.loop.time()

    def answers_itself(self, cycle: Cycle, app: Any) -> bool:
        is_new = self._framing.stage is Stage.HEAD and not self._switching
        return is_new and self._direct.holds(cycle, app, self._framing.declared_bytes, self._at_hand)

    def _start_held(self) -> None:
        held = self._direct.release()
        head, self._head = self._head, b""
        if not self._direct.begin(*held, self._framing.declared_bytes, head):
            self.start_task(*held)

    def answered(self) -> None:
        if self.transport.is_closing() or self.is_answering_another(None):
            return
        if self._postponed is not None:
            error, self._postponed = self._postponed, None
            self._refuse(error)
            return
        self.feed(b"")
        if self._presence.eof_since is not None and not self.eof_received() and not self.transport.is_closing():
            self.transport.close()

    def start_upload(self, upload: Upload) -> bool:
        """As `Wire.start`."""
        if self.transport.is_closing() or self._presence.eof_since is not None or self._refused:
            return False
        self.upload = upload
        self.flow.resume_reading()
        return True

    def _begin(self) -> None:
        """A request begins with the next byte."""
        self._framing, self._head = Framing(), b""
        self._transfers.receiving(self.loop.time())
        self._switching = False

    def _parse(self, piece: memoryview) -> None:
        framing = self._framing
        self._transfers.received(self.loop.time())
        if framing.stage is Stage.HEAD:
            # Counted before, as the parser speaks of a header only when all of it is there.
            self._head = b"" if framing.framing_bytes else bytes(piece)
            framing.framing_bytes += len(piece)
            if framing.is_too_large:
                self._refuse(refusals.headers_too_large())
            else:
                self._feed_parser(piece)
            return
        before = framing.body_bytes
        self._feed_parser(piece)
        if self._framing is framing and framing.stage is Stage.BODY:
            framing.framing_bytes += len(piece) - (framing.body_bytes - before)
            if framing.is_too_large:
                self._refuse(refusals.headers_too_large())

    def _feed_parser(self, piece: memoryview) -> None:
        outcome = self.parse(piece)
        if outcome == "upgrade":
            self._stay_with_http()
        elif outcome == "invalid":
            self._refuse(refusals.not_http())

    def _stay_with_http(self) -> None:
        """A server may ignore a request to upgrade (RFC 9110, section 7.8); the parser cannot: it drops the body.

        So a new one is told of the body's framing alone, and parses on from there.
        """
        self._switching = False
        self.renew_parser()
        self._muted = True
        try:
            self._feed_parser(memoryview(framing_head(self.headers)))
        finally:
            self._muted = False

    def check_in_time(self, now: float, limits: TransferLimits, *, pressed: bool, late_s: float) -> None:
        """Refuse who sends too slowly; cut who takes too slowly or has gone. `pressed`: bytes are short. `late_s`: we look so late."""
        self._transfers.forgive(now, late_s)
        unsent = self.transport.get_write_buffer_size()
        if self._transfers.sends_too_slowly(now, unsent, limits, pressed=pressed):
            # What it does not take would stay in memory for ever.
            self.transport.abort()
            return
        self.idle_since = now if unsent and self.idle_since is not None else self.idle_since  # it is busy taking the answer
        if self.has_idled(now):
            self.transport.close()
            return
        self._presence.check(now, self.running)
        if self._transfers.has_lingered(now, limits):
            self.transport.close()
            return
        if not self._transfers.is_receiving or self._refused:
            return
        count = self._framing.received_bytes
        if self.flow.read_paused:
            # It is us who do not take what it sends.
            self._transfers.receiving(now, count)
        elif self._transfers.receives_too_slowly(now, count, limits):
            self._refuse(refusals.too_slow(count, limits.window_s, limits.body_bytes_per_s))
        elif self._transfers.is_in_the_way(now, count, limits, pressed=pressed):
            self._refuse(refusals.in_the_way())

    def _refuse(self, error: PullbackError) -> None:
        if self._refused or self._postponed is not None or self.transport.is_closing():
            return
        own = self.cycle if self._framing.stage is Stage.BODY else None
        if self.is_answering_another(own):
            # Responses leave in the order of their requests, and those before it were good.
            self._postponed = error
            self._framing.stage = Stage.COMPLETE
            self._transfers.complete()
            self.withdraw(own)
            self.flow.pause_reading()
            return
        if own is None or not own.response_started:
            self.transport.write(responses.refusal(error, {} if own is None else own.scope))
        if own is not None and not own.response_complete:
            own.scope[REFUSED] = error.code  # type: ignore[typeddict-unknown-key]
            uvicorn_base.break_off(own)
        if self.upload is not None:
            self.upload.end(complete=False)
            self.upload = None
        self._linger()

    def finish(self) -> None:
        """The response is out, and it was the connection's last."""
        if self._framing.stage is Stage.BODY:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Read on, for nothing: closing with bytes unread would reset the connection and take the response with it (9112, 9.6)."""
        self._refused = True
        if self._presence.eof_since is not None:
            self.transport.close()
            return
        self._transfers.linger(self.loop.time())
        self.transport.write_eof()
        self.flow.resume_reading()
