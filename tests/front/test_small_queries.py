"""A query that comes in one piece is answered without a task, and one that comes in two by the other road: both alike, in all that is seen."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from tests.front.conftest import BODY_LIMIT, KEY
from tests.front.raw import Line, head, line
from tests.pool.long_queries import endless
from tests.pool.queries import SMALL, metric
from tests.server import Server
from tests.waiting import wait_for

TEXT = orjson.dumps(SMALL)
LARGE_REPLY = orjson.dumps(
    {"program": "x.sum() + zeros(600, 600)", "inputs": {"x": [1.0]}, "want": ["outputs"]},
)
# What a reply says of the moment, and not of the query.
PASSING = ("date", "server-timing")


def in_one_piece(raw: Line, request: bytes, _: bytes) -> None:
    raw.send(request + _)


def in_two_pieces(raw: Line, request: bytes, body: bytes) -> None:
    raw.send(request)
    time.sleep(0.03)  # where they come together all the same, only less is compared
    raw.try_send(body)


def told(raw: Line) -> tuple[int, dict[str, str], Any]:
    """The reply without what passes."""
    status, headers, body = raw.reply()
    headers = {name: value for name, value in headers.items() if name not in PASSING}
    if "x-request-id" in headers and "-" in headers["x-request-id"]:  # one of the server's own
        del headers["x-request-id"]
        if isinstance(body, dict):
            body.pop("request_id", None)
    return status, headers, body


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, TEXT),
        ({"X_Request_Id": "mine"}, TEXT),
        ({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, TEXT),
        ({"Origin": "https://notebook.example"}, TEXT),
        ({"Origin": "http://evil.example"}, TEXT),
        ({"Content_Type": "application/json; charset=utf-8"}, TEXT),
        ({"Content_Type": "text/plain"}, TEXT),
        ({"Content_Encoding": "br"}, TEXT),
        ({"Content_Encoding": "gzip"}, TEXT),
        ({"Accept": "application/vnd.safetensors;q=0.1, application/json"}, TEXT),
        ({"Accept": "text/html"}, TEXT),
        ({"Connection": "close"}, TEXT),
        ({"Expect": "100-continue"}, TEXT),
        ({"Authorization": "Bearer wrong"}, TEXT),
        ({"Cookie": "a=b"}, b"{}"),
        ({}, b"{"),
        ({}, b'{"operation": "softmaxx", "inputs": {"input": [1.0]}}'),
        ({}, b'{"operation": "softmax", "inputs": {"input": [1.0]}, "parameters": {"dim": 5}}'),
        ({}, LARGE_REPLY),
    ],
    ids=str,
)
def test_both_ways_answer_alike(headers: dict[str, str], body: bytes, strict: Server) -> None:
    replies = []
    for send in (in_one_piece, in_two_pieces):
        with line(strict.port) as raw:
            for _ in range(2):
                request = head(Content_Length=str(len(body)), **{"X_API_Key": KEY, **headers})
                send(raw, request, body)
                reply = told(raw)
                if reply[0] == 100:
                    reply = told(raw)
                replies.append(reply)
                if reply[1].get("connection") == "close":
                    assert raw.is_closed()
                    break
    half = len(replies) // 2
    assert replies[:half] == replies[half:]


def test_without_a_key_both_are_refused(strict: Server) -> None:
    for send in (in_one_piece, in_two_pieces):
        with line(strict.port) as raw:
            send(raw, head(Content_Length=str(len(TEXT))), TEXT)
            status, headers, body = raw.reply()
            assert (status, headers["www-authenticate"], body["code"]) == (401, "Bearer", "unauthorized")


def _wait_for_log(server: Server, word: str) -> None:
    wait_for(lambda: word.encode() in server.log.read_bytes())


def test_both_are_counted_and_logged_alike(server: Server) -> None:
    lines = []
    for name, send in (("one-piece", in_one_piece), ("two-pieces", in_two_pieces)):
        before = metric(server.http, 'pullback_requests_total{code="200",kind="vjp"}')
        with line(server.port) as raw:
            send(raw, head(Content_Length=str(len(TEXT)), X_Request_Id=name), TEXT)
            assert raw.reply()[0] == 200
        _wait_for_log(server, name)
        assert metric(server.http, 'pullback_requests_total{code="200",kind="vjp"}') == before + 1
        lines.append(next(orjson.loads(entry) for entry in server.log.read_bytes().splitlines() if name.encode() in entry))
    assert lines[0].keys() == lines[1].keys()
    same = ("level", "event", "method", "path", "status", "bytes_in", "bytes_out", "worker", "operation", "want")
    assert [lines[0][name] for name in same] == [lines[1][name] for name in same]


def test_whoever_hangs_up_is_not_computed_for(server: Server) -> None:
    body = orjson.dumps(endless())
    with line(server.port) as raw:
        raw.send(head(Content_Length=str(len(body)), X_Request_Id="hung-up") + body)
        wait_for(lambda: metric(server.http, 'pullback_workers{state="busy"}') >= 1)
    _wait_for_log(server, "hung-up")
    entry = next(orjson.loads(entry) for entry in server.log.read_bytes().splitlines() if b"hung-up" in entry)
    assert entry["status"] == 499
    wait_for(lambda: metric(server.http, 'pullback_workers{state="busy"}') == 0)
    wait_for(lambda: metric(server.http, "pullback_queue_bytes") == 0)
    assert server.http.post("/v1/query", json=SMALL).status_code == 200


def test_a_deadline_ends_it_in_the_same_words(server: Server) -> None:
    bodies = []
    for send in (in_one_piece, in_two_pieces):
        with line(server.port) as raw:
            body = orjson.dumps({**endless(), "timeout_s": 0.2})
            send(raw, head(Content_Length=str(len(body)), X_Request_Id="late"), body)
            bodies.append(raw.reply()[::2])
    assert bodies[0] == bodies[1]
    assert bodies[0][1]["code"] == "deadline_exceeded"


def test_a_body_beyond_the_limit_in_one_piece(strict: Server) -> None:
    with line(strict.port) as raw:
        raw.send(head(Content_Length=str(BODY_LIMIT + 1), X_API_Key=KEY) + b" " * 1000)
        assert raw.reply()[0] == 413
