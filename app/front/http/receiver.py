"""The receiver: where a connection's bytes land: one small buffer that all connections share, or the memory of a large body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from app.errors import PullbackError

# All that one connection can have received and not yet reserved; the system's own 256 KB for each of a thousand would be too much.
SCRATCH_BYTES: Final = 64 << 10
# So that one upload leaves the others their turn.
_TURN_BYTES: Final = 1 << 20
# One for all: what lands in it is parsed, or copied, before the next connection reads.
_SCRATCH: Final = memoryview(bytearray(SCRATCH_BYTES))


class Upload:
    """The rest of a body of known length on its way into `memory`.

    Arguments:
        take: called with the number of bytes that have come; raises PullbackError where they find no room.
    """

    __slots__ = ("_filled", "_memory", "_take", "done")

    def __init__(self, memory: memoryview, take: Callable[[int], None], done: asyncio.Future[bool]) -> None:
        self._memory = memory
        self._take = take
        self._filled = 0
        self.done = done

    def room(self) -> memoryview:
        return self._memory[self._filled : self._filled + _TURN_BYTES]

    def received(self, count: int) -> bool:
        """`count` bytes stand in `room()`; True where these were the last, or find no room."""
        self._filled += count
        try:
            self._take(count)
        except PullbackError as error:
            if not self.done.done():
                self.done.set_exception(error)
            return True
        if self._filled < len(self._memory):
            return False
        self.end(complete=True)
        return True

    def end(self, *, complete: bool) -> None:
        """All of it is there, or no more of it will come."""
        if not self.done.done():
            self.done.set_result(complete)


class Receives(Protocol):
    """What the receiver hands bytes to."""

    upload: Upload | None

    def feed(self, data: bytes) -> None:
        """Parse what has come."""

    def upload_progressed(self, count: int) -> None:
        """`count` bytes of the body have come by the upload."""

    def eof_received(self) -> bool:
        """No more will come; True where there is still something to say."""

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class Receiver(asyncio.BufferedProtocol):
    """The transport's protocol: it reads into our buffers instead of making a new object of up to 256 KB each time."""

    def __init__(self, connection: Receives) -> None:
        self._connection = connection

    def get_buffer(self, sizehint: int) -> memoryview:
        upload = self._connection.upload
        return _SCRATCH if upload is None else upload.room()

    def buffer_updated(self, nbytes: int) -> None:
        if self._connection.upload is None:
            self._connection.feed(bytes(_SCRATCH[:nbytes]))
        else:
            self._connection.upload_progressed(nbytes)

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
