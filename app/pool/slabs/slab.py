"""A slab: memory without a name that the front shares with one worker, kept mapped for the large bodies between the two.

A socket copies a body twice and wakes the reader for each piece of it; memory that is mapped afresh for each body costs more still, by
its page faults. So each worker has one stretch that is used again and again: the lower half for bodies on their way to the worker, the
upper half for those on their way back, each half written by one side. The frame that speaks of a body says where it stands; whoever
reads it says so when nothing refers to its bytes any more, and only then its place is used again. Where there is no place, the body goes
over the socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from app.pool.frames import BrokenStreamError, Buffer, Frame, Kind
from app.pool.slabs.first_fit import Places

# A place as a frame's body says it: where in the half it begins, and how many bytes it has.
_PLACE: Final = struct.Struct("<QQ")
# Whether it is the front's side → of frames that come there, those whose body is placed, and what they are otherwise.
_KINDS: Final = {True: (Kind.PLACED_REPLY, Kind.REPLY), False: (Kind.PLACED_QUERY, Kind.QUERY)}
# One body may not take all of a half: the next is placed while it is still being read.
_LARGEST_SHARE: Final = 2


def create(size: int) -> int:
    """The descriptor of a new slab of `size` bytes, all zero, which nobody can make smaller or larger (memfd_create(2)).

    Raises:
        OSError: descriptors are used up, or the system has no such memory.
    """
    descriptor = os.memfd_create("pullback-slab", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        # Whoever shrank it would kill the other side at its next access.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Slab:
    """One side's hold on a slab of `size` bytes.

    Arguments:
        descriptor: of the slab; stays the caller's.
        is_front: this side writes the lower half and reads the upper one; else the other way round.
        on_read: called with where the body began that this side has read, when nothing refers to its bytes any more.

    Raises:
        OSError: it cannot be mapped.
    """

    def __init__(self, descriptor: int, size: int, *, is_front: bool, on_read: Callable[[int], None]) -> None:
        self._memory = mmap.mmap(descriptor, size)
        self._half = size // 2
        self._out = 0 if is_front else self._half
        self._in = self._half - self._out
        self._placed, self._plain = _KINDS[is_front]
        self._on_read = on_read
        self._reading: dict[int, int] = {}  # bytes of each body that is being read, by where it begins
        self._places = Places(self._half)

    def take(self, size: int) -> int | None:
        """Where a place for a body of `size` bytes begins, taken until it is freed; None where there is none."""
        return self._places.take(size) if size <= self._half // _LARGEST_SHARE else None

    def write(self, begin: int, piece: Buffer) -> None:
        """Write into a place that was taken."""
        memoryview(self._memory)[self._out + begin : self._out + begin + len(piece)] = piece

    @staticmethod
    def place(begin: int, size: int) -> bytes:
        """A place as a frame says it, and as `get` takes it."""
        return _PLACE.pack(begin, size)

    def put(self, pieces: Sequence[Buffer], size: int) -> bytes | None:
        """Write a body, `size` bytes in pieces, where the other side reads: its place; None where there is none."""
        begin = self.take(size)
        if begin is None:
            return None
        reached = begin
        for piece in pieces:
            self.write(reached, piece)
            reached += len(piece)
        return self.place(begin, size)

    def free(self, begin: int) -> None:
        """The body that begins there has been read, by the other side, or is not needed.

        Raises:
            BrokenStreamError: there is none.
        """
        try:
            self._places.free(begin)
        except KeyError:
            raise BrokenStreamError("the other side speaks of a body that was not sent") from None

    def opened(self, frame: Frame) -> Frame | None:
        """A frame from the other side, with its body in place of where that stands; None where it was for the slab alone.

        Raises:
            BrokenStreamError: it speaks of a body that is not there.
        """
        if frame.kind is Kind.FREED:
            self.free(frame.number)
            return None
        return replace(frame, kind=self._plain, body=self.get(frame.body)) if frame.kind is self._placed else frame

    def get(self, place: Buffer) -> memoryview:
        """The bytes of a body that the other side has put; they stay as they are while anything refers to them.

        Raises:
            BrokenStreamError: that is no place.
        """
        if len(place) != _PLACE.size:
            raise BrokenStreamError("the other side does not say where a body stands")
        begin, size = _PLACE.unpack(place)
        if begin + size > self._half:
            raise BrokenStreamError("the other side speaks of a body that stands nowhere")
        array = np.frombuffer(self._memory, np.uint8, size, self._in + begin)
        self._reading[begin] = size
        weakref.finalize(array, self._read, begin).atexit = False
        return array.data

    @property
    def is_reading(self) -> bool:
        """Something refers to bytes that the other side has put."""
        return bool(self._reading)

    def rest(self) -> bool:
        """Give the pages back to the system, which the other side must not be writing to; False where a body is still to be read."""
        if self._reading or not self._places.is_empty:
            return False
        self._give_back(0, 2 * self._half)
        return True

    def abandon(self) -> None:
        """The other side is dead: give back all but what is still being read."""
        self._give_back(self._out, self._out + self._half)
        reached = self._in
        for begin, size in sorted(self._reading.items()):
            self._give_back(reached, self._in + begin)
            reached = self._in + -(-(begin + size) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._give_back(reached, self._in + self._half)

    def _give_back(self, begin: int, end: int) -> None:
        if begin < end:
            with contextlib.suppress(OSError):  # gVisor has no such advice (ENOSYS); the pages stay then
                self._memory.madvise(mmap.MADV_REMOVE, begin, end - begin)

    def _read(self, begin: int) -> None:
        self._reading.pop(begin, None)
        self._on_read(begin)
