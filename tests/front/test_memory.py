"""The front holds no more than it says, whatever is sent and whoever does not read; afterwards it answers a good query."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import orjson
import pytest

from tests.front.raw import Line, head, line
from tests.pool.queries import SMALL, metric
from tests.processes import forget_peak, resident_bytes
from tests.server import CLIENT_LIMIT_S, Server, serving_as_people_do
from tests.waiting import HANG_S, wait_for

MB = 1_000_000
QUEUE_BYTES = 200 * MB
BODY_LIMIT = 100 * MB
# What the front may take beside the bytes that it counts.
SLACK_BYTES = 250 * MB
TEXT = orjson.dumps(SMALL)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with room for 200 MB of bodies and replies."""
    settings = {
        "PULLBACK_QUEUE_BYTES": str(QUEUE_BYTES),
        "PULLBACK_BODY_LIMIT_BYTES": str(BODY_LIMIT),
        "PULLBACK_RESULT_LIMIT_BYTES": str(BODY_LIMIT),
    }
    with serving_as_people_do(tmp_path_factory.mktemp("narrow") / "log.txt", **settings) as running:
        yield running


@pytest.fixture(autouse=True)
def _bounded(narrow: Server) -> Iterator[None]:
    """Every test: the peak stays under the limit, all that was held is given back, and a good query is answered."""
    forget_peak(narrow.process.pid)
    yield
    assert resident_bytes(narrow.process.pid, "VmHWM") < QUEUE_BYTES + SLACK_BYTES
    wait_until_nothing_is_held(narrow)
    assert narrow.http.post("/v1/query", json=SMALL).status_code == 200


def held(server: Server) -> float:
    return metric(server.http, "pullback_queue_bytes")


def wait_until_nothing_is_held(server: Server) -> None:
    wait_for(lambda: not held(server))


def growth(server: Server, before: int) -> int:
    """Of the peak, since it was forgotten and `before` was resident."""
    return resident_bytes(server.process.pid, "VmHWM") - before


def query_of(size: int) -> bytes:
    """A small query with a body of so many bytes."""
    return TEXT[:-1] + b" " * (size - len(TEXT)) + b"}"


