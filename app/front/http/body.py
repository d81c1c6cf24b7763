"""A body: its bytes in pieces, within the limits of size, and never joined; only what has come of it takes room.

Knows Content-Length, the pool's room and tiny pieces. A stalled body is the connection's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.types import Receive

from app.errors import PullbackError
from app.front.http.wire import NoRoomError, Wire
from app.pool import refusals
from app.pool.frames import Buffer
from app.pool.pool import Pool
from app.settings import Settings

# Pieces smaller than the first are gathered into ones of about the second size, so that a body is never a million objects.
_TINY_BYTES: Final = 4 << 10
_GATHERED_BYTES: Final = 64 << 10
_LARGE_BYTES: Final = 256 << 10


class ClientGoneError(Exception):
    """The client has hung up; there is no one to answer."""


class Body:
    """What has been read of one request's body, and the room in the pool that it holds until `release`.

    Attributes:
        pieces, size: what has come.
        is_complete: all of it has come; before that, the client may still be sending.
    """

    __slots__ = ("_budget", "_limit", "_reserved", "is_complete", "pieces", "size")

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._budget = pool.budget
        # More than all the room would be told to try again for ever.
        self._limit = min(settings.body_limit_bytes, self._budget.limit_bytes)
        self._reserved = 0
        self.pieces: list[Buffer] = []
        self.size = 0
        self.is_complete = False

    async def read(self, receive: Receive, headers: Mapping[bytes, bytes], wire: Wire | None = None) -> None:
        """Read all of it; the most of a large one of declared length goes by the `wire` straight to where it stays.

        Raises:
            PullbackError: body_too_large as soon as that is known, queue_full where its bytes find no room.
            ClientGoneError: it hung up before the end.
        """
        declared = self._declared(headers)
        # Nothing is reserved by a word: but what would find no room now need not be sent at all.
        self._budget.check(declared)
        while not self.is_complete:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self._add(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
            if not self.is_complete and wire is not None and declared - self.size >= _LARGE_BYTES:
                await self._read_large(wire, declared)

    def release(self) -> None:
        """Give the room back, and the bytes: an error's traceback may keep this object for a while."""
        self._budget.release(self._reserved)
        self._reserved = 0
        self.pieces = []

    async def _read_large(self, wire: Wire, size: int) -> None:
        try:
            pieces = await wire.receive(size - self.size, self._budget.memory)
        except NoRoomError:
            raise refusals.bytes_full(self._budget.held_bytes, self._budget.limit_bytes) from None
        if pieces is None:
            raise ClientGoneError
        self.pieces += pieces
        self.size = size
        self.is_complete = True

    def _declared(self, headers: Mapping[bytes, bytes]) -> int:
        """Bytes by Content-Length, 0 where there is none."""
        declared = headers.get(b"content-length")
        return 0 if declared is None else self._checked(int(declared))

    def _checked(self, size: int) -> int:
        if size > self._limit:
            raise PullbackError(
                "body_too_large",
                f"The body is larger than the {self._limit} bytes that this server takes.",
                expected=f"at most {self._limit} bytes",
                given=f"{size} bytes" if size < 1 << 63 else "more",
                fix="Send smaller tensors, in several queries, or as safetensors instead of JSON.",
            )
        return size

    def _add(self, piece: bytes) -> None:
        if not piece:
            return
        self.size = self._checked(self.size + len(piece))
        self._budget.reserve(len(piece))
        self._reserved += len(piece)
        last = self.pieces[-1] if self.pieces else None
        if len(piece) < _TINY_BYTES and isinstance(last, bytearray) and len(last) < _GATHERED_BYTES:
            last += piece
        elif len(piece) < _TINY_BYTES and last is not None:
            self.pieces.append(bytearray(piece))
        else:
            self.pieces.append(piece)
