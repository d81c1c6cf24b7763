"""Messages between the parent and its fronts: JSON objects over a Unix socket that keeps their borders, some with a connection."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, Final

import orjson

# What is longer goes by memory without a name: counts of all models of all protocols have several hundred kilobytes, and a socket takes
# no message above its buffer, 208 KiB unless it was enlarged.
_LIMIT_BYTES: Final = 32 << 10
# A connection comes with its message; no message has two.
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(4)
_CONNECTION: Final = b"c"  # shorter than any JSON object
_STORED: Final = b"m"  # likewise


class Message(dict[str, Any]):
    """What is said: `say` names it, the rest is its facts. `connection`: a client's, which belongs to whoever receives the message."""

    connection: socket.socket | None = None


def line() -> tuple[Line, Line]:
    """Both ends of a new line."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Line(ends[0]), Line(ends[1])


class Line:
    """One end, non-blocking. What is sent is never waited for."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._buffer = memoryview(bytearray(_LIMIT_BYTES))

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def say(self, word: str, **facts: Any) -> bool:
        """False where the other end is gone, or has not listened for long."""
        text = orjson.dumps({"say": word, **facts})
        try:
            if len(text) <= _LIMIT_BYTES:
                self._end.send(text)
            else:
                with open(os.memfd_create("message", os.MFD_CLOEXEC), "w+b", buffering=0) as memory:
                    memory.write(text)
                    socket.send_fds(self._end, [_STORED], [memory.fileno()])
        except OSError:
            return False
        return True

    def hand_over(self, connection: socket.socket) -> bool:
        """Give a client's connection away, which the caller closes then; False as for `say`."""
        try:
            socket.send_fds(self._end, [_CONNECTION], [connection.fileno()])
        except OSError:
            return False
        return True

    def heard(self) -> Message | None:
        """The next message; None where the other end is gone.

        Raises:
            BlockingIOError: nothing more has come.
        """
        try:
            size, ancillary, _, _ = self._end.recvmsg_into((self._buffer,), _ANCILLARY_BYTES)
        except ConnectionError:
            return None
        if not size:
            return None
        if size > len(_CONNECTION):
            return Message(orjson.loads(self._buffer[:size]))
        # None where no descriptor was left for it here.
        descriptor = next((int.from_bytes(data[:4], sys.byteorder) for _, _, data in ancillary), None)
        if bytes(self._buffer[:size]) == _STORED:
            return _stored(descriptor)
        message = Message(say="connection")
        if descriptor is not None:
            message.connection = socket.socket(fileno=descriptor)
        return message


def _stored(descriptor: int | None) -> Message:
    if descriptor is None:
        return Message(say="lost")
    with open(descriptor, "rb") as memory:
        memory.seek(0)  # the position is the writer's too
        return Message(orjson.loads(memory.read()))
