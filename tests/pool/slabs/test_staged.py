"""A staged body stands where it was received until nobody needs it: neither its client's request, nor whoever asks again, nor the worker."""

from __future__ import annotations

import os

import pytest

from app.pool.frames import BrokenStreamError
from app.pool.slabs.slab import Slab, create
from app.pool.slabs.staged import StagedBody

SIZE = 1 << 20
BODY = b"second" * 1000


class Sides:
    """A slab that the front writes to and a worker reads."""

    def __init__(self) -> None:
        descriptor = create(SIZE)
        self.front = Slab(descriptor, SIZE, is_front=True, on_read=lambda _: None)
        self.worker = Slab(descriptor, SIZE, is_front=False, on_read=lambda _: None)
        os.close(descriptor)

    def staged(self, data: bytes = BODY) -> StagedBody:
        taken = self.front.take(len(data))
        assert taken is not None
        staged = StagedBody(self.front, *taken)
        staged.memory[:] = data
        return staged

    def next_span(self) -> int:
        """Where the next body would stand."""
        taken = self.front.take(1)
        assert taken is not None
        return taken[0]


@pytest.fixture
def sides() -> Sides:
    return Sides()


def test_it_is_read_where_it_was_received(sides: Sides) -> None:
    staged = sides.staged()
    assert staged.stands_in(sides.front)
    assert not staged.stands_in(Sides().front)
    assert not staged.stands_in(None)
    assert bytes(sides.worker.get(staged.sent())) == BODY == b"".join(staged)


def test_its_span_is_taken_while_anything_of_it_is_kept(sides: Sides) -> None:
    staged = sides.staged()
    part = staged.memory[10:20]
    pieces = tuple(staged)
    del staged
    assert sides.next_span() > 0
    del pieces
    assert sides.next_span() > 0
    assert part == BODY[10:20]
    del part
    assert sides.next_span() == 0


def test_its_span_is_taken_while_the_worker_may_read_it(sides: Sides) -> None:
    staged = sides.staged()
    for _ in range(2):  # taken back and given again
        staged.sent()
    sides.front.free(0)
    del staged
    assert sides.next_span() > 0
    sides.front.free(0)
    assert sides.next_span() == 0
    with pytest.raises(BrokenStreamError):
        sides.front.free(0)


def test_what_the_worker_has_not_been_told_of_it_cannot_free(sides: Sides) -> None:
    staged = sides.staged()
    with pytest.raises(BrokenStreamError):
        sides.front.free(0)
    assert sides.next_span() > 0
    assert staged.memory == BODY


def test_what_is_asked_again_is_what_came_whatever_a_worker_wrote(sides: Sides) -> None:
    staged = sides.staged()
    view = sides.worker.get(staged.sent())
    view[:] = bytes(len(BODY))
    assert view == bytes(len(BODY))
    assert staged.memory == BODY
    del view
    sides.front.abandon()
    assert staged.memory == BODY  # of a dead worker's slab this stays
    other = Sides()
    span = other.front.put(staged, len(BODY))
    assert span is not None
    assert other.worker.get(span) == BODY


def test_a_dead_workers_slab_is_given_up_with_the_last_of_its_bodies(sides: Sides) -> None:
    first, second = sides.staged(), sides.staged(b"y" * 9000)
    sides.front.abandon()
    del first
    assert second.memory == b"y" * 9000
    del second
    assert sides.next_span() == 0
