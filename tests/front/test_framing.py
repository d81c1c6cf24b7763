"""Where a request's head and body end: however what is sent is cut into pieces, no step goes beyond."""

from __future__ import annotations

from itertools import pairwise

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.front.http.framing import Framing, RepeatedHead, Stage
from app.front.http.wire import SMALL_BODY_BYTES

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


class Parsed:
    """All that the parser says of bytes; the value of Content-Length left out."""

    def __init__(self, data: bytes) -> None:
        self.said: list[object] = []
        self.body = b""
        self.messages = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)
        self.said += [self.parser.get_method(), self.parser.get_http_version(), self.parser.should_keep_alive()]

    def on_url(self, url: bytes) -> None:
        self.said.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.said.append((name, b"" if name.lower() == b"content-length" else value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


def parsed(data: bytes) -> Parsed | None:
    try:
        return Parsed(data)
    except httptools.HttpParserError:
        return None


LINES = st.sampled_from(
    [
        b"Host: a", b"content-length: 3", b"Content-Length: 3", b"CONTENT-LENGTH:3", b"Content-Length:  3", b"Content-Length: 3 ",
        b"X-Content-Length: 3", b"X: Content-Length: 3", b"Accept: */*", b"X: a\r\n b", b"Content-Length: 3\r\n 4", b"content-lengthy: 3",
    ]
)  # fmt: skip
HEADS = st.builds(
    lambda url, lines: b"POST %b HTTP/1.1\r\n%b\r\n" % (url, b"".join(line + b"\r\n" for line in lines)),
    st.sampled_from([b"/v1/query", b"/v1/query?content-length: 3"]),
    st.lists(LINES, max_size=4),
)
LENGTHS = st.sampled_from(
    [b"0", b"1", b"3", b"03", b"+3", b"-1", b"3 ", b" 3", b"", b"3,3", b"0x3", b"12", b"99999", b"999999", b"3\r\n"]
)


@given(HEADS, LENGTHS, st.binary(max_size=15))
@example(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", b"3", b"abc")
def test_what_a_repeated_head_is_taken_for_is_what_the_parser_says(head: bytes, length: bytes, behind: bytes) -> None:
    """Whatever number stands in it, and whatever comes behind it: one request that says the same, or it is left to the parser."""
    first, repeated = parsed(head + b"abc"), RepeatedHead.of(head)
    if first is None or repeated is None:
        return
    for request in (head + behind, head.replace(b"3", length) + behind):
        begun = repeated.body_of(request)
        if begun is not None:
            come, size = begun
            for body in (come, come.ljust(size, b"x")) if size < 100_000 else (come,):
                again = parsed(request + body[len(come) :])
                assert again is not None
                assert (again.said, again.body, again.messages) == (first.said, body, len(body) == size)


def request(size: int, body: bytes) -> bytes:
    return b"POST /v1/query HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nAccept: */*\r\n\r\n%b" % (size, body)


@pytest.mark.parametrize("size", [1, 9, 10, 99, 100, 1000, SMALL_BODY_BYTES, 8 << 20])
def test_a_head_with_another_length_is_known_again(size: int) -> None:
    repeated = RepeatedHead.of(request(188, b""))
    assert repeated is not None
    body = b"x" * size
    assert repeated.body_of(request(size, body)) == (body, size)
    assert repeated.body_of(request(size, body[1:])) == (body[1:], size)
    assert repeated.body_of(request(size, b"")) == (b"", size)
    assert repeated.body_of(request(size, body + b"P")) is None
    assert repeated.body_of(request(size, body).replace(b"Accept", b"accept")) is None


@pytest.mark.parametrize(
    "head",
    [
        request(3, b"")[:-2], request(3, b"")[:-1], request(3, b"abc"), b"", b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        request(3, b"").replace(b"Accept: */*", b"Cookie: " + b"x" * 5000), request(3, b"").replace(b"*/*", b"*/*\r\nContent-Length: 3"),
    ],
)  # fmt: skip
def test_a_head_that_is_not_kept(head: bytes) -> None:
    assert RepeatedHead.of(head) is None


def test_another_header_that_ends_alike_does_not_count() -> None:
    head = request(3, b"").replace(b"*/*", b"*/*\r\nInner-Content-Length: 2\r\nVia: content-length: 3")
    repeated = RepeatedHead.of(head)
    assert repeated is not None
    assert repeated.body_of(head.replace(b"Content-Length: 3\r\nAccept", b"Content-Length: 4\r\nAccept") + b"abcd") == (
        b"abcd",
        4,
    )
    assert repeated.body_of(head.replace(b"Inner-Content-Length: 2", b"Inner-Content-Length: 3") + b"abc") is None


def test_a_length_that_no_body_has_is_left_to_the_parser() -> None:
    repeated = RepeatedHead.of(request(3, b""))
    assert repeated is not None
    assert repeated.body_of(request(10**11, b"x")) == (b"x", 10**11)
    assert repeated.body_of(request(10**12, b"x")) is None
