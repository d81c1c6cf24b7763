"""Where a request's head and body end: however what is sent is cut into pieces, no step goes beyond."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.front.http.framing import Framing, Stage

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"


def steps(framing: Framing, pieces: list[bytes]) -> list[bytes]:
    """What would be parsed at once, of each piece."""
    parsed = []
    for piece in pieces:
        start = 0
        while start < len(piece):
            end = framing.step(piece, start)
            assert start < end <= len(piece)
            parsed.append(piece[start:end])
            start = end
    return parsed


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(marks) if end > start]


@given(st.integers(1, 5), st.lists(st.integers(0, 1000), max_size=12))
def test_a_step_ends_with_a_head(count: int, places: list[int]) -> None:
    framing = Framing()
    done = b""
    for step in steps(framing, cut(HEAD * count, places)):
        before = done.count(b"\r\n\r\n")
        done += step
        # A step never has a head's end in its middle.
        assert (done.count(b"\r\n\r\n") == before) or done.endswith(b"\r\n\r\n")
    assert done == HEAD * count


@given(st.binary(min_size=1, max_size=2000), st.binary(max_size=500), st.lists(st.integers(0, 3000), max_size=8))
def test_a_step_ends_with_a_declared_body(body: bytes, behind: bytes, places: list[int]) -> None:
    framing = Framing()
    framing.stage, framing.declared_bytes = Stage.BODY, len(body)
    come = b""
    for piece in cut(body + behind, places):
        start = 0
        while start < len(piece) and len(come) < len(body):
            end = framing.step(piece, start)
            come += piece[start:end]
            framing.body_bytes += end - start
            start = end
        if len(come) == len(body):
            break
    assert come == body


@given(st.binary(max_size=20_000))
def test_steps_of_a_chunked_body_are_neither_long_nor_many(data: bytes) -> None:
    framing = Framing()
    framing.stage = Stage.BODY
    parsed = steps(framing, [data])
    assert b"".join(parsed) == data
    assert all(len(step) <= 4096 for step in parsed)
    assert len(parsed) <= len(data) // 252 + 1


def test_a_chunked_body_of_empty_lines() -> None:
    framing = Framing()
    framing.stage = Stage.BODY
    assert len(steps(framing, [b"\r\n" * 100_000])) < 1000


def test_chunks_may_carry_some_framing_and_no_more() -> None:
    framing = Framing()
    framing.stage, framing.chunks, framing.framing_bytes = Stage.BODY, 1000, 128_000
    assert not framing.is_too_large
    framing.framing_bytes += 50_000
    assert framing.is_too_large
