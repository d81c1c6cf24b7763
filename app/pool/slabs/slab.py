"""A slab: memory without a name that the front shares with one worker, kept mapped for the large bodies between the two.

A socket copies a body twice and wakes the reader for each piece of it; memory that is mapped afresh for each body costs more still, by
its page faults. So each worker has one stretch that is used again and again: the lower half for bodies on their way to the worker, the
upper half for those on their way back, each half written by one side. The frame that speaks of a body says where it stands; whoever
reads it says so when nothing refers to its bytes any more, and only then its span is used again. Where there is no span, the body goes
over the socket.

The worker maps the lower half privately: what it writes there, an operation in place or a kernel gone astray, changes a copy of its own,
and the front can rely on its bytes as long as it needs them, also when the worker dies of them. Such copies are dropped before the
next body is read where they are, so that it is the front's bytes that are read.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.pool.frames import BrokenStreamError, Buffer, Frame, Kind
from app.pool.slabs.first_fit import Spans
from app.pool.slabs.private_pages import PrivatePages

# At the end of the upper half, in a page of its own: the number of the query that the worker has begun.
_MARK: Final = struct.Struct("<Q")
# A span as a frame's body says it: where in the half it begins, and how many bytes it has.
_SPAN: Final = struct.Struct("<QQ")
# Whether it is the front's side → of frames that come there, those whose body is placed, and what they are otherwise.
_KINDS: Final = {True: (Kind.PLACED_REPLY, Kind.REPLY), False: (Kind.PLACED_QUERY, Kind.QUERY)}
# One body may not take all of a half: the next is placed while it is still being read.
_LARGEST_SHARE: Final = 2
# A safetensors file begins with its header's length, a little-endian u64; its tensors stand behind the header. Where they begin at a multiple
# of this, as PyTorch's own memory does, the worker can compute with them where they stand.
_LENGTH_BYTES: Final = 8
_ALIGNMENT_BYTES: Final = 64


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
        self._half = half = size // 2
        if is_front:
            self._out, self._in = mmap.mmap(descriptor, half), mmap.mmap(descriptor, half, offset=half)
        else:
            self._out, self._in = mmap.mmap(descriptor, half, offset=half), mmap.mmap(descriptor, half, flags=mmap.MAP_PRIVATE)
        self._own_copies = None if is_front else PrivatePages(self._in)
        self._placed, self._plain = _KINDS[is_front]
        self._on_read = on_read
        self._readings = count()
        self._reading: dict[int, tuple[int, int]] = {}  # where the span of each body that is being read begins, and its bytes
        self._spans = Spans(half if is_front else half - mmap.PAGESIZE)
        # Where spans begin that nothing here refers to any more: that is told at any moment, by the garbage collector, so also amid a change.
        self._ended: deque[int] = deque()
        self._holds: Counter[int] = Counter()  # for whom each span is still taken, by where it begins
        self._sent: Counter[int] = Counter()  # the other side among them

    def take(self, size: int, come: Sequence[Buffer] = ()) -> tuple[int, memoryview] | None:
        """A span for a body of `size` bytes, where it begins and its memory, taken while anything refers to that; None where there is none.

        `come`: the body's first pieces, as far as they are there.
        """
        begin = self._take(size, come)
        if begin is None:
            return None
        array = np.frombuffer(self._out, np.uint8, size, begin)
        weakref.finalize(array, self._ended.append, _page_of(begin)).atexit = False
        return begin, array.data

    def sent(self, begin: int, size: int) -> bytes:
        """A body that stands in a span that was taken is the other side's to read, too: the span as `get` takes it."""
        page = _page_of(begin)
        self._holds[page] += 1
        self._sent[page] += 1
        return _SPAN.pack(begin, size)

    def put(self, pieces: Sequence[Buffer], size: int) -> bytes | None:
        """Write a body, `size` bytes in pieces, where the other side reads: its span; None where there is none."""
        begin = self._take(size, pieces)
        if begin is None:
            return None
        memory, reached = memoryview(self._out), begin
        for piece in pieces:
            memory[reached : reached + len(piece)] = piece
            reached += len(piece)
        span = self.sent(begin, size)
        self._let_go(_page_of(begin))
        return span

    def free(self, begin: int) -> None:
        """The other side has read the body in the span that begins there.

        Raises:
            BrokenStreamError: it was not told of any.
        """
        self._let_ended_go()
        if not self._sent[begin]:
            raise BrokenStreamError("the other side speaks of a body that was not sent")
        self._sent[begin] -= 1
        self._let_go(begin)

    def _take(self, size: int, come: Sequence[Buffer]) -> int | None:
        self._let_ended_go()
        shift = _shift_of(come, size)
        page = self._spans.take(size + shift) if size <= self._half // _LARGEST_SHARE else None
        if page is None:
            return None
        self._holds[page] = 1
        return page + shift

    def _let_ended_go(self) -> None:
        while self._ended:
            self._let_go(self._ended.popleft())

    def _let_go(self, begin: int) -> None:
        self._holds[begin] -= 1
        if not self._holds[begin]:
            del self._holds[begin], self._sent[begin]
            self._spans.free(begin)

    def opened(self, frame: Frame) -> Frame | None:
        """A frame from the other side, with its body in place of where that stands; None where it was for the slab alone.

        Raises:
            BrokenStreamError: it speaks of a body that is not there.
        """
        if frame.kind is Kind.FREED:
            self.free(frame.number)
            return None
        return replace(frame, kind=self._plain, body=self.get(frame.body)) if frame.kind is self._placed else frame

    def get(self, span: Buffer) -> memoryview:
        """The bytes of a body that the other side has put; they stay as they are while anything refers to them.

        Raises:
            BrokenStreamError: that is no span.
        """
        if len(span) != _SPAN.size:
            raise BrokenStreamError("the other side does not say where a body stands")
        begin, size = _SPAN.unpack(span)
        page = _page_of(begin)
        if begin + size > self._half or begin - page >= _ALIGNMENT_BYTES:
            raise BrokenStreamError("the other side speaks of a body that stands nowhere")
        if self._own_copies is not None:
            self._own_copies.drop(page, begin - page + size)
        array: NDArray[np.uint8] = np.frombuffer(self._in, np.uint8, size, begin)
        reading = next(self._readings)
        self._reading[reading] = page, begin - page + size
        weakref.finalize(array, self._read, reading).atexit = False
        return array.data

    def mark(self, number: int) -> None:
        """Of the worker's side: it begins the query of this number."""
        _MARK.pack_into(self._out, self._half - _MARK.size, number)

    @property
    def marked(self) -> int:
        """Of the front's side: the number of the query that the worker began last, 0 where it has begun none since it was forked or at rest."""
        number: int = _MARK.unpack_from(self._in, self._half - _MARK.size)[0]
        return number

    @property
    def taken_count(self) -> int:
        """Spans for bodies to the other side that are taken."""
        self._let_ended_go()
        return len(self._spans.taken)

    @property
    def is_reading(self) -> bool:
        """Something refers to bytes that the other side has put."""
        return bool(self._reading)

    def rest(self) -> bool:
        """Give the pages back to the system, which the other side must not be writing to; False where a body is still to be read."""
        self._let_ended_go()
        if self._reading or not self._spans.is_empty:
            return False
        for memory in (self._out, self._in):
            self._give_back(memory, ())
        return True

    def abandon(self) -> None:
        """The other side is dead: give back all but what is still being read, or may be asked again."""
        self._let_ended_go()
        self._sent.clear()
        self._give_back(self._out, self._spans.taken)
        self._give_back(self._in, ((begin, begin + size) for begin, size in self._reading.values()))

    def _give_back(self, memory: mmap.mmap, in_use: Iterable[tuple[int, int]]) -> None:
        reached = 0
        for begin, end in [*sorted(in_use), (self._half, self._half)]:
            # One that was told twice, or within another, begins before the last one ends.
            if (free := begin // mmap.PAGESIZE * mmap.PAGESIZE - reached) > 0:
                with contextlib.suppress(OSError):  # gVisor has no such advice (ENOSYS); the pages stay then
                    memory.madvise(mmap.MADV_REMOVE, reached, free)
            reached = max(reached, -(-end // mmap.PAGESIZE) * mmap.PAGESIZE)

    def _read(self, reading: int) -> None:
        begin, _ = self._reading.pop(reading)
        self._on_read(begin)


def _page_of(begin: int) -> int:
    """Where the span begins in which a body does."""
    return begin - begin % mmap.PAGESIZE


def _shift_of(come: Sequence[Buffer], size: int) -> int:
    """So many bytes behind its span's beginning a body of `size` bytes begins, of which these pieces have come.

    Of another body than a safetensors file the first bytes say a length that is too large, or any, and then nothing hangs on the shift.
    """
    head = bytes(come[0][:_LENGTH_BYTES]) if come else b""
    start = _LENGTH_BYTES + int.from_bytes(head, "little")
    return -start % _ALIGNMENT_BYTES if len(head) == _LENGTH_BYTES and start < size else 0
