"""A job: one query on its way through the pool, and the reply that it gets.

Knows what belongs to a query besides its content: bytes, deadline, who holds it, how many workers it has lost. Refuses to know the
queue's rules.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from app.errors import PullbackError
from app.pool.frames import Buffer

_PEEK_BYTES: Final = 64 << 10
# In JSON, and in the JSON that stands as a string in a safetensors header.
_TIMEOUT: Final = re.compile(rb'"timeout_s\\?"\s{0,8}:\s{0,8}([0-9][0-9.eE+-]{0,30})')


@dataclass(frozen=True, slots=True)
class WorkerReply:
    """What a worker answered: status, media type, body, timings in seconds, labels of bounded cardinality."""

    status: int
    media_type: str
    body: Buffer
    timings: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    pieces: int = 0
    retire: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    def parts(self) -> Iterator[memoryview]:
        """The body's pieces, where the worker has said their sizes (as little-endian u64 before them).

        One at a time: ten thousand views would take more memory than small pieces themselves.
        """
        body = memoryview(self.body)
        start = 8 * self.pieces
        for index in range(self.pieces):
            size = int.from_bytes(body[8 * index : 8 * index + 8], "little")
            yield body[start : start + size]
            start += size


class Job:
    """One query in the pool.

    Attributes:
        number: names it in frames.
        body: its bytes, in pieces, never joined here; `size` is their sum.
        arrived, deadline: seconds on CLOCK_MONOTONIC.
        future: resolves to its WorkerReply, to a PullbackError, or to None where nobody waits for it any more.
        lost: workers whose death it is blamed for; `tries`: all that died while they computed it.
        holders: numbers of the workers that have it; two where it was taken over from a busy one.
        begun: when the worker that answered it began it, seconds on CLOCK_MONOTONIC.
        worker: the slot of that worker.
    """

    __slots__ = (
        "arrived", "begun", "body", "deadline", "future", "holders", "lost", "meta", "number", "size", "tries",
        "worker",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        meta: bytes,
        body: Sequence[Buffer],
        size: int,
        arrived: float,
        deadline: float,
        future: asyncio.Future[WorkerReply | PullbackError | None],
    ) -> None:
        self.number = number
        self.meta = meta
        self.body = body
        self.size = size
        self.arrived = arrived
        self.deadline = deadline
        self.future = future
        self.lost = 0
        self.tries = 0
        self.holders: list[int] = []
        self.begun = 0.0
        self.worker = -1


def meta_of(
    endpoint: str,
    request_id: str,
    content_type: str | None,
    content_encoding: str | None,
    accept: str | None,
    parameters: Mapping[str, str] | None = None,
) -> bytes:
    """What a worker is told of a query besides its body; the names are those of the road's Request."""
    fields: dict[str, Any] = {
        "endpoint": endpoint,
        "request_id": request_id,
        "content_type": content_type,
        "content_encoding": content_encoding,
        "accept": accept,
    }
    if parameters:
        fields["parameters"] = parameters
    return orjson.dumps(fields)


def fingerprint(body: Sequence[Buffer]) -> bytes:
    """A hash of a body's content, however it is cut into pieces."""
    digest = hashlib.blake2b(digest_size=16)
    for piece in body:
        digest.update(piece)
    return digest.digest()


def peek_timeout(body: Sequence[Buffer]) -> float | None:
    """The `timeout_s` that a body seems to name, from its first and last 64 KiB, without parsing it.

    A guess, so that a query's deadline holds while it waits; the worker's word, after decoding, replaces it.
    """
    for piece in (body[:1], body[-1:]) if len(body) > 1 else (body[:1],):
        for buffer in piece:
            ends = (buffer,) if len(buffer) <= 2 * _PEEK_BYTES else (buffer[:_PEEK_BYTES], buffer[-_PEEK_BYTES:])
            for end in ends:
                if found := _TIMEOUT.search(end):
                    try:
                        return float(found[1])
                    except ValueError:
                        return None
    return None
