"""A worker's loop over a socketpair: whatever waits is answered in order and each by its own number, however the answers are sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from app.limits import Limits
from app.pool.frames import Frame, Kind, encode
from app.pool.job import asked_of
from app.pool.worker import send_all
from app.road import Request, Road
from tests.pool.worker_line import WorkerLine


class Line(WorkerLine):
    """Frames sent together, and read by their number."""

    def send(self, *frames: list[Any]) -> None:
        """All in one piece."""
        send_all(self.connection, [b"".join(map(bytes, (piece for frame in frames for piece in frame)))])

    def read(self, count: int) -> list[Frame]:
        frames: list[Frame] = []
        while len(frames) < count:
            frames += self.received()
        return frames


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    assert line.read(1)[0].kind is Kind.READY
    yield line
    line.close()


def asked(number: int, query: Any, *, left_s: float = 60.0, request_id: str | None = None) -> list[Any]:
    meta = asked_of("query", None, None, "*/*").meta(request_id or f"id-{number}")
    return encode(Kind.QUERY, number, seconds=time.monotonic() + left_s, meta=meta, body=[json.dumps(query).encode()])


def softmax(*numbers: float) -> dict[str, Any]:
    return {"operation": "softmax", "inputs": {"input": list(numbers)}, "parameters": {"dim": 0}, "want": ["outputs", "vjp"]}


def alone(query: Any) -> bytes:
    """The body of the whole road's answer."""
    body = memoryview(json.dumps(query).encode())
    reply = Road(Limits(), "cpu").answer(Request("query", "a", None, None, "*/*", body), lambda _: None)
    return b"".join(map(bytes, reply.buffers))


def test_what_waits_together_is_answered_one_by_one(line: Line) -> None:
    queries: list[dict[str, Any]] = []
    for number in range(40):
        queries.append(softmax(0.1 * number, 0.5, -1.25))
        if number % 7 == 3:
            queries.append({"operation": "exp", "inputs": {"input": [0.25 * number]}, "want": ["outputs"]})
        if number % 11 == 5:
            queries.append({"operation": "no such thing"})
    line.send(*(asked(number, query) for number, query in enumerate(queries)))
    replies = line.read(len(queries))
    assert sorted(reply.number for reply in replies) == list(range(len(queries)))
    for reply in replies:
        meta, body, query = orjson.loads(reply.meta), bytes(reply.body), queries[reply.number]
        if query["operation"] == "no such thing":
            assert meta["status"] == 404
            assert orjson.loads(body)["request_id"] == f"id-{reply.number}"
            continue
        assert meta["status"] == 200
        assert meta["labels"]["operation"] == query["operation"]
        assert set(meta["timings"]) == {"compute", "encode"}
        assert body == alone(query)


def test_among_what_waits_some_are_cancelled_and_some_too_late(line: Line) -> None:
    line.send(asked(1, softmax(1.0, 2.0)))
    line.read(1)
    line.send(
        asked(2, softmax(1.0, 2.5)),
        asked(3, softmax(1.0, 3.5), left_s=-1.0),
        asked(4, softmax(1.0, 4.5)),
        encode(Kind.CANCEL, 4),
        encode(Kind.PROBE),
        asked(5, softmax(1.0, 5.5)),
    )
    replies = {(frame.kind, frame.number) for frame in line.read(5)}
    assert replies == {(Kind.REPLY, 2), (Kind.DROPPED, 3), (Kind.DROPPED, 4), (Kind.READY, 0), (Kind.REPLY, 5)}


@pytest.mark.parametrize("name", ['","endpoint":"split"', '"', "\\", "ä", "", '\\","endpoint":'])
def test_a_requests_id_is_only_an_id(line: Line, name: str) -> None:
    for number in range(3):
        line.send(asked(number, {"operation": "no such thing"}, request_id=name), asked(9, softmax(1.0, 2.0), request_id=name))
        refusal, reply = line.read(2)
        assert orjson.loads(bytes(refusal.body))["request_id"] == name or not name
        assert orjson.loads(reply.meta)["status"] == 200


def test_what_comes_twice_under_one_number_is_answered_twice(line: Line) -> None:
    """Also where it is computed together with others, which begins when some have been answered."""
    for _ in range(60):
        line.send(*(asked(number, softmax(0.1 * number, 0.5, -1.25)) for number in (1, 2, 2, 3, 3, 4)))
        replies = line.read(6)
        assert sorted(reply.number for reply in replies) == [1, 2, 2, 3, 3, 4]
        for reply in replies:
            assert bytes(reply.body) == alone(softmax(0.1 * reply.number, 0.5, -1.25))
