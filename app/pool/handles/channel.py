"""A channel: frames in and out of one non-blocking socket on the event loop, at most a megabyte a turn."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from time import monotonic
from typing import Final

from app.pool.frames import BrokenStreamError, Buffer, Frame, NoMemoryError, Reader

# Moved for one worker in one turn of the event loop: 0.4 ms over a socketpair (measured), beside which a call costs little.
_TURN_BYTES: Final = 1 << 20
_SMALL_BYTES: Final = (
    64 << 10
)  # what is pending, up to here, is joined: that costs less than to count what was sent of each piece
_PIECES_LIMIT: Final = 64  # buffers in one sendmsg; the system's IOV_MAX is 1024
# How long we look for the next piece of a large body before we leave it to the event loop.
_PATIENCE_S: Final = 0.0003
# Rounds with one question each: where two clients ask at random, so many in a row are a chance of 2^-8, 0.4 %.
_ROUNDS: Final = 8


class Channel:
    """One end of a socketpair, owned.

    Arguments:
        connection: a connected Unix stream socket; made non-blocking and closed here.
        on_frame: called for each frame, in order; raises BrokenStreamError where it is none that the other side may send.
        on_lost: called once, when the other side is gone or cannot be understood; not after `close`.
        allocate: the memory of a large body, as the frames' Reader has it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        on_frame: Callable[[Frame], None],
        on_lost: Callable[[], None],
        allocate: Callable[[int], memoryview | None] | None = None,
    ) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._connection = connection
        self._descriptor = connection.fileno()
        self._reader = Reader() if allocate is None else Reader(allocate)
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._pending: deque[Buffer] = deque()
        self._is_sending = False  # what is pending will be sent: at the end of this turn, or when the socket takes more
        self._sends = 0  # since frames last came
        self._rounds = 0  # in a row, in which one thing was sent, or none, before frames came
        self.closed = False
        loop.add_reader(self._descriptor, self._readable)

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Send the buffers in order, with all else that is sent in this turn of the event loop: one system call and one wake-up.

        Where one thing after another is asked, each when the one before was answered, nothing else is to be expected: it is sent at once.
        """
        if self.closed:
            return
        self._pending.extend(buffers)
        self._sends += 1
        if self._is_sending:
            return
        self._is_sending = True
        if self._sends == 1 and self._rounds >= _ROUNDS:
            self._flush()
        else:
            self._loop.call_soon(self._flush)

    def send_with(self, buffers: Sequence[Buffer], descriptors: Sequence[int]) -> None:
        """Send one small frame and copies of file descriptors with it (unix(7), SCM_RIGHTS).

        Raises:
            OSError: the other side is gone, or does not listen.
        """
        socket.send_fds(self._connection, list(buffers), list(descriptors))

    def close(self) -> None:
        """Hang up; nothing is called back afterwards."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._descriptor)
        if self._is_sending:
            self._loop.remove_writer(self._descriptor)
            self._pending.clear()
        self._connection.close()
        self._reader.forget()

    def drain(self) -> None:
        """Take what is still in the socket of a process that is known to be dead, and end: `on_lost` is called, once."""
        while not self.closed:
            try:
                count = self._connection.recv_into(self._reader.buffer())
            except OSError:  # at its end, reset, or empty although somebody else still holds the other end
                count = 0
            self._received(count)

    def _readable(self) -> None:
        """Take what is there, until nothing is, up to a turn's bytes at once.

        That there was nothing more is seen, not assumed: where the other side died with unread input, the system reports an error
        beside the waiting data, and libuv stops watching a socket at its first error (uv__poll_io in libuv's src/unix/poll.c), so
        this may be the last call. For the same reason the next turn is ours to schedule.

        The system hands a body over in pieces of some 50 KB and wakes us for each: a wake-up through the event loop costs more
        than the piece takes to come, so for the next one we wait on the spot, for a moment.
        """
        room, until = _TURN_BYTES, 0.0
        while room > 0 and not self.closed:
            try:
                count = self._connection.recv_into(self._reader.buffer()[:room])
            except BlockingIOError:
                if not self._reader.is_amid_body or (until and monotonic() > until):
                    return
                until = until or monotonic() + _PATIENCE_S
                os.sched_yield()
                continue
            except OSError:
                count = 0
            if not self._received(count):
                return
            room, until = room - count, 0.0
        if not self.closed:
            self._loop.call_soon(self._readable)

    def _received(self, count: int) -> bool:
        """Pass the frames on; False where the channel ends with these bytes, or one of the frames closed it."""
        try:
            frames = self._reader.received(count) if count else None
        except (BrokenStreamError, NoMemoryError):
            frames = None
        if frames is None:
            self._lost()
            return False
        if frames:
            self._rounds = self._rounds + 1 if self._sends <= 1 else 0
            self._sends = 0
        try:
            for frame in frames:
                if self.closed:
                    return False
                self._on_frame(frame)
        except BrokenStreamError:
            self._lost()
        return not self.closed

    def _lost(self) -> None:
        if not self.closed:
            self.close()
            self._on_lost()

    def _flush(self) -> None:
        if self.closed:
            return
        self._write()
        if self._pending:
            self._loop.add_writer(self._descriptor, self._writable)
        else:
            self._is_sending = False

    def _writable(self) -> None:
        self._write()
        if not self._pending:
            self._loop.remove_writer(self._descriptor)
            self._is_sending = False

    def _write(self) -> None:
        size = sum(map(len, self._pending))
        if size <= _SMALL_BYTES:
            joined = b"".join(self._pending)
            self._pending.clear()
            self._pending.append(joined)
        turn, size = list[Buffer](), 0
        for piece in islice(self._pending, _PIECES_LIMIT):
            piece = piece if size + len(piece) <= _TURN_BYTES else memoryview(piece)[: _TURN_BYTES - size]
            turn.append(piece)
            size += len(piece)
            if size >= _TURN_BYTES:
                break
        try:
            self._advance(self._connection.sendmsg(turn))
        except BlockingIOError:
            return
        except OSError:
            # The end of the stream is read as well, after what the other side still said.
            self._pending.clear()

    def _advance(self, sent: int) -> None:
        pending = self._pending
        while pending and sent >= len(pending[0]):
            sent -= len(pending.popleft())
        if sent:
            pending[0] = memoryview(pending[0])[sent:]
