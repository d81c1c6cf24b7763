"""The framing of a request as it comes in: where its head and its body end, and how many bytes are neither, as pure arithmetic.

The parser decides what a request says; this only keeps it from being handed what belongs to the next one, or what has no end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from app.front.http.http_refusals import HEADER_BYTES_LIMIT

# Names and values are counted exactly by the middleware; here also the request line and what stands between them.
_HEAD_BYTES_LIMIT: Final = HEADER_BYTES_LIMIT + (8 << 10)
# A chunk's size line with a signed extension, as S3's clients send it, has some 100 bytes.
_CHUNK_FRAMING_BYTES: Final = 128
_END: Final = b"\r\n\r\n"
# A chunked body is parsed in steps of so many bytes, or less where a message may end, so that little of what follows is parsed too;
# no shorter ones, so that a body of empty lines does not become a million steps.
_CHUNKED_STEP_BYTES: Final = 4096
_CHUNKED_LEAST_BYTES: Final = 252
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)\r\n", re.IGNORECASE)
# Where a line begins with it: other headers may end so.
_LENGTH_NAME: Final = b"\ncontent-length"
# Of a head that a connection keeps; clients' heads have some hundred bytes. Far from the limit of headers, which a longer length may not pass.
_COMPARED_HEAD_BYTES: Final = 4 << 10
_DIGITS_LIMIT: Final = 12  # of a length: above any body's


class Stage(Enum):
    """Of the request that is being received."""

    HEAD = auto()
    BODY = auto()
    COMPLETE = auto()


class Framing:
    """One request's.

    Attributes:
        declared_bytes: its Content-Length, 0 where it has none.
        body_bytes: of its body, received.
        framing_bytes: received of all but its body: head, chunk sizes and extensions, trailers.
        chunks: begun.
    """

    __slots__ = ("_tail", "body_bytes", "chunks", "declared_bytes", "framing_bytes", "stage")

    def __init__(self) -> None:
        self.stage = Stage.HEAD
        self.declared_bytes = self.body_bytes = self.framing_bytes = self.chunks = 0
        self._tail = b""  # the last bytes of an unfinished head, where its end may have begun

    @classmethod
    def amid_body(cls, come: int, left: int) -> Framing:
        """Of a request whose head was known without being parsed: so many bytes of it have come, and so many are still to."""
        framing = cls()
        framing.stage = Stage.BODY
        framing.declared_bytes, framing.body_bytes = come + left, come
        return framing

    @property
    def received_bytes(self) -> int:
        return self.framing_bytes + self.body_bytes

    @property
    def is_too_large(self) -> bool:
        """Chunk extensions and trailers have no end of their own, no more than headers (RFC 9112, section 7.1.1)."""
        return self.framing_bytes > _HEAD_BYTES_LIMIT + _CHUNK_FRAMING_BYTES * self.chunks

    def step(self, data: bytes, start: int) -> int:
        """How far to parse `data` at once: to the end of the head or the body, where that is known."""
        if self.stage is Stage.HEAD:
            return self._head_step(data, start)
        if self.declared_bytes:
            return min(len(data), start + max(1, self.declared_bytes - self.body_bytes))
        limit = min(len(data), start + _CHUNKED_STEP_BYTES)
        end = data.find(_END, start + _CHUNKED_LEAST_BYTES, limit)
        return limit if end < 0 else end + len(_END)

    def _head_step(self, data: bytes, start: int) -> int:
        at = (self._tail + data[start : start + len(_END) - 1]).find(_END)
        if at >= 0:
            end = start + at + len(_END) - len(self._tail)
        else:
            at = data.find(_END, start)
            end = at + len(_END)
        if at < 0:
            self._tail = (self._tail + data[start:])[1 - len(_END) :]
            return len(data)
        self._tail = b""
        return end


class RepeatedHead:
    """A head that was parsed, by which the next one is known: all but the digits of its Content-Length must come again, byte for byte."""

    __slots__ = ("_after", "_before")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after

    @classmethod
    def of(cls, head: bytes) -> RepeatedHead | None:
        """Of a whole head, its empty line included; None where it is no whole one, or long, or its Content-Length cannot be told from other text."""
        length = _LENGTH.search(head)
        if (
            length is None
            or len(head) > _COMPARED_HEAD_BYTES
            or not head.endswith(_END)
            or head.lower().count(_LENGTH_NAME) != 1
        ):
            return None
        return cls(head[: length.start(1)], head[length.end(1) :])

    def body_of(self, request: bytes) -> tuple[bytes, int] | None:
        """What has come of the body, and how long it will be, where `request` is this head and not more than that body."""
        before, after = self._before, self._after
        if not request.startswith(before):
            return None
        start = len(before)
        end = request.find(b"\r", start, start + _DIGITS_LIMIT + 1)
        digits = request[start:end]
        if not digits.isdigit() or digits[:1] == b"0" or not request.startswith(after, end):
            return None
        size, begin = int(digits), end + len(after)
        return (request[begin:], size) if len(request) <= begin + size else None


def framing_head(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head that says nothing but where the body of a request with these headers ends."""
    names = (b"content-length", b"transfer-encoding")
    lines = [b"%b: %b\r\n" % (name, value) for name, value in headers if name in names]
    return b"POST / HTTP/1.1\r\n" + b"".join(lines) + b"\r\n"
