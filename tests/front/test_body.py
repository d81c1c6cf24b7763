"""Bodies: limits of size and time, admission by bytes and count, large uploads beside small queries."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import httpx
import numpy as np
import orjson
import pytest
from safetensors.numpy import save

from app.front.http.http_refusals import CHUNK_LIMIT
from tests.front.conftest import BODY_LIMIT, KEY, PATIENCE_S
from tests.front.raw import head, line
from tests.pool.long_queries import asked, endless
from tests.pool.queries import SMALL, metric
from tests.server import Server
from tests.waiting import wait_for

TEXT = orjson.dumps(SMALL)


def test_a_declared_body_over_the_limit_is_refused_before_it_comes(strict: Server) -> None:
    with line(strict.port) as raw:
        raw.send(head(X_API_Key=KEY, Content_Length=str(BODY_LIMIT + 1)))
        status, headers, problem = raw.reply()
        assert (status, problem["code"]) == (413, "body_too_large")
        assert headers["connection"] == "close"
        assert str(BODY_LIMIT) in problem["expected"]


def test_a_client_that_sends_it_all_the_same_reads_the_refusal(keyed: httpx.Client) -> None:
    reply = keyed.post("/v1/query", content=b"x" * 20_000_000, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large")


def test_a_chunked_body_over_the_limit_is_refused_as_soon_as_it_is(keyed: httpx.Client) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 100_000
            yield b" " * 100_000

    reply = keyed.post("/v1/query", content=chunks(), headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large")


def test_a_chunked_body_is_a_body(keyed: httpx.Client) -> None:
    pieces = (TEXT[start : start + 7] for start in range(0, len(TEXT), 7))
    reply = keyed.post("/v1/query", content=pieces, headers={"Content-Type": "application/json"})
    assert reply.status_code == 200
    assert reply.json() == keyed.post("/v1/query", json=SMALL).json()


STALLS: Final = {
    "headers": head()[:-2],
    "a short body, nothing of it": head(Content_Length="100"),
    "a short body, its beginning": head(Content_Length="100") + b'{"operation"',
    "a long body, nothing of it": head(Content_Length=str(BODY_LIMIT)),
    "a long body, its beginning": head(Content_Length=str(BODY_LIMIT)) + b'{"operation"',
}


def test_what_stalls_is_refused(impatient: Server) -> None:
    """All at once: each is refused after its time, not before, and the connection is closed."""
    with ExitStack() as stack:
        start = time.monotonic()
        stalled = {name: stack.enter_context(line(impatient.port)) for name in STALLS}
        for name, raw in stalled.items():
            raw.send(STALLS[name])
        for name, raw in stalled.items():
            status, headers, problem = raw.reply()
            assert (status, problem["code"]) == (408, "body_timeout"), name
            assert headers["connection"] == "close"
            assert time.monotonic() - start > 0.9 * PATIENCE_S
            assert raw.is_closed()


def test_a_byte_now_and_then_is_a_stall_too(impatient: Server) -> None:
    with line(impatient.port) as raw:
        raw.send(head(Content_Length="100000"))
        sent = 0
        while raw.is_silent():
            assert sent < 1000, "it may go on for ever"
            raw.try_send(b"x")
            sent += 1
            time.sleep(0.2)
        status, _, problem = raw.reply()
        assert (status, problem["code"]) == (408, "body_timeout")


def test_too_many_tiny_chunks(strict: Server) -> None:
    with line(strict.port) as raw:
        raw.send(head(X_API_Key=KEY, Transfer_Encoding="chunked"))
        raw.try_send(b"1\r\n \r\n" * (CHUNK_LIMIT + 10))
        status, _, problem = raw.reply()
        assert (status, problem["code"]) == (400, "bad_request")


@pytest.mark.parametrize("size", [200_000, BODY_LIMIT])
def test_a_client_that_leaves_while_it_uploads(strict: Server, keyed: httpx.Client, size: int) -> None:
    with line(strict.port) as raw:
        raw.send(head(X_API_Key=KEY, Content_Length=str(size)) + b"x" * 20_000)
        wait_for(lambda: metric(keyed, "pullback_queue_bytes") >= 20_000)
        raw.send(b"x" * 10_000)
        # What has come, in whole pieces, and nothing for what is only declared.
        wait_for(lambda: metric(keyed, "pullback_queue_bytes") >= 30_000)
        assert metric(keyed, "pullback_queue_bytes") <= 30_000 + 65_536
    wait_for(lambda: metric(keyed, "pullback_queue_bytes") == 0)


def test_requests_follow_a_large_body_on_the_same_connection(server: Server) -> None:
    large = TEXT[:-1] + b" " * 5_000_000 + b"}"
    with line(server.port) as raw:
        asked = [large, TEXT, large, TEXT]
        for body in asked[:2]:
            raw.send(head(Content_Length=str(len(body))) + body)
        answers = [raw.reply() for _ in asked[:2]]
        # All at once: the next request stands in the same packets as the end of the body before it.
        raw.send(b"".join(head(Content_Length=str(len(body))) + body for body in asked[2:]))
        answers += [raw.reply() for _ in asked[2:]]
        assert [status for status, _, _ in answers] == [200] * 4
        assert all(answer == answers[0][2] for _, _, answer in answers)


def test_a_client_that_does_not_read_its_reply_is_cut(impatient: Server) -> None:
    query = orjson.dumps({"program": "return ones(6000000)"})
    with line(impatient.port) as raw:
        raw.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.send(head(Accept="application/vnd.safetensors", Content_Length=str(len(query))) + query)
        wait_for(lambda: metric(impatient.http, "pullback_queue_bytes") > 48_000_000)
        wait_for(lambda: metric(impatient.http, 'pullback_workers{state="idle"}') == 1)
        wait_for(lambda: metric(impatient.http, "pullback_queue_bytes") == 0)


def test_a_full_queue(strict: Server, keyed: httpx.Client) -> None:
    """One worker, perhaps another for light work, and two that may wait: of eight long queries some are refused, while others run."""
    with asked(strict, [endless(n) for n in range(5000, 5008)], X_API_Key=KEY) as long:
        wait_for(lambda: sum(not raw.is_silent() for raw in long) >= 3)
        answered = [raw for raw in long if not raw.is_silent()]
        assert len(answered) < len(long), "they were refused at their deadline, not at once"
        for raw in answered:
            status, headers, problem = raw.reply()
            assert (status, problem["code"]) == (429, "queue_full")
            assert int(headers["retry-after"]) >= 1
    wait_for(lambda: metric(keyed, "pullback_queue_length") == 0)
    assert keyed.post("/v1/query", json=SMALL).status_code == 200


def test_too_many_bytes_at_once(strict: Server, keyed: httpx.Client) -> None:
    """A large body finds no room beside one that came before it; a small query does."""
    large = head(X_API_Key=KEY, Content_Length=str(BODY_LIMIT)) + b" " * (BODY_LIMIT - 1)
    with line(strict.port) as first, line(strict.port) as second:
        first.send(large)
        wait_for(lambda: metric(keyed, "pullback_queue_bytes") >= BODY_LIMIT - 1)
        second.send(large)
        status, headers, problem = second.reply()
        assert (status, problem["code"]) == (429, "queue_full")
        assert int(headers["retry-after"]) >= 1
        assert keyed.post("/v1/query", json=SMALL).status_code == 200
        first.send(b" ")
        assert first.reply()[0] == 400
    assert keyed.post("/v1/query", json=SMALL).status_code == 200


def test_two_large_uploads_do_not_stall_a_small_query(server: Server) -> None:
    """100 MB of JSON and of safetensors; with one worker a small query may have to wait for one to be read, never for the network."""
    values = np.random.default_rng(0).standard_normal(1 << 20)
    text = b'{"operation": "exp", "inputs": {"input": ' + orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY) + b"}, "
    as_json = text + b'"encoding": "base64"' + b" " * (100_000_000 - len(text)) + b"}"
    binary = save({"inputs.input": np.zeros(12_500_000)}, {"query": '{"operation": "sum", "want": ["outputs"]}'})
    bodies = {"application/json": as_json, "application/vnd.safetensors": binary}

    def upload(kind: str) -> int:
        with line(server.port) as raw:
            raw.send(head(Content_Type=kind, Content_Length=str(len(bodies[kind]))))
            raw.send(bodies[kind])
            return raw.response()[0]

    # Some 250 are answered while the uploads last, whatever the machine's pace; a handful where each waits for the network.
    answered = 0
    with ThreadPoolExecutor(2) as clients:
        uploads = [clients.submit(upload, kind) for kind in bodies]
        while not all(future.done() for future in uploads):
            assert server.http.get("/health/ready").status_code == 200
            assert server.http.post("/v1/query", json=SMALL).status_code == 200
            answered += 1
            time.sleep(0.003)  # who asks without a rest takes the processors from the uploads: 700 then
    assert [future.result() for future in uploads] == [200, 200]
    assert answered >= 20
