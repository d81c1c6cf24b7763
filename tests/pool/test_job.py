"""Jobs: the timeout that a body seems to name, and the fingerprint of its content."""

from __future__ import annotations

import pytest

from app.pool.job import WorkerReply, fingerprint, peek_timeout

FAR = b" " * 200_000


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([b'{"timeout_s": 2}'], 2.0),
        ([b'{"timeout_s":0.25, "x": 1}'], 0.25),
        ([b'{"timeout_s" : 1e1}'], 10.0),
        ([b'\x20\x00\x00\x00\x00\x00\x00\x00{"__metadata__":{"query":"{\\"timeout_s\\": 3.5}"}}'], 3.5),
        ([b'{"timeout_s": 4' + FAR + b"}"], 4.0),
        ([b"{" + FAR + b'"timeout_s": 5}'], 5.0),
        ([b"{" + FAR, FAR, b'"timeout_s": 6}'], 6.0),
        ([bytearray(b'{"timeout_s": 7}')], 7.0),
        ([b'{"operation": "exp"}'], None),
        ([b'{"timeout_s": "soon"}'], None),
        ([b'{"timeout_s": -1}'], None),
        ([b'{"timeout_s": 1.2.3}'], None),
        ([b""], None),
        ([], None),
    ],
)
def test_peek(body: list[bytes], expected: float | None) -> None:
    assert peek_timeout(body) == expected


def test_a_fingerprint_is_of_the_content_not_of_its_pieces() -> None:
    assert fingerprint([b"ab", b"c"]) == fingerprint([b"a", bytearray(b"bc")])
    assert fingerprint([b"abc"]) != fingerprint([b"abd"])


def test_parts_of_a_reply() -> None:
    pieces = [b"first", b"", b"third"]
    sizes = b"".join(len(piece).to_bytes(8, "little") for piece in pieces)
    reply = WorkerReply(200, "application/json", sizes + b"".join(pieces), pieces=3)
    assert [bytes(part) for part in reply.parts()] == pieces
    assert list(WorkerReply(200, "application/json", b"whole").parts()) == []
