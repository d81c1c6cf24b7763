"""A worker's loop on a slab: every body of a query is given back when it is answered, whichever way; replies find room again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import orjson
import pytest
import safetensors.numpy

from app.pool.frames import LARGE_BYTES, Frame, Kind, encode
from app.pool.slabs.slab import Slab, create
from app.pool.slabs.worker_bodies import WorkerBodies
from app.pool.worker import send_all
from tests.pool.worker_line import WorkerLine

SIZE: Final = 8 << 20
SAFETENSORS: Final = "application/vnd.safetensors"


def meta(number: int, content_type: str, accept: str | None = "*/*") -> bytes:
    """What is asked besides the body, as the front says it."""
    asked = {"endpoint": "query", "content_type": content_type, "content_encoding": None, "accept": accept}
    return orjson.dumps({"request_id": f"id-{number}", **asked})


class Line(WorkerLine):
    """With the front's side of a slab."""

    def __init__(self) -> None:
        descriptor = create(SIZE)
        self.slab = Slab(descriptor, SIZE, is_front=True, on_read=self._read_reply)
        self._frames: list[Frame] = []
        bodies = WorkerBodies(descriptor, SIZE)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        super().__init__(bodies)

    def _read_reply(self, begin: int) -> None:
        send_all(self.connection, encode(Kind.FREED, begin))

    def next(self) -> Frame:
        while not self._frames:
            self._frames += self.received()
        return self._frames.pop(0)

    def ask(self, number: int, body: bytes, content_type: str) -> tuple[Frame, bytes]:
        """The reply's frame and body, when the query's own body has been given back too."""
        span = self.slab.put([body], len(body))
        assert span is not None
        about = meta(number, content_type, content_type)
        send_all(self.connection, encode(Kind.PLACED_QUERY, number, seconds=time.monotonic() + 60, meta=about, body=[span]))
        frames = [self.next(), self.next()]
        (freed,) = [frame for frame in frames if frame.kind is Kind.FREED]
        (reply,) = [frame for frame in frames if frame.kind is not Kind.FREED]
        self.slab.free(freed.number)
        assert reply.number == number
        return reply, bytes(self.slab.get(reply.body) if reply.kind is Kind.PLACED_REPLY else reply.body)


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    ready = line.next()
    assert (ready.kind, orjson.loads(ready.meta)["slab"]) == (Kind.READY, True)
    yield line
    line.close()


def file(query: dict[str, Any], **tensors: Any) -> bytes:
    return safetensors.numpy.save(
        {f"inputs.{name}": value for name, value in tensors.items()}, metadata={"query": orjson.dumps(query).decode()}
    )


def test_bodies_are_given_back_and_replies_are_right(line: Line) -> None:
    for number in range(12):
        x = np.random.default_rng(number).standard_normal(30_000 + 200_000 * (number % 2)).astype(np.float32)
        reply, body = line.ask(number, file({"program": "return x + x", "want": ["outputs"]}, x=x), SAFETENSORS)
        assert reply.kind is Kind.PLACED_REPLY
        assert safetensors.numpy.load(body)["outputs.output"].tobytes() == (x + x).tobytes()


@pytest.mark.parametrize(
    "query",
    [
        {"program": "return x", "want": ["outputs", "jvp"]},  # refused: no tangent
        {"program": "return x.sum()", "want": ["gradient", "outputs"]},
        {"program": "return x.reshape(-1)", "want": ["outputs"]},  # a view of the input itself
        {"program": "y = x * 1\ny += 1\nreturn y, x", "want": ["outputs"]},
        {"program": "return x[:20].cumsum(0)", "want": ["jacobian"], "format": "sparse"},
        {"program": "return 1 / (x - x)", "want": ["outputs"]},
        {"program": "return relu(x).sum()", "want": ["explain"]},
        {"program": "return x.nothing()", "want": ["outputs"]},
    ],
)
def test_whatever_becomes_of_a_query_its_body_is_given_back(line: Line, query: dict[str, Any]) -> None:
    x = np.linspace(-1, 1, 30_000, dtype=np.float32)
    bodies = {line.ask(number, file(query, x=x), SAFETENSORS)[1] for number in range(4)}
    assert len(bodies) == (4 if b"urn:pullback" in next(iter(bodies)) else 1)  # a refusal names its request
    text = orjson.dumps({**query, "inputs": {"x": np.linspace(-1, 1, 5000).tolist()}})
    assert len(text) >= LARGE_BYTES
    for number in range(2):
        line.ask(number, text, "application/json")


def test_an_operation_that_writes_to_its_arguments_writes_to_no_other_query(line: Line) -> None:
    query = {
        "program": "return nn.functional.batch_norm(x, m, v, training=True)",
        "want": ["outputs"],
    }
    x = np.random.default_rng(0).standard_normal((2, 20_000)).astype(np.float32)
    m, v = np.full(20_000, 3, np.float32), np.full(20_000, 2, np.float32)
    content = file(query, x=x, m=m, v=v)
    answers = {line.ask(number, content, SAFETENSORS)[1] for number in range(4)}
    assert len(answers) == 1
    shown = file({"program": "return m + 0", "want": ["outputs"]}, x=x, m=m, v=v)
    assert safetensors.numpy.load(line.ask(9, shown, SAFETENSORS)[1])["outputs.output"].tobytes() == m.tobytes()


def test_a_cancelled_query_gives_its_body_back(line: Line) -> None:
    x = np.zeros(300_000, np.float32)
    body = file({"program": "return exp(sin(x)).sum()", "want": ["gradient"]}, x=x)
    frames: list[Any] = []
    for number in (1, 2):
        span = line.slab.put([body], len(body))
        assert span is not None
        about = meta(number, SAFETENSORS, None)
        frames += encode(Kind.PLACED_QUERY, number, seconds=time.monotonic() + 60, meta=about, body=[span])
    send_all(line.connection, [b"".join(map(bytes, [*frames, *encode(Kind.CANCEL, 2)]))])
    kinds = [line.next().kind for _ in range(4)]
    assert sorted(kinds) == sorted([Kind.DROPPED, Kind.PLACED_REPLY, Kind.FREED, Kind.FREED])


def test_a_full_half_sends_replies_over_the_socket(line: Line) -> None:
    x = np.ones(250_000, np.float32)
    body = file({"program": "return x + x", "want": ["outputs"]}, x=x)
    held = []
    kinds = []
    for number in range(6):
        span = line.slab.put([body], len(body))
        assert span is not None
        about = meta(number, SAFETENSORS, SAFETENSORS)
        send_all(line.connection, encode(Kind.PLACED_QUERY, number, seconds=time.monotonic() + 60, meta=about, body=[span]))
        for frame in (line.next(), line.next()):
            if frame.kind is Kind.FREED:
                line.slab.free(frame.number)
                continue
            kinds.append(frame.kind)
            held.append(line.slab.get(frame.body) if frame.kind is Kind.PLACED_REPLY else frame.body)
    assert kinds == [Kind.PLACED_REPLY] * 4 + [Kind.REPLY] * 2
    assert len({bytes(answer) for answer in held}) == 1
    held.clear()
    assert line.ask(7, body, SAFETENSORS)[0].kind is Kind.PLACED_REPLY
