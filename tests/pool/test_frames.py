"""Frames: what is encoded is read back, however the stream is cut; what is not a frame is noticed."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pool.budget import ByteBudget
from app.pool.frames import (
    HEADER_BYTES,
    LARGE_BYTES,
    META_LIMIT_BYTES,
    BrokenStreamError,
    Frame,
    Kind,
    NoMemoryError,
    Reader,
    encode,
)

sizes = st.one_of(st.integers(0, 300), st.sampled_from([LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, 3 * LARGE_BYTES]))
finite = st.floats(allow_nan=False)
frames = st.builds(
    lambda kind, number, seconds, meta, size, filling: Frame(kind, number, seconds, meta, bytes([filling]) * size),
    st.sampled_from(Kind), st.integers(0, 2**64 - 1), finite, st.binary(max_size=100), sizes, st.integers(0, 255),
)  # fmt: skip


def stream_of(frame: Frame, pieces: int = 1) -> bytes:
    body = memoryview(frame.body)
    step = max(1, -(-len(body) // pieces))
    cut = [body[start : start + step] for start in range(0, len(body), step)]
    return b"".join(encode(frame.kind, frame.number, seconds=frame.seconds, meta=frame.meta, body=cut))


def feed(reader: Reader, data: bytes, steps: list[int]) -> list[Frame]:
    """Let `reader` receive `data` as a socket would: never more than its buffer, in steps of these sizes, again and again."""
    received, start, turn = [], 0, 0
    while start < len(data):
        buffer = reader.buffer()
        assert len(buffer) > 0
        count = min(len(buffer), steps[turn % len(steps)], len(data) - start)
        buffer[:count] = data[start : start + count]
        received += reader.received(count)
        start += count
        turn += 1
    return received


@settings(max_examples=60, deadline=None)
@given(st.lists(frames, max_size=6), st.lists(st.integers(1, 200_000), min_size=1, max_size=5), st.integers(1, 4))
def test_a_stream_gives_its_frames_however_it_is_cut(sent: list[Frame], steps: list[int], pieces: int) -> None:
    received = feed(Reader(), b"".join(stream_of(frame, pieces) for frame in sent), steps)
    assert [(f.kind, f.number, f.seconds, f.meta, bytes(f.body)) for f in received] == [
        (f.kind, f.number, f.seconds, f.meta, f.body) for f in sent
    ]


def test_one_byte_at_a_time() -> None:
    sent = Frame(Kind.REPLY, 7, 0.5, b'{"status": 200}', b"body")
    assert feed(Reader(), stream_of(sent) * 3, [1]) == [sent] * 3


def test_a_body_keeps_its_content_when_the_next_frame_comes() -> None:
    reader = Reader()
    for size in (10, LARGE_BYTES):
        first, second = (Frame(Kind.QUERY, 1, 0.0, b"", letter * size) for letter in (b"a", b"b"))
        (frame,) = feed(reader, stream_of(first), [1 << 20])
        feed(reader, stream_of(second), [1 << 20])
        assert bytes(frame.body) == b"a" * size


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"XXX" + data[3:],
        lambda data: data[:3] + b"\xff" + data[4:],
        lambda data: data[:4] + (META_LIMIT_BYTES + 1).to_bytes(4, "little") + data[8:],
        lambda data: data[:8] + (2**63).to_bytes(8, "little") + data[16:],
    ],
)
def test_what_is_no_frame_is_refused(damage: object) -> None:
    data = damage(stream_of(Frame(Kind.QUERY, 1, 0.0, b"m", b"b")))  # type: ignore[operator]
    with pytest.raises(BrokenStreamError):
        feed(Reader(), data, [1 << 20])


def test_a_body_without_memory_is_named() -> None:
    def none(size: int) -> memoryview:
        raise MemoryError

    with pytest.raises(NoMemoryError) as caught:
        feed(Reader(none), stream_of(Frame(Kind.QUERY, 9, 0.0, b"{}", b"x" * LARGE_BYTES)), [HEADER_BYTES])
    assert (caught.value.number, caught.value.meta, caught.value.size) == (9, b"{}", LARGE_BYTES)


@settings(max_examples=60, deadline=None)
@given(st.lists(frames, max_size=6), st.lists(st.integers(1, 200_000), min_size=1, max_size=5), st.sets(st.integers(0, 5)))
def test_bodies_without_room_are_dropped_and_the_others_come(
    sent: list[Frame], steps: list[int], without_room: set[int]
) -> None:
    """Whichever of the large bodies find none: the frames stay in order, and each dropped one says how long it was."""
    large = [index for index, frame in enumerate(sent) if len(frame.body) >= LARGE_BYTES]
    asked: list[int] = []

    def allocate(size: int) -> memoryview | None:
        index = large[len(asked)]
        asked.append(size)
        return None if index in without_room else memoryview(bytearray(size))

    got = feed(Reader(allocate), b"".join(stream_of(frame) for frame in sent), steps)
    assert [(frame.number, frame.meta) for frame in got] == [(frame.number, frame.meta) for frame in sent]
    for index, (frame, original) in enumerate(zip(got, sent, strict=True)):
        dropped = index in without_room and index in large
        assert frame.discarded_bytes == (len(original.body) if dropped else 0)
        assert bytes(frame.body) == (b"" if dropped else original.body)


@settings(max_examples=200, deadline=None)
@given(st.lists(frames, max_size=2), st.binary(max_size=300), st.lists(st.integers(1, 1000), min_size=1, max_size=3))
def test_any_bytes_are_frames_or_refused(sent: list[Frame], noise: bytes, steps: list[int]) -> None:
    """Whole frames before the noise come out; the noise is refused, or is the beginning of a frame that is still to come."""
    data = b"".join(stream_of(frame) for frame in sent)
    reader = Reader()
    assert len(feed(reader, data, [1 << 20])) == len(sent)
    with suppress(BrokenStreamError, NoMemoryError):
        feed(reader, noise, steps)


def test_a_stream_that_has_ended_keeps_nothing() -> None:
    budget = ByteBudget(1 << 30)
    reader = Reader(budget.memory)
    feed(reader, stream_of(Frame(Kind.REPLY, 1, 0.0, b"", b"x" * 1_000_000))[:-1], [1 << 20])
    assert budget.held_bytes == 1_000_000
    reader.forget()
    assert budget.held_bytes == 0
