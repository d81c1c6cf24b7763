"""Connections: no more than there is room for, none has them all, and whoever is refused reads why."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import orjson
import pytest

from app.front.connection_limit import REFUSED_AT_ONCE, Connections, most_connections
from tests.front.raw import head, line
from tests.pool.queries import SMALL
from tests.server import Server, free_port, serving
from tests.waiting import wait_for

MIB = 1 << 20
QUEUE_BYTES = 64 * MIB  # room for few connections, and for an answer beyond what the kernel holds of one
TEXT = orjson.dumps(SMALL)


class Member:
    def __init__(self, address: str, *, is_answering: bool = False) -> None:
        self.address = address
        self.is_answering = is_answering
        self.has_left = False

    def leave(self) -> None:
        self.has_left = True


def test_whoever_has_most_makes_way_by_what_waits_for_a_request() -> None:
    connections = Connections(4)
    greedy = [Member("a", is_answering=number == 0) for number in range(4)]
    assert {connections.join(member) for member in greedy} == {"admitted"}
    assert connections.join(Member("a")) == "refused"
    assert connections.join(Member("b")) == "admitted"
    assert [member.has_left for member in greedy] == [False, True, False, False]
    connections.part(greedy[2])
    connections.part(greedy[2])


def test_where_all_of_them_are_being_answered_one_more_is_refused() -> None:
    connections = Connections(2)
    assert {connections.join(Member("a", is_answering=True)) for _ in range(2)} == {"admitted"}
    assert {connections.join(Member("b")) for _ in range(REFUSED_AT_ONCE)} == {"refused"}
    assert connections.join(Member("b")) == "cut"


@pytest.mark.parametrize("queue_bytes", [8 * MIB, 1024 * MIB, 64 << 30])
def test_how_many_there_may_be(queue_bytes: int) -> None:
    assert 1 <= most_connections(queue_bytes, 2) <= 8192
    assert most_connections(queue_bytes, 2) <= most_connections(2 * queue_bytes, 2)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, metrics_port: int) -> Iterator[Server]:
    """A server whose queue has room for few bytes, so that few connections may be open."""
    settings = {"PULLBACK_QUEUE_BYTES": str(QUEUE_BYTES), "PULLBACK_METRICS_PORT": str(metrics_port)}
    with serving(tmp_path_factory.mktemp("small") / "log.txt", **settings) as running:
        running.http.close()  # each test counts its own connections alone
        yield running


def test_one_client_cannot_have_all_connections(small: Server, metrics_port: int) -> None:
    server, limit = small, most_connections(QUEUE_BYTES, 1)
    with ExitStack() as stack:
        before = descriptors(server.process.pid)
        mine = stack.enter_context(line(server.port))
        mine.send(head(method="GET", path="/health/live"))
        assert mine.reply()[0] == 200
        for _ in range(2 * limit):
            stack.enter_context(line(server.port))
        last = stack.enter_context(line(server.port))
        wait_for(lambda: descriptors(server.process.pid) >= before + limit)
        assert descriptors(server.process.pid) <= before + limit + REFUSED_AT_ONCE + 8
        del last
        # On a port of its own the operator is always let in, and so is another client.
        assert httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").status_code == 200
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.9")) as other:
            assert [other.post(f"{server.url}/v1/query", json=SMALL).status_code for _ in range(10)] == [200] * 10
    assert "Traceback" not in server.log.read_text()


def test_whoever_is_refused_reads_why(small: Server) -> None:
    limit = most_connections(QUEUE_BYTES, 1)
    with ExitStack() as stack:
        for _ in range(limit):
            stack.enter_context(line(small.port))
        one_more = stack.enter_context(line(small.port))
        status, headers, problem = one_more.reply()
        assert (status, problem["code"]) == (429, "queue_full")
        assert int(headers["retry-after"]) >= 1
    wait_for(lambda: httpx.post(f"{small.url}/v1/query", json=SMALL).status_code == 200)


def test_who_still_takes_a_large_answer_is_not_asked_to_leave(small: Server) -> None:
    """The oldest connection of the client that has most of them, which else would be the first to go: it is used again afterwards."""
    query = orjson.dumps({"program": "return ones(1500000)"})
    with ExitStack() as stack:
        taking = stack.enter_context(line(small.port))
        taking.send(head(Accept="application/vnd.safetensors", Content_Length=str(len(query))) + query)
        # The answer has left the worker, and what the kernel does not hold of its 12 MB waits in the front.
        begun = taking.connection.recv(4096, socket.MSG_PEEK)
        assert begun.startswith(b"HTTP/1.1 200"), begun
        idle = [stack.enter_context(line(small.port)) for _ in range(most_connections(QUEUE_BYTES, 1) - 1)]
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.9")) as other:
            assert other.post(f"{small.url}/v1/query", json=SMALL).status_code == 200
        assert idle[0].is_closed()
        status, headers, tensors = taking.response()
        assert (status, len(tensors)) == (200, int(headers["content-length"]))
        assert len(tensors) > 12_000_000
        taking.send(head(Content_Length=str(len(TEXT))) + TEXT)
        assert taking.reply()[0] == 200
