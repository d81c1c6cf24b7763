"""A body: its bytes in pieces, within the limits of size, and never joined.

Knows Content-Length, the pool's room and tiny pieces. Refuses to know what the bytes mean, and time: a stalled body is the
connection's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from starlette.types import Receive

from app.errors import PullbackError
from app.front.http.wire import Wire
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
    """What has been read of one request's body, and the room in the pool that it holds until `release`."""

    __slots__ = ("_limit", "_pool", "pieces", "reserved", "size")

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._limit = settings.body_limit_bytes
        self.pieces: list[Buffer] = []
        self.size = 0
        self.reserved = 0

    async def read(self, receive: Receive, headers: Mapping[bytes, bytes], wire: Wire | None = None) -> None:
        """Read all of it; the most of a large one of declared length goes by the `wire` straight to where it stays.

        Raises:
            PullbackError: body_too_large as soon as that is known, queue_full where its bytes find no room.
            ClientGoneError: it hung up before the end.
        """
        declared = headers.get(b"content-length")
        if declared is not None:
            self._reserve(self._checked(int(declared)))
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self._add(message.get("body", b""))
            more = message.get("more_body", False)
            if more and wire is not None and self.reserved - self.size >= _LARGE_BYTES and declared is not None:
                await self._read_large(wire, self.reserved)
                return

    async def _read_large(self, wire: Wire, size: int) -> None:
        memory = np.empty(size, np.uint8).data
        start = 0
        for piece in self.pieces:
            memory[start : start + len(piece)] = piece
            start += len(piece)
        if not await wire.receive_into(memory[self.size :]):
            raise ClientGoneError
        self.pieces, self.size = [memory], size

    def release(self) -> None:
        """Give the room back."""
        self._pool.release(self.reserved)
        self.reserved = 0

    def _reserve(self, size: int) -> None:
        self._pool.reserve(size)
        self.reserved += size

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
        if self.size > self.reserved:
            self._reserve(self.size - self.reserved)
        last = self.pieces[-1] if self.pieces else None
        if len(piece) < _TINY_BYTES and isinstance(last, bytearray) and len(last) < _GATHERED_BYTES:
            last += piece
        elif len(piece) < _TINY_BYTES and last is not None:
            self.pieces.append(bytearray(piece))
        else:
            self.pieces.append(piece)
