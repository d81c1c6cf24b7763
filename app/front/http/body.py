"""A body: its bytes in pieces, within the limits of size, and never joined; only what has come of it takes room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from starlette.types import Receive

from app.errors import PullbackError
from app.front.http.receiver import UploadInPieces, UploadInPlace
from app.front.http.wire import NoRoomError, Wire
from app.pool import refusals
from app.pool.budget import SMALL_BYTES
from app.pool.frames import Buffer
from app.pool.pool import Pool
from app.pool.slabs.staged import StagedBody
from app.settings import Settings

# Pieces smaller than the first are gathered into ones of about the second size, so that a body is never a million objects.
_TINY_BYTES: Final = 4 << 10
_GATHERED_BYTES: Final = 64 << 10
# Of which so much is still to come, the rest is received straight into one piece: to copy so much takes 7 µs (measured).
_LARGE_BYTES: Final = 256 << 10
# Whoever is refused for others gives its bytes back in its own task, a turn or two of the event loop later.
_TURNS: Final = 4


class ClientGoneError(Exception):
    """The client has hung up; there is no one to answer."""


class Body:
    """What has been read of one request's body, and the room in the pool that it holds until `release`.

    Attributes:
        client: who sends it.
        pieces, size: what has come.
        is_complete: all of it has come; before that, the client may still be sending.
    """

    __slots__ = (
        "_budget",
        "_gave_way",
        "_limit",
        "_on_stop",
        "_pool",
        "_received",
        "_reserved",
        "_upload",
        "_wire",
        "client",
        "is_complete",
        "pieces",
        "size",
    )

    def __init__(self, pool: Pool, settings: Settings, client: str) -> None:
        self._pool = pool
        self._budget = pool.budget
        # More than all the room would be told to try again for ever.
        self._limit = min(settings.body_limit_bytes, self._budget.large_limit_bytes)
        self._reserved = 0
        self._received = 0  # by the wire
        self._wire: Wire | None = None
        self._upload: UploadInPlace | UploadInPieces | None = None  # of the rest of it
        self._on_stop: Callable[[PullbackError | None], None] | None = None
        self._gave_way = False
        self.client = client
        self.pieces: list[Buffer] = []
        self.size = 0
        self.is_complete = False

    @property
    def held_bytes(self) -> int:
        """The room that it holds."""
        return self._reserved + self._received

    def give_way(self) -> None:
        """Others need the room of what has come before the rest of this one does."""
        self._gave_way = True
        self.release()
        if self._wire is not None:
            self._wire.drop()
        self._received = 0

    async def read(self, receive: Receive, headers: Mapping[bytes, bytes], wire: Wire | None = None) -> None:
        """Read all of it; the most of a large one of declared length goes by the `wire` straight to where it stays.

        Raises:
            PullbackError: body_too_large as soon as that is known, queue_full where its bytes find no room.
            ClientGoneError: it hung up before the end.
        """
        declared = self._declared(headers)
        self._begin(declared)
        try:
            while not self.is_complete:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                await self._add(message.get("body", b""))
                self._check_way()
                is_last = not message.get("more_body", False)
                if not is_last and wire is not None and declared - self.size >= _LARGE_BYTES:
                    await self._read_large(wire, declared)
                    self._check_way()
                    is_last = True
                self.is_complete = is_last
        finally:
            self._budget.finish(self)

    def start(self, come: bytes, size: int, wire: Wire, on_stop: Callable[[PullbackError | None], None]) -> bool:
        """Have all of one of `size` bytes received by the `wire`, of which the first have `come`; then `finish` is to be called.

        False: it is not received, as there is no room for it now, or the connection is at its end. `on_stop` is called, once, where the
        rest does not come: with a refusal, or with None where the client or its connection has gone.
        """
        try:
            self._begin(self._checked(size))
            if size >= SMALL_BYTES and come:
                self._reserve(len(come))
                self.pieces.append(come)
        except PullbackError:
            self._stop()
            return False
        self.size = len(come)
        upload = self._small(come, size) if size < SMALL_BYTES else self._rest(size)
        if upload is not None:
            self._wire, self._on_stop = wire, on_stop
            upload.on_end = self._ended
            if wire.start(upload):
                return True
        self._stop()
        return False

    def finish(self) -> None:
        """All of it has come."""
        upload, self._upload = self._upload, None
        if upload is not None:
            self._take(upload, self.size + upload.size)
        self._wire = self._on_stop = None
        self._budget.finish(self)
        self.is_complete = True

    def _ended(self, is_complete: bool) -> None:
        """The upload has; where it is complete, the connection has something to do before `finish` is called."""
        on_stop, upload = self._on_stop, self._upload
        if is_complete or on_stop is None or upload is None:
            return
        error = self._no_room() if upload.lacks_room else None
        self._stop()
        on_stop(error)

    def _stop(self) -> None:
        self._budget.finish(self)
        self._wire = self._on_stop = self._upload = None
        self.release()

    def release(self) -> None:
        """Give the room back, and the bytes: an error's traceback may keep this object for a while."""
        self._budget.release(self._reserved)
        self._reserved = 0
        self.pieces = []

    def _begin(self, declared: int) -> None:
        """It begins to come. Raises PullbackError queue_full."""
        # Nothing is reserved by a word: but what would find no room now need not be sent at all.
        if declared >= SMALL_BYTES:
            self._budget.check(declared, self.client)
        self._budget.begin(self)

    async def _read_large(self, wire: Wire, size: int) -> None:
        upload = self._rest(size)
        self._wire = wire
        try:
            is_complete = await wire.receive(upload)
        except NoRoomError:
            raise self._no_room() from None
        finally:
            self._wire = self._upload = None
        if not is_complete:
            raise ClientGoneError
        self._take(upload, size)

    def _rest(self, size: int) -> UploadInPlace | UploadInPieces:
        """An upload of what is still to come of `size` bytes."""
        staged = self._staged(size)
        if staged is None:
            self._upload = UploadInPieces(size - self.size, self._memory)
        else:
            self.pieces = staged
            self._upload = UploadInPlace(size - self.size, staged.memory, self._count)
        return self._upload

    def _small(self, come: bytes, size: int) -> UploadInPlace | None:
        """The same of a small body, which has its room before it comes: later it might have to ask others for it."""
        memory = self._memory(size)
        if memory is None:
            return None
        memory[: len(come)] = come
        self.pieces = [memory]
        self._upload = UploadInPlace(size - len(come), memory, lambda _: True)
        return self._upload

    def _take(self, upload: UploadInPlace | UploadInPieces, size: int) -> None:
        if isinstance(upload, UploadInPieces):
            self.pieces += upload.taken()
        self.size = size

    def _staged(self, size: int) -> StagedBody | None:
        """What has come, where a worker will read it, with what will come; None where there is no such place."""
        staged = self._pool.stage(size, self.pieces)
        if staged is not None:
            reached = 0
            for piece in self.pieces:
                staged.memory[reached : reached + len(piece)] = piece
                reached += len(piece)
        return staged

    def _check_way(self) -> None:
        """Raises PullbackError queue_full where it gave way meanwhile."""
        if self._gave_way:
            raise self._no_room()

    def _memory(self, size: int) -> memoryview | None:
        memory = self._budget.memory(size, self)
        if memory is not None:
            self._received += size
        return memory

    def _count(self, size: int) -> bool:
        # What has come takes room, wherever it stands: else slabs would be room beyond the limit.
        try:
            self._reserve(size)
        except PullbackError:
            return False
        return True

    def _reserve(self, size: int) -> None:
        """Count so many bytes that have come. Raises PullbackError queue_full."""
        self._budget.reserve(size, self)
        self._reserved += size

    def _no_room(self) -> PullbackError:
        return refusals.bytes_full(self._budget.held_bytes, self._budget.limit_bytes)

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

    async def _add(self, piece: bytes) -> None:
        if not piece:
            return
        self.size = self._checked(self.size + len(piece))
        turns = 0 if self.size >= SMALL_BYTES else _TURNS
        while turns and not self._budget.has_room(len(piece), self) and self._pool.relieve(self.client):
            turns -= 1
            await asyncio.sleep(0)
        self._reserve(len(piece))
        last = self.pieces[-1] if self.pieces else None
        if len(piece) < _TINY_BYTES and isinstance(last, bytearray) and len(last) < _GATHERED_BYTES:
            last += piece
        elif len(piece) < _TINY_BYTES and last is not None:
            self.pieces.append(bytearray(piece))
        else:
            self.pieces.append(piece)
