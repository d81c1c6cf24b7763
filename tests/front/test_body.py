"""Bodies: limits of size and time, admission by bytes and count, large uploads beside small queries."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest
from safetensors.numpy import save

from app.front.http.connection_refusals import CHUNK_LIMIT
from tests.front.conftest import BODY_LIMIT, KEY
from tests.front.raw import head, line
from tests.pool.questions import SMALL, heavy, metric
from tests.server import Server

# From a process of its own, so that the client of the small queries has this one to itself.
UPLOAD = """
import sys, httpx
with open(sys.argv[2], "rb") as file:
    body = file.read()
reply = httpx.post(sys.argv[1], content=body, headers={"Content-Type": sys.argv[3]}, timeout=60)
sys.exit(reply.status_code != 200)
"""
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


@pytest.mark.parametrize("declared", ["100", str(BODY_LIMIT)])
@pytest.mark.parametrize("sent", [b"", b'{"operation"'])
def test_a_body_that_stalls(strict: Server, sent: bytes, declared: str) -> None:
    with line(strict.port) as raw:
        start = time.monotonic()
        raw.send(head(X_API_Key=KEY, Content_Length=declared) + sent)
        status, headers, problem = raw.reply()
        assert (status, problem["code"]) == (408, "body_timeout")
        assert headers["connection"] == "close"
        assert time.monotonic() - start > 0.9
        assert raw.is_closed()


def test_headers_that_stall(strict: Server) -> None:
    with line(strict.port) as raw:
        raw.send(head(X_API_Key=KEY)[:-2])
        status, _, problem = raw.reply()
        assert (status, problem["code"]) == (408, "body_timeout")


def test_a_byte_now_and_then_is_a_stall_too(strict: Server) -> None:
    with line(strict.port) as raw:
        raw.send(head(X_API_Key=KEY, Content_Length="1000"))
        start = time.monotonic()
        raw.connection.settimeout(0.2)
        while time.monotonic() - start < 5:
            raw.try_send(b"x")
            try:
                status, _, _ = raw.reply()
                break
            except TimeoutError:
                continue
        assert status == 408
        assert time.monotonic() - start < 3


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
        time.sleep(0.1)
        raw.send(b"x" * 10_000)
        time.sleep(0.1)
        # What has come, in whole pieces, and nothing for what is only declared.
        assert 30_000 <= metric(keyed, "pullback_queue_bytes") <= 30_000 + 65_536
    time.sleep(0.1)
    assert metric(keyed, "pullback_queue_bytes") == 0


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


def test_a_client_that_does_not_read_its_reply_is_cut(strict: Server, keyed: httpx.Client) -> None:
    query = orjson.dumps({"program": "return ones(6000000)"})
    with line(strict.port) as raw:
        raw.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.send(head(X_API_Key=KEY, Accept="application/vnd.safetensors", Content_Length=str(len(query))) + query)
        time.sleep(0.7)
        assert metric(keyed, "pullback_queue_bytes") > 48_000_000
        assert metric(keyed, 'pullback_workers{state="idle"}') == 1
        time.sleep(2)
        assert metric(keyed, "pullback_queue_bytes") == 0


def test_a_full_queue(strict: Server, keyed: httpx.Client) -> None:
    """One worker, perhaps another for light work, and two that may wait: of eight long queries at once some are refused, and at once."""

    def ask(_: int) -> tuple[httpx.Response, float]:
        start = time.monotonic()
        reply = keyed.post("/v1/query", json=heavy(timeout_s=2))
        return reply, time.monotonic() - start

    with ThreadPoolExecutor(8) as clients:
        replies = list(clients.map(ask, range(8)))
    refused = [(reply, seconds) for reply, seconds in replies if reply.status_code == 429]
    assert len(refused) >= 3
    assert {reply.status_code for reply, _ in replies} == {429, 504}
    for reply, seconds in refused:
        assert reply.json()["code"] == "queue_full"
        assert int(reply.headers["retry-after"]) >= 1
        assert seconds < 1.9, "it was refused at its deadline, not at once"
    assert keyed.post("/v1/query", json=SMALL).status_code == 200
    assert metric(keyed, "pullback_queue_length") == 0


def test_too_many_bytes_at_once(strict: Server, keyed: httpx.Client) -> None:
    with line(strict.port) as first, line(strict.port) as second:
        for raw in (first, second):
            raw.send(head(X_API_Key=KEY, Content_Length=str(BODY_LIMIT)) + b" " * (BODY_LIMIT - 1))
        time.sleep(0.05)
        reply = keyed.post("/v1/query", json=SMALL)
        assert (reply.status_code, reply.json()["code"]) == (429, "queue_full")
    time.sleep(0.1)
    assert keyed.post("/v1/query", json=SMALL).status_code == 200


def test_two_large_uploads_do_not_stall_a_small_query(server: Server, tmp_path: Path) -> None:
    """100 MB of JSON and of safetensors; with one worker a small query may have to wait for one to be read, never for the network."""
    values = np.random.default_rng(0).standard_normal(1 << 20)
    text = b'{"operation": "exp", "inputs": {"input": ' + orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY) + b"}, "
    as_json = text + b'"encoding": "base64"' + b" " * (100_000_000 - len(text)) + b"}"
    binary = save({"inputs.input": np.zeros(12_500_000)}, {"query": '{"operation": "sum", "want": ["outputs"]}'})
    uploads = []
    for name, body, kind in (("json", as_json, "application/json"), ("binary", binary, "application/vnd.safetensors")):
        (tmp_path / name).write_bytes(body)
        command = [sys.executable, "-c", UPLOAD, f"{server.url}/v1/query", str(tmp_path / name), kind]
        uploads.append(subprocess.Popen(command))
    times = []
    while any(upload.poll() is None for upload in uploads):
        start = time.monotonic()
        assert server.http.get("/health/ready").status_code == 200
        assert server.http.post("/v1/query", json=SMALL).status_code == 200
        times.append(time.monotonic() - start)
    assert [upload.returncode for upload in uploads] == [0, 0]
    # While one worker reads 100 MB of JSON the others' queries wait for it; the median says that no other time stands still.
    assert sorted(times)[len(times) // 2] < 0.1