@pytest.mark.parametrize("trailer", [b"a:\r\n", b"X-A: " + b"b" * 50 + b"\r\n"])
def test_trailers_take_nothing(narrow: Server, trailer: bytes) -> None:
    before = resident_bytes(narrow.process.pid)
    with line(narrow.port) as raw:
        raw.try_send(
            head(Transfer_Encoding="chunked") + b"%x\r\n%b\r\n0\r\n" % (len(TEXT), TEXT) + trailer * (24 * MB // len(trailer))
        )
        assert raw.reply()[0] == 431
    assert growth(narrow, before) < 20 * MB


def test_headers_of_nothing_take_nothing(narrow: Server) -> None:
    before = resident_bytes(narrow.process.pid)
    with line(narrow.port) as raw:
        raw.try_send(head()[:-2] + b"a:\r\n" * (6 * MB))
        assert raw.reply()[0] == 431
    assert growth(narrow, before) < 20 * MB


def test_a_thousand_requests_behind_one_another_are_not_taken_apart_at_once(narrow: Server) -> None:
    """64 KB hold 1,600 requests without a body; each of them as objects takes a hundred times its bytes."""
    before = resident_bytes(narrow.process.pid)
    many = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10_000
    with ExitStack() as lines:
        for _ in range(20):
            raw = lines.enter_context(line(narrow.port))
            raw.connection.setblocking(False)
            while many:
                try:
                    raw.connection.send(many)
                except BlockingIOError:
                    break
        time.sleep(1)
    assert growth(narrow, before) < 40 * MB


@pytest.mark.parametrize("kind", ["few and large", "many and small"])
def test_lists_take_what_they_are_unpacked(narrow: Server, kind: str) -> None:
    """Some 60 KB each on the line, 60 MB in memory."""
    count, size = (50, 1_200_000) if kind == "few and large" else (400, 150_000)
    body = gzip.compress(b"[" + b",".join([query_of(size)] * count) + b"]", 5)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    def ask(_: int) -> int:
        return httpx.post(f"{narrow.url}/v1/queries", content=body, headers=headers, timeout=CLIENT_LIMIT_S).status_code

    with ThreadPoolExecutor(6) as clients:
        statuses = Counter(clients.map(ask, range(6)))
    assert set(statuses) <= {200, 429}, statuses
    assert statuses[200] >= 1


def test_replies_that_nobody_reads_are_counted(narrow: Server) -> None:
    """Ten requests of 75 bytes for 80 MB each: there is room for two."""
    query = orjson.dumps({"program": "return ones(10000000)"})
    with ExitStack() as lines:
        waiting = []
        for _ in range(10):
            raw = lines.enter_context(line(narrow.port))
            raw.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.send(head(Accept="application/vnd.safetensors", Content_Length=str(len(query))) + query)
            waiting.append(raw)
        statuses, most = Counter[bytes](), 0.0
        for raw in waiting:
            statuses[raw.connection.recv(12)[-3:]] += 1
            most = max(most, held(narrow))
        assert set(statuses) <= {b"200", b"429"}
        # On a slow machine those that do not read are cut before all have asked, and then there is room for others.
        assert statuses[b"200"] >= 2
        assert 80 * MB < most < QUEUE_BYTES


def test_bodies_and_replies_end_with_their_answer(narrow: Server) -> None:
    """Also those of queries that take long enough to be watched for a client that leaves, and of refused ones."""
    slow = b'{"program": "for i in range(60):\\n    y = x @ x\\nreturn y.sum()", "inputs": {"x": ' + orjson.dumps(
        [[0.5] * 300] * 300
    )
    slow += b'}, "want": ["outputs"]' + b" " * (15 * MB) + b"}"
    wrong = b'{"operation": "nothing", "inputs": {}' + b" " * (15 * MB) + b"}"
    headers = {"Content-Type": "application/json"}
    before = resident_bytes(narrow.process.pid)
    for body, status in ((slow, 200), (wrong, 404)) * 8:
        assert narrow.http.post("/v1/query", content=body, headers=headers).status_code == status
        assert held(narrow) == 0
    assert growth(narrow, before) < 100 * MB


def test_what_is_declared_and_not_sent_keeps_nobody_out(narrow: Server) -> None:
    with ExitStack() as lines:
        for _ in range(40):
            raw = lines.enter_context(line(narrow.port))
            raw.send(head(Content_Length=str(BODY_LIMIT)) + b" " * 100)
        time.sleep(0.2)
        assert held(narrow) < 5 * MB
        large = query_of(BODY_LIMIT)
        assert narrow.http.post("/v1/query", content=large, headers={"Content-Type": "application/json"}).status_code == 200


@pytest.mark.parametrize("is_repeated", [False, True], ids=["new", "repeated"])
def test_a_body_finds_no_room_while_it_comes(narrow: Server, is_repeated: bool) -> None:
    """Three of 90 MB at once, where there is room for two; what the third sends is read on, so that it sees why."""
    with ExitStack() as lines:
        raws = [lines.enter_context(line(narrow.port)) for _ in range(3)]
        for raw in raws if is_repeated else ():
            raw.send(head(Content_Length=str(len(TEXT))) + TEXT)
            assert raw.reply()[0] == 200
        for raw in raws:
            raw.send(head(Content_Length=str(90 * MB)))
        statuses = []
        with ThreadPoolExecutor(3) as clients:
            body = query_of(90 * MB)

            def upload(raw: Line) -> int:
                for start in range(0, len(body), MB):
                    raw.send(body[start : start + MB])
                    time.sleep(0.005)
                return raw.reply()[0]

            statuses = sorted(clients.map(upload, raws))
        # The last gives way to the others, so that both fit.
        assert set(statuses) <= {200, 429}
        assert statuses.count(200) >= 2
    assert narrow.http.post("/v1/query", content=query_of(MB), headers={"Content-Type": "application/json"}).status_code == 200


def test_another_clients_small_query_finds_room_beside_all_that_one_holds(narrow: Server) -> None:
    """Large bodies that are not whole, small ones that are not whole, and replies that nobody reads, until each is refused."""
    query = orjson.dumps({"program": "return ones(10000000)"})
    with ExitStack() as lines:
        for _ in range(6):
            raw = lines.enter_context(line(narrow.port))
            raw.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.send(head(Accept="application/vnd.safetensors", Content_Length=str(len(query))) + query)
            raw.connection.recv(12)
        for _ in range(6):
            lines.enter_context(line(narrow.port)).try_send(head(Content_Length=str(30 * MB)) + b" " * (29 * MB))
        for _ in range(400):
            lines.enter_context(line(narrow.port)).try_send(head(Content_Length="60000") + b" " * 59_000)
        assert held(narrow) >= 160 * MB
        with httpx.Client(
            transport=httpx.HTTPTransport(local_address="127.0.0.9"), base_url=narrow.url, timeout=CLIENT_LIMIT_S
        ) as other:
            assert [other.post("/v1/query", json=SMALL).status_code for _ in range(10)] == [200] * 10


def test_uploads_that_are_reset_leave_nothing_behind(narrow: Server) -> None:
    """On connections so old that Python's collector looks for what refers to them in a circle only rarely."""
    with ExitStack() as lines:
        old = [lines.enter_context(line(narrow.port)) for _ in range(6)]
        for raw in old:
            raw.send(head(Content_Length=str(len(TEXT))) + TEXT)
            assert raw.reply()[0] == 200
        for _ in range(400):
            with line(narrow.port) as other:
                other.send(head(Content_Length=str(len(TEXT))) + TEXT)
                assert other.reply()[0] == 200
        # As many as there are places for in the workers' memory, so that the next ones come in pieces.
        for _ in range(4):
            lines.enter_context(line(narrow.port)).send(head(Content_Length=str(12 * MB)) + b" " * (10 * MB))
        # Else what comes afterwards stays held beside it, until the patience for these four has run out.
        wait_for(lambda: held(narrow) >= 39 * MB)
        before = held(narrow)
        for raw in old:
            raw.send(head(Content_Length=str(12 * MB)) + b" " * (10 * MB))
        wait_for(lambda: held(narrow) >= before + 55 * MB)
        for raw in old:
            raw.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.connection.close()
        wait_for(lambda: held(narrow) <= before)


def test_slow_uploads_make_way_for_others(narrow: Server) -> None:
    """They hold nine tenths of the room, and come ten times as fast as they must when there is room."""
    with ExitStack() as lines:
        slow = [lines.enter_context(line(narrow.port)) for _ in range(9)]
        begun = head(Content_Length=str(40 * MB)) + b" " * (20 * MB)
        # All at once: on a slow machine the first would be in the way for a while before the last has come.
        with ThreadPoolExecutor(len(slow)) as clients:
            list(clients.map(lambda raw: raw.send(begun), slow))
        wait_for(lambda: held(narrow) > 0.75 * QUEUE_BYTES)
        end = time.monotonic() + HANG_S
        while held(narrow) > 0.75 * QUEUE_BYTES:
            assert time.monotonic() < end, "the slow uploads are still there"
            for raw in slow:
                raw.try_send(b" " * 8192)
            time.sleep(0.2)
        large = query_of(40 * MB)
        assert narrow.http.post("/v1/query", content=large, headers={"Content-Type": "application/json"}).status_code == 200
        statuses = {raw.reply()[0] for raw in slow}
        # Those that were left when there was room again stall then.
        assert 429 in statuses <= {408, 429}


def test_hundreds_of_queries_just_under_every_limit(narrow: Server) -> None:
    """400 at once, each with 98 headers of 32 KB in all and a body of 2 MB: answered, or refused with 429."""
    many = {f"X-H{index}": "v" * 315 for index in range(95)}
    request = head(Content_Length=str(2 * MB), **many) + query_of(2 * MB)

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", narrow.port)
        try:
            for start in range(0, len(request), 65_536):
                writer.write(request[start : start + 65_536])
                await writer.drain()
            return (await reader.readline())[9:12]
        finally:
            writer.close()

    async def ask_all() -> Counter[bytes]:
        return Counter(await asyncio.gather(*(ask() for _ in range(400))))

    statuses = asyncio.run(ask_all())
    assert set(statuses) <= {b"200", b"429"}
    # The room is full of those that came first, and they are let finish: there is room for 90.
    assert statuses[b"200"] >= 50


def test_freed_memory_goes_back_to_the_system(narrow: Server) -> None:
    with ThreadPoolExecutor(8) as clients:
        body = query_of(20 * MB)
        headers = {"Content-Type": "application/json"}

        def ask(_: int) -> int:
            return httpx.post(f"{narrow.url}/v1/query", content=body, headers=headers, timeout=CLIENT_LIMIT_S).status_code

        assert set(clients.map(ask, range(24))) <= {200, 429}
    wait_for(lambda: resident_bytes(narrow.process.pid) <= 200 * MB)
