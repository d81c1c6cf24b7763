"""A staged body is read where it was copied, or nowhere; its place is never lost and never given twice."""

from __future__ import annotations

import os

import pytest

from app.pool.slabs.slab import Slab, create
from app.pool.slabs.staged import StagedBody

SIZE = 1 << 20
PIECES = (b"first", b"second" * 1000, b"third")
BODY = b"".join(PIECES)


class Sides:
    """A slab that the front writes to and a worker reads."""

    def __init__(self) -> None:
        descriptor = create(SIZE)
        self.front = Slab(descriptor, SIZE, is_front=True, on_read=lambda _: None)
        self.worker = Slab(descriptor, SIZE, is_front=False, on_read=lambda _: None)
        os.close(descriptor)

    def staged(self, size: int = len(BODY)) -> StagedBody:
        begin = self.front.take(size)
        assert begin is not None
        return StagedBody(self.front, begin, size)


@pytest.fixture
def sides() -> Sides:
    return Sides()


def test_it_is_read_where_it_was_copied(sides: Sides) -> None:
    staged = sides.staged()
    for piece in PIECES:
        assert staged.taken(sides.front) is None  # not whole yet
        staged.stage(piece)
        staged.append(piece)
    place = staged.taken(sides.front)
    assert place is not None
    assert bytes(sides.worker.get(place)) == BODY == b"".join(map(bytes, staged))
    assert staged.taken(sides.front) is None
    staged.drop()  # it is the taker's now
    assert sides.front.take(len(BODY)) != 0
    sides.front.free(0)


def test_what_nobody_takes_is_freed_once(sides: Sides) -> None:
    staged = sides.staged()
    for piece in PIECES:
        staged.stage(piece)
    assert staged.taken(Sides().front) is None  # another worker's
    for _ in range(2):
        staged.drop()
    staged.stage(b"late")
    assert staged.taken(sides.front) is None
    assert sides.front.take(SIZE // 4) == 0


def test_more_than_was_said_is_not_written(sides: Sides) -> None:
    staged = sides.staged(size=10)
    staged.stage(b"0123456789")
    staged.stage(b"x")
    place = staged.taken(sides.front)
    assert place is not None
    assert bytes(sides.worker.get(place)) == b"0123456789"
