"""The receiver: where a connection's bytes land: one small buffer that all connections share, or the memory of a large body."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Protocol

# All that one connection can have received and not yet reserved; the system's own 256 KB for each of a thousand would be too much.
SCRATCH_BYTES: Final = 64 << 10
# So that one upload leaves the others their turn.
_TURN_BYTES: Final = 1 << 20
# The pieces of an upload: of an eighth of what has come, so that little more is taken than that, between these bounds.
_LEAST_PIECE_BYTES: Final = 64 << 10
# As many as it takes to come to pieces of a turn's size.
_PIECES_COUNTED: Final = 64
# One for all: what lands in it is parsed, or copied, before the next connection reads.
_SCRATCH: Final = memoryview(bytearray(SCRATCH_BYTES))


class Upload(ABC):
    """The rest of a body of known length, `size` bytes, on its way to where it stays.

    Attributes:
        size: bytes in all; `left`: that are still to come.
        on_end: called once: with True when all of it is there, with False when no more of it will come.
        has_ended: it was called.
        lacks_room: it has ended because it found no room.
    """

    __slots__ = ("has_ended", "lacks_room", "left", "on_end", "size")

    def __init__(self, size: int) -> None:
        self.size = self.left = size
        self.on_end: Callable[[bool], None] | None = None
        self.has_ended = False
        self.lacks_room = False

    @abstractmethod
    def room(self) -> memoryview | None:
        """Where the next bytes belong; None where they find no room, and the upload has ended."""

    @abstractmethod
    def received(self, count: int) -> bool:
        """`count` bytes stand in `room()`; True where these were the last, or found no room."""

    def drop(self) -> None:
        """It finds no room: what has come is let go, and no more of it will come."""
        self.lacks_room = True
        self.end(complete=False)

    def end(self, *, complete: bool) -> None:
        """All of it is there, or no more of it will come."""
        on_end, self.on_end = self.on_end, None
        self.has_ended = True
        if on_end is not None:
            on_end(complete)


class UploadInPieces(Upload):
    """An upload into pieces that are made as it comes.

    Pieces and not one memory of the declared size: that would take room for what never comes, and its pages are not always fresh.

    Arguments:
        allocate: memory of so many bytes; None where there is no room.
    """

    __slots__ = ("_allocate", "_filled", "_pieces")

    def __init__(self, size: int, allocate: Callable[[int], memoryview | None]) -> None:
        super().__init__(size)
        self._allocate = allocate
        self._pieces: list[memoryview] = []
        self._filled = 0  # of the last piece

    def room(self) -> memoryview | None:
        if not self._pieces or self._filled == len(self._pieces[-1]):
            come = sum(map(len, self._pieces[:_PIECES_COUNTED]))
            piece = self._allocate(min(self.left, max(_LEAST_PIECE_BYTES, min(come // 8, _TURN_BYTES))))
            if piece is None:
                self.drop()
                return None
            self._pieces.append(piece)
            self._filled = 0
        return self._pieces[-1][self._filled :]

    def received(self, count: int) -> bool:
        self._filled += count
        self.left -= count
        if self.left == 0:
            self.end(complete=True)
        return self.left == 0

    def end(self, *, complete: bool) -> None:
        if not complete:
            self._pieces = []  # a connection that is cut refers to its upload until a collector finds it
        super().end(complete=complete)

    def taken(self) -> list[memoryview]:
        """The pieces; from now on they are the caller's alone, so that nothing here keeps them."""
        pieces, self._pieces = self._pieces, []
        return pieces


class UploadInPlace(Upload):
    """An upload into the end of a memory that is there.

    Arguments:
        count: counts so many bytes that have come; False where they find no room.
    """

    __slots__ = ("_count", "_memory")

    def __init__(self, size: int, memory: memoryview, count: Callable[[int], bool]) -> None:
        super().__init__(size)
        self._memory: memoryview | None = memory
        self._count = count

    def room(self) -> memoryview | None:
        if self._memory is None:
            return None
        start = len(self._memory) - self.left
        return self._memory[start : start + _TURN_BYTES]

    def received(self, count: int) -> bool:
        self.left -= count
        if not self._count(count):
            self.drop()
        elif self.left == 0:
            self.end(complete=True)
        return self.has_ended

    def end(self, *, complete: bool) -> None:
        self._memory = None
        super().end(complete=complete)


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
        room = None if upload is None or upload.has_ended else upload.room()
        if room is None:
            # The event loop cannot be told that there is no room: what comes lands where it is read for nothing.
            self._connection.upload = None
            return _SCRATCH
        return room

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
