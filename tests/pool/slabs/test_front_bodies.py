"""The front's side: nothing is placed before the worker has mapped the slab, small bodies never, and bytes at rest go back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest

from app.pool.frames import LARGE_BYTES, BrokenStreamError, Buffer, Frame, Kind, Reader
from app.pool.slabs.front_bodies import FrontBodies
from app.pool.slabs.slab import Slab

SIZE = 8 << 20
BODY = b"b" * LARGE_BYTES


class Ends:
    """The front's side, the worker's slab, and the frames that the front has sent of itself."""

    def __init__(self) -> None:
        self.sent: list[Buffer] = []
        self.is_busy = False
        self.front = FrontBodies(SIZE, self._send, lambda: self.is_busy)
        (descriptor,) = self.front.descriptors
        self.slab = Slab(descriptor, SIZE, is_front=False, on_read=lambda _: None)
        self.descriptor = os.dup(descriptor)
        self.front.handed_over()

    def _send(self, buffers: Sequence[Buffer]) -> None:
        self.sent += buffers

    def frames(self) -> list[Frame]:
        reader = Reader()
        data = b"".join(map(bytes, self.sent))
        reader.buffer()[: len(data)] = data
        return reader.received(len(data))


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Ends()
    yield both
    os.close(both.descriptor)


def test_only_large_bodies_and_only_once_it_is_shared(ends: Ends) -> None:
    assert ends.front.descriptors == []
    assert ends.front.put([BODY], len(BODY), 0.0) is None
    ends.front.is_shared = True
    assert ends.front.put([BODY[1:]], len(BODY) - 1, 0.0) is None
    span = ends.front.put([BODY[:5], BODY[5:]], len(BODY), 0.0)
    assert span is not None
    assert ends.slab.get(span) == BODY


def test_a_reply_stands_in_its_frame_and_is_freed_when_it_is_gone(ends: Ends) -> None:
    span = ends.slab.put([BODY], len(BODY))
    assert span is not None
    frame = ends.front.opened(Frame(Kind.PLACED_REPLY, 7, 0.0, b"meta", span))
    assert frame is not None
    assert (frame.kind, frame.number, frame.meta, bytes(frame.body)) == (Kind.REPLY, 7, b"meta", BODY)
    assert ends.sent == []
    ends.is_busy = True
    del frame
    assert [(frame.kind, frame.number) for frame in ends.frames()] == [(Kind.FREED, 0)]
    ends.slab.free(0)


def test_a_worker_that_rests_is_told_with_its_next_query(ends: Ends) -> None:
    span = ends.slab.put([BODY], len(BODY))
    assert span is not None
    frame = ends.front.opened(Frame(Kind.PLACED_REPLY, 7, 0.0, b"meta", span))
    assert ends.front.read() == []
    del frame
    assert ends.sent == []
    ends.sent += ends.front.read()
    assert [(frame.kind, frame.number) for frame in ends.frames()] == [(Kind.FREED, 0)]
    assert ends.front.read() == []


def test_a_reply_outlives_the_worker(ends: Ends) -> None:
    span = ends.slab.put([BODY], len(BODY))
    assert span is not None
    frame = ends.front.opened(Frame(Kind.PLACED_REPLY, 7, 0.0, b"meta", span))
    ends.front.drop()
    assert frame is not None
    assert frame.body == BODY
    assert ends.front.put([BODY], len(BODY), 0.0) is None


def test_other_frames_pass_and_wrong_ones_are_refused(ends: Ends) -> None:
    reply = Frame(Kind.REPLY, 1, 0.0, b"", b"small")
    assert ends.front.opened(reply) is reply
    for frame in (Frame(Kind.FREED, 3, 0.0, b"", b""), Frame(Kind.PLACED_REPLY, 3, 0.0, b"", b"?")):
        with pytest.raises(BrokenStreamError):
            ends.front.opened(frame)


def test_it_rests_when_it_has_not_been_used_for_a_while(ends: Ends) -> None:
    ends.front.is_shared = True
    ends.front.put([BODY], len(BODY), 100.0)
    ends.front.rest(200.0)
    assert os.fstat(ends.descriptor).st_blocks
    assert ends.front.opened(Frame(Kind.FREED, 0, 0.0, b"", b"")) is None
    ends.front.rest(101.0)
    assert os.fstat(ends.descriptor).st_blocks
    ends.front.rest(200.0)
    assert os.fstat(ends.descriptor).st_blocks == 0


def test_without_a_slab_everything_is_sent() -> None:
    none = FrontBodies(0, lambda _: None, lambda: False)
    none.is_shared = True
    assert none.descriptors == []
    assert none.put([BODY], len(BODY), 0.0) is None
    none.handed_over()
    none.rest(100.0)
