"""A slab between two sides: what is put is read, a span is used again only when it has been read, and nobody can resize it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from app.pool.frames import BrokenStreamError
from app.pool.slabs.slab import Slab, create

SIZE = 4 << 20
BODY = bytes(range(256)) * 1024


class Sides:
    """Both sides in one process, and what each has said that it has read."""

    def __init__(self) -> None:
        self.descriptor = create(SIZE)
        self.read_by_front: list[int] = []
        self.read_by_worker: list[int] = []
        self.front = Slab(self.descriptor, SIZE, is_front=True, on_read=self.read_by_front.append)
        self.worker = Slab(self.descriptor, SIZE, is_front=False, on_read=self.read_by_worker.append)


@pytest.fixture
def sides() -> Iterator[Sides]:
    both = Sides()
    yield both
    os.close(both.descriptor)


def put(slab: Slab, *pieces: bytes) -> bytes:
    span = slab.put(pieces, sum(map(len, pieces)))
    assert span is not None
    return span


def test_both_ways_at_once(sides: Sides) -> None:
    there, back = put(sides.front, BODY, b"there"), put(sides.worker, b"back", BODY)
    assert sides.worker.get(there) == BODY + b"there"
    assert sides.front.get(back) == b"back" + BODY


def test_a_span_is_used_again_only_when_nothing_refers_to_its_bytes(sides: Sides) -> None:
    view = sides.worker.get(put(sides.front, BODY))
    part = view[1000:2000]
    del view
    assert sides.read_by_worker == []
    other = sides.worker.get(put(sides.front, b"x" * len(BODY)))
    assert part == BODY[1000:2000]
    del part
    assert sides.read_by_worker == [0]
    sides.front.free(0)
    again = sides.worker.get(put(sides.front, b"y" * len(BODY)))
    assert (again[0], other[0]) == (ord("y"), ord("x"))


def test_what_the_worker_wrote_into_one_body_is_not_in_the_next(sides: Sides) -> None:
    view = sides.worker.get(put(sides.front, BODY))
    view[5000:9000] = b"w" * 4000  # as an operation in place does
    assert view != BODY
    del view
    sides.front.free(0)
    again = sides.worker.get(put(sides.front, BODY[::-1]))
    assert again == BODY[::-1]


def test_what_a_worker_wrote_astray_is_in_no_body(sides: Sides) -> None:
    view = sides.worker.get(put(sides.front, BODY))
    sides.worker._in[SIZE // 4 : SIZE // 4 + 10] = b"astray    "  # beyond its body
    others = [put(sides.front, b"z" * (SIZE // 5)) for _ in range(2)]
    assert [bytes(sides.worker.get(other)) for other in others] == [b"z" * (SIZE // 5)] * 2
    assert view == BODY


def test_without_a_span_there_is_none(sides: Sides) -> None:
    largest = SIZE // 4
    assert sides.front.put([b"z" * (largest + 1)], largest + 1) is None
    held = [put(sides.front, b"z" * largest) for _ in range(2)]
    assert sides.front.put([b"z"], 1) is None
    sides.front.free(0)
    assert put(sides.front, b"z" * largest) == held[0]


def test_nobody_can_resize_it(sides: Sides) -> None:
    for size in (0, SIZE // 2, 2 * SIZE):
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(sides.descriptor, size)


@pytest.mark.parametrize("header", [b"{}" + b" " * 6, b" " * 40, b" " * 120, b" " * 4095], ids=len)
def test_the_tensors_of_a_safetensors_file_begin_where_memory_of_pytorch_would(sides: Sides, header: bytes) -> None:
    file = len(header).to_bytes(8, "little") + header + BODY
    taken = sides.front.take(len(file), [file[:100]])
    assert taken is not None
    begin, memory = taken
    memory[:] = file
    for span in (sides.front.sent(begin, len(file)), put(sides.front, file[:50], file[50:])):
        body = np.frombuffer(sides.worker.get(span), np.uint8)
        assert body.tobytes() == file
        assert body[8 + len(header) :].__array_interface__["data"][0] % 64 == 0
        del body
    for page in sides.read_by_worker:
        sides.front.free(page)
    del memory, taken
    assert sides.front.taken_count == 0


@pytest.mark.parametrize(
    "span", [b"", b"short", b"\xff" * 16, (SIZE // 2).to_bytes(8, "little") + b"\1" + bytes(7), b"\x40" + bytes(15)]
)
def test_a_span_that_is_none_is_refused(sides: Sides, span: bytes) -> None:
    for side in (sides.front, sides.worker):
        with pytest.raises(BrokenStreamError):
            side.get(span)
    with pytest.raises(BrokenStreamError):
        sides.front.free(4096)


def blocks(descriptor: int) -> int:
    return os.fstat(descriptor).st_blocks


def test_at_rest_it_takes_no_memory(sides: Sides) -> None:
    view = sides.worker.get(put(sides.front, BODY))
    assert not sides.front.rest()
    assert view == BODY
    assert blocks(sides.descriptor)
    del view
    sides.front.free(0)
    reply = sides.front.get(put(sides.worker, BODY))
    assert not sides.front.rest()
    del reply
    assert sides.front.rest()
    assert blocks(sides.descriptor) == 0
    sides.worker.free(0)
    assert sides.worker.get(put(sides.front, BODY)) == BODY


def test_what_a_worker_has_begun_is_known_when_it_is_dead(sides: Sides) -> None:
    assert sides.front.marked == 0
    view = sides.front.get(put(sides.worker, BODY))
    sides.worker.mark(1 << 40)
    del sides.worker
    assert sides.front.marked == 1 << 40
    assert view == BODY
    del view
    assert sides.front.rest()
    assert sides.front.marked == 0


def test_no_reply_stands_where_it_is_said(sides: Sides) -> None:
    largest = SIZE // 4
    for _ in range(2):
        assert sides.worker.put([b"x" * (largest - 4096)], largest - 4096) is not None
    sides.worker.mark(7)
    assert sides.worker.put([b"x" * 8192], 8192) is None
    assert sides.worker.put([b"x" * 4096], 4096) is not None
    assert sides.front.marked == 7


def test_a_body_that_ends_while_a_span_is_looked_for_makes_no_other_one_free(sides: Sides) -> None:
    """As the garbage collector ends it, in the middle of anything."""
    taken = [sides.front.take(len(BODY)) for _ in range(3)]
    begins = [each[0] for each in taken if each is not None]

    class Size(int):
        def __add__(self, shift: int) -> Size:
            return Size(int(self) + shift)

        def __radd__(self, begin: int) -> int:
            taken[0] = None
            return begin + int(self)

    new = sides.front.take(Size(len(BODY)))
    assert new is not None
    assert new[0] not in begins[1:]
    del new
    assert sides.front.taken_count == 2
