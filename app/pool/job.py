"""A job: one query on its way through the pool, and the reply that it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from app.errors import PullbackError
from app.pool.frames import Buffer

# The endpoint whose bodies are queries in the native protocol; of other bodies the worker alone knows what timeout they name.
_QUERY: Final = "query"


@dataclass(slots=True)
class WorkerReply:
    """What a worker answered: status, media type, body, timings in seconds, labels of bounded cardinality.

    Attributes:
        first: the worker had to plan it, as the first of its kind.
    """

    status: int
    media_type: str
    body: Buffer
    timings: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    pieces: int = 0
    retire: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    first: bool = False

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


# What a job ends with: None where nobody waits for it any more.
Result = WorkerReply | PullbackError | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked besides the body; it may be used again for another body.

    Attributes:
        text: all of it, as JSON; the names are those of the road's Request.
        content_type: of the body.
        names_timeout: the body may name a timeout in the native protocol, readable before it is decoded.
    """

    text: bytes
    content_type: str | None
    names_timeout: bool

    def meta(self, request_id: str) -> bytes:
        """What a worker is told of a query besides its body: all that was asked, and the request's id."""
        return b'{"request_id":%b,%b' % (orjson.dumps(request_id), self.text[1:])


class Job:
    """One query in the pool.

    Attributes:
        number: names it in frames.
        asked: what is asked besides the body, as JSON; `meta`: the same with the request's id, for the worker.
        on_end: called once, by the pool, with what it ends with.
        is_done: it has ended.
        body: its bytes, in pieces, never joined here; `size` is their sum.
        arrived, deadline: seconds on CLOCK_MONOTONIC.
        lost: workers whose death it is blamed for; `tries`: all that died while they computed it.
        holders: numbers of the workers that have it; two where it was taken over from a busy one.
        begun: when the worker that answered it began it, seconds on CLOCK_MONOTONIC.
        worker: the slot of that worker.
        client: who asks, as the queue tells clients apart.
        is_waiting: it stands in the queue, since `queued`, seconds on CLOCK_MONOTONIC.
        slices: how often it was stopped on the light worker, now or when the same was asked before.
        is_heavy: it was stopped for others that waited, as it held a worker for long; `stops`: how often, for its share of the time.
        mark: the fingerprint of all that is asked, where somebody needed it; else empty.
    """

    __slots__ = (
        "arrived", "asked", "begun", "body", "client", "deadline", "holders", "is_done", "is_heavy", "is_waiting", "lost",
        "mark", "meta", "number", "on_end", "queued", "size", "slices", "stops", "tries", "worker",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        client: str,
        asked: bytes,
        meta: bytes,
        body: Sequence[Buffer],
        size: int,
        arrived: float,
        deadline: float,
        on_end: Callable[[Result], None],
    ) -> None:
        self.number = number
        self.client = client
        self.asked = asked
        self.meta = meta
        self.body = body
        self.size = size
        self.arrived = arrived
        self.deadline = deadline
        self.on_end = on_end
        self.is_done = False
        self.lost = 0
        self.tries = 0
        self.holders: list[int] = []
        self.begun = 0.0
        self.worker = -1
        self.queued = arrived
        self.is_waiting = False
        self.slices = 0
        self.stops = 0
        self.is_heavy = False
        self.mark = b""


def asked_of(
    endpoint: str,
    content_type: str | None,
    content_encoding: str | None,
    accept: str | None,
    parameters: Mapping[str, str] | None = None,
) -> Asked:
    """What is asked of `endpoint` of the road, by these headers and parameters."""
    fields: dict[str, Any] = {
        "endpoint": endpoint,
        "content_type": content_type,
        "content_encoding": content_encoding,
        "accept": accept,
    }
    if parameters:
        fields["parameters"] = parameters
    return Asked(orjson.dumps(fields), content_type, endpoint == _QUERY and content_encoding is None)


def nobody_waits(_: Result) -> None:
    """What an ended job calls: whoever still knows the job must not keep who waited for it."""
