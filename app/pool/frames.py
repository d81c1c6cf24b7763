"""Frames: what front and workers say to each other over a socketpair, as pure bytes ↔ values."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

Buffer = bytes | bytearray | memoryview

# mark, kind, bytes of meta, bytes of body, number, seconds (a deadline on CLOCK_MONOTONIC, or a duration; the kind says which)
_HEADER: Final = struct.Struct("<3sBIQQd")
_MARK: Final = b"PB1"
HEADER_BYTES: Final = _HEADER.size
META_LIMIT_BYTES: Final = 64 << 10  # twice what the headers of a request may have
BODY_LIMIT_BYTES: Final = 1 << 40  # above any machine's memory: a header that says more is garbage
# Bodies from this size on are received straight into memory of their own instead of through the scratch buffer.
LARGE_BYTES: Final = 64 << 10
SCRATCH_BYTES: Final = 256 << 10  # so that several small frames come with one call: 400 of the longest example (580 bytes)


class Kind(IntEnum):
    """What a frame is. `number` names the query it speaks of; `seconds` is said where it means anything."""

    QUERY = 1  # front → worker: meta and body of a query; seconds = its deadline on CLOCK_MONOTONIC
    CANCEL = 2  # front → worker: drop this query if it has not begun
    PROBE = 3  # front → worker: show that you still differentiate
    REHEARSE = 4  # front → worker: compute this query, so that the next of its kind is quick, and throw the answer away
    PLACED_QUERY = 5  # as QUERY, but its body stands in the slab; the frame's says where
    FREED = 6  # either way: the body that began at `number` in the slab has been read
    READY = 16  # worker → front: started, or probed; meta says whether the probe gradient succeeded
    DEADLINE = 17  # worker → front: the query names its own timeout; seconds = that timeout
    REPLY = 18  # worker → front: the answer
    DROPPED = 19  # worker → front: a cancelled or late query was not computed
    REHEARSED = 20  # worker → front: done with it
    PLACED_REPLY = 21  # as REPLY, but its body stands in the slab; the frame's says where
    HELLO = 32  # forkserver → front: torch is imported and warm
    FORK = 33  # front → forkserver: fork a worker; its end of the socketpair travels with the frame
    FORKED = 34  # forkserver → front: the worker's pid
    PING = 37  # front → forkserver: show that you live
    PONG = 38  # forkserver → front: it lives
    EXITED = 35  # forkserver → front: a worker's exit status
    FAILED = 36  # forkserver → front: it cannot serve; meta has the reason and the exit status for the whole service


_KINDS: Final = {int(kind): kind for kind in Kind}


class BrokenStreamError(Exception):
    """The bytes are not frames, so the other side can no longer be understood."""


class NoMemoryError(Exception):
    """There is no memory for the body of a frame; the stream cannot be read on."""

    def __init__(self, number: int, meta: bytes, size: int) -> None:
        super().__init__(number, size)
        self.number = number
        self.meta = meta
        self.size = size


@dataclass(slots=True)
class Frame:
    """One frame as received. `body` owns its memory; where there was no room for it, it is empty and `discarded_bytes` long."""

    kind: Kind
    number: int
    seconds: float
    meta: bytes
    body: Buffer
    discarded_bytes: int = 0


def encode(
    kind: Kind, number: int = 0, *, seconds: float = 0.0, meta: bytes = b"", body: Sequence[Buffer] = ()
) -> list[Buffer]:
    """The frame as buffers to send in order; `body`, in pieces, is not copied.

    Raises:
        ValueError: the other side would not take so much meta.
    """
    if len(meta) > META_LIMIT_BYTES:
        raise ValueError(f"the meta of a frame has {len(meta)} bytes, of {META_LIMIT_BYTES} at most")
    size = 0
    for piece in body:
        size += len(piece)
    return [_HEADER.pack(_MARK, kind, len(meta), size, number, seconds) + meta, *body]


def _memory(size: int) -> memoryview:
    """Memory for a large body, not zeroed: the frame fills all of it."""
    return np.empty(size, np.uint8).data


class Reader:
    """Finds frames in a stream: receive into `buffer()`, then tell `received(n)`, which returns the frames that n bytes completed.

    Small bodies are copied out of a scratch buffer that is used again and again; a large one is received where it will stay.

    Arguments:
        allocate: the memory for a large body of that many bytes; None: there is no room, and the body is read and dropped.
    """

    def __init__(self, allocate: Callable[[int], memoryview | None] = _memory, body_limit: int = BODY_LIMIT_BYTES) -> None:
        self._allocate = allocate
        self._body_limit = body_limit
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._start = 0
        self._end = 0
        self._head: tuple[Kind, int, float, bytes] | None = None  # of the large frame whose body is being received
        self._large: memoryview | None = None  # None while what is received is dropped
        self._large_bytes = 0
        self._filled = 0

    @property
    def is_amid_body(self) -> bool:
        """A large body is being received: more bytes are on their way, and `buffer()` takes no others."""
        return self._head is not None

    def buffer(self) -> memoryview:
        """Where the next bytes of the stream belong; never empty."""
        if self._head is None:
            return self._scratch[self._end :]
        if self._large is None:
            return self._scratch[: self._large_bytes - self._filled]
        return self._large[self._filled :]

    def received(self, count: int) -> list[Frame]:
        """The frames completed by `count` bytes that now stand in `buffer()`.

        Raises:
            BrokenStreamError: what stands there is no frame.
            NoMemoryError: the body of a large frame finds no memory.
        """
        if self._head is not None:
            return self._received_large(count)
        self._end += count
        frames: list[Frame] = []
        while self._head is None and self._parse(frames):
            pass
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start and self._head is None:
            self._compact()
        return frames

    def forget(self) -> None:
        """The stream has ended: what has come of an unfinished frame is not kept, however long this object is."""
        self._head = self._large = None
        self._start = self._end = 0

    def _received_large(self, count: int) -> list[Frame]:
        self._filled += count
        if self._filled < self._large_bytes or self._head is None:
            return []
        frame = self._large_frame(self._head, self._large, self._large_bytes)
        self._head = self._large = None
        return [frame]

    @staticmethod
    def _large_frame(head: tuple[Kind, int, float, bytes], memory: memoryview | None, size: int) -> Frame:
        return Frame(*head, b"", size) if memory is None else Frame(*head, memory)

    def _parse(self, frames: list[Frame]) -> bool:
        """Take one frame, or the beginning of a large one, out of the scratch buffer; False where it is not all there yet."""
        start, available = self._start, self._end - self._start
        if available < HEADER_BYTES:
            return False
        mark, code, meta_size, body_size, number, seconds = _HEADER.unpack_from(self._scratch, start)
        kind = _KINDS.get(code)
        if mark != _MARK or kind is None or meta_size > META_LIMIT_BYTES or body_size > self._body_limit:
            raise BrokenStreamError("the other side sent something that is not a frame")
        if available < HEADER_BYTES + meta_size:
            return False
        body_start = start + HEADER_BYTES + meta_size
        if body_size < LARGE_BYTES:
            if self._end < body_start + body_size:
                return False
            meta = bytes(self._scratch[start + HEADER_BYTES : body_start])
            frames.append(Frame(kind, number, seconds, meta, bytes(self._scratch[body_start : body_start + body_size])))
            self._start = body_start + body_size
            return True
        meta = bytes(self._scratch[start + HEADER_BYTES : body_start])
        return self._begin_large((kind, number, seconds, meta), body_start, body_size, frames)

    def _begin_large(self, head: tuple[Kind, int, float, bytes], start: int, size: int, frames: list[Frame]) -> bool:
        here = min(size, self._end - start)
        try:
            memory = self._allocate(size)
        except MemoryError:
            raise NoMemoryError(head[1], head[3], size) from None
        if memory is not None:
            memory[:here] = self._scratch[start : start + here]
        self._start = start + here
        if here == size:
            frames.append(self._large_frame(head, memory, size))
            return True
        self._head, self._large, self._large_bytes, self._filled = head, memory, size, here
        return False

    def _compact(self) -> None:
        """Move an unfinished small frame to the front, so that `buffer()` has room for the rest of it."""
        rest = self._end - self._start
        self._scratch[:rest] = bytes(self._scratch[self._start : self._end])
        self._start, self._end = 0, rest
