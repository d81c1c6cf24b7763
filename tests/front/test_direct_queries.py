"""Roads alike in all that is seen: of a query in chunks, in two pieces, in one piece, and of each under the head of the last.

The first is that of every request; the others have no task; under a repeated head, the head is not parsed.
"""

from __future__ import annotations

import socket
import struct
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
LARGE = orjson.dumps({"operation": "neg", "inputs": {"input": [0.5] * 40_000}})
LARGE_REPLY = orjson.dumps(
    {"program": "x.sum() + zeros(600, 600)", "inputs": {"x": [1.0]}, "want": ["outputs"]},
)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COUNTED = ('pullback_requests_total{code="200",kind="vjp"}', "pullback_request_seconds_count", "pullback_received_bytes_total")
# What a reply says of the moment, and not of the query.
PASSING = ("date", "server-timing")


def in_one_piece(raw: Line, request: bytes, _: bytes) -> None:
    raw.send(request + _)


def in_chunks(raw: Line, request: bytes, body: bytes) -> None:
    start, _, rest = request.partition(b"Content-Length: %d" % len(body))
    raw.send(start + b"Transfer-Encoding: chunked" + rest)
    raw.try_send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


def in_two_pieces(raw: Line, request: bytes, body: bytes) -> None:
    raw.send(request)
    time.sleep(0.03)  # where they come together all the same, only less is compared
    raw.try_send(body)


WAYS = (in_chunks, in_two_pieces, in_one_piece)


def parsed(raw: Line) -> tuple[int, dict[str, str], Any]:
    """The reply without what passes."""
    status, headers, body = raw.reply()
    headers = {name: value for name, value in headers.items() if name not in PASSING}
    if "x-request-id" in headers and "-" in headers["x-request-id"]:  # one of the server's own
        del headers["x-request-id"]
        if isinstance(body, dict) and body.pop("request_id", None):
            del headers["content-length"]  # ids grow
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
        ({}, LARGE),
        ({"X_Request_Id": "mine", "traceparent": TRACE}, LARGE),
        ({"Origin": "http://evil.example"}, LARGE),
        ({"Content_Type": "text/plain"}, LARGE),
        ({"Content_Encoding": "gzip"}, LARGE),
        ({"Connection": "close"}, LARGE),
        ({"Expect": "100-continue"}, LARGE),
        ({}, LARGE[:-1]),
    ],
    ids=lambda value: str(value)[:80],
)
def test_all_ways_answer_alike(headers: dict[str, str], body: bytes, strict: Server) -> None:
    replies: list[list[object]] = []
    for send in WAYS:
        replies.append([])
        with line(strict.port) as raw:
            for _ in range(2):
                request = head(Content_Length=str(len(body)), **{"X_API_Key": KEY, **headers})
                send(raw, request, body)
                reply = parsed(raw)
                if reply[0] == 100:
                    reply = parsed(raw)
                replies[-1].append(reply)
                if reply[1].get("connection") == "close":
                    assert raw.is_closed()
                    break
    assert replies[0] == replies[1] == replies[2]


FOREIGN = {
    "/v2/models/softmax/infer": {
        "inputs": [{"name": "input", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}],
        "parameters": {"dim": 0},
        "outputs": [{"name": "output"}],
    },
    "/v2/models/softmax/ready": {},
    "/v2/models/no-such-model/infer": {"inputs": []},
    "/Evaluate": {"name": "rosenbrock", "input": [[1.0, 2.0]], "config": {}},
    "/Evaluate/": {"name": "rosenbrock", "input": [[1.0, 2.0]], "config": {}},
    "/tesseract/softmax/apply": {"inputs": {"input": [1.0, 2.0], "dim": 0}},
}


@pytest.mark.parametrize("path", FOREIGN)
def test_all_ways_answer_other_protocols_alike(path: str, strict: Server) -> None:
    body = orjson.dumps(FOREIGN[path])
    replies = []
    for send in WAYS:
        with line(strict.port) as raw:
            for _ in range(3):
                # A header that ends like the one of the body's length is none.
                headers = {"Content_Length": str(len(body)), "Inference_Header_Content_Length": str(len(body))}
                send(raw, head(path=path, X_API_Key=KEY, **headers), body)
                replies.append(parsed(raw))
    assert replies[:3] == replies[3:6] == replies[6:]


def test_without_a_key_all_are_refused(strict: Server) -> None:
    for send in WAYS:
        with line(strict.port) as raw:
            send(raw, head(Content_Length=str(len(TEXT))), TEXT)
            status, headers, body = raw.reply()
            assert (status, headers["www-authenticate"], body["code"]) == (401, "Bearer", "unauthorized")


def logged(server: Server, request_id: str, count: int) -> list[dict[str, Any]]:
    """The log's lines of the requests with this id, when there are so many."""

    def lines() -> list[bytes]:
        return [line for line in server.log.read_bytes().splitlines() if request_id.encode() in line]

    wait_for(lambda: len(lines()) == count)
    return [orjson.loads(line) for line in lines()]


def asked_before(raw: Line, **headers: str) -> None:
    """A query has been answered on this connection, under a head that the next one may have too."""
    raw.send(head(Content_Length=str(len(TEXT)), **headers) + TEXT)
    assert raw.reply()[0] == 200


repeated = pytest.mark.parametrize("is_repeated", [False, True], ids=["new", "repeated"])


@pytest.mark.parametrize("body", [TEXT, LARGE], ids=["small", "large"])
def test_all_are_counted_and_logged_alike(server: Server, body: bytes) -> None:
    lines = []
    for send in WAYS:
        name = f"{send.__name__}-{len(body)}"
        before = [metric(server.http, name) for name in COUNTED]
        with line(server.port) as raw:
            for _ in range(2):
                send(raw, head(Content_Length=str(len(body)), X_Request_Id=name, traceparent=TRACE), body)
                assert raw.reply()[0] == 200
        lines += logged(server, name, 2)
        after = [metric(server.http, name) for name in COUNTED]
        assert [now - then for now, then in zip(after, before, strict=True)] == [2 * (body is TEXT), 2, 2 * len(body)]
    assert all(entry.keys() == lines[0].keys() for entry in lines)
    same = ("level", "event", "method", "path", "status", "bytes_in", "bytes_out", "worker", "operation", "want", "trace_id")
    assert all([entry[name] for name in same] == [lines[0][name] for name in same] for entry in lines)


def test_bodies_of_every_length_under_one_head(server: Server) -> None:
    with line(server.port) as raw:
        for count in (1, 2, 30, 400, 1, 5000, 30, 40_000, 2, 200_000, 7, 40_000, 40_000):
            body = orjson.dumps({"operation": "neg", "inputs": {"input": [float(n) for n in range(count)]}})
            raw.send(head(Content_Length=str(len(body))) + body)
            assert [-value for value in raw.reply()[2]["outputs"]["output"]["data"]] == list(range(count))


@pytest.mark.parametrize("length", ["0", "00{}", "+{}", "-1", "{},{}", "{}0", "999999999", "{} "])
def test_another_length_than_the_bodys_under_a_repeated_head(length: str, server: Server) -> None:
    request = head(Content_Length=length.format(len(TEXT), len(TEXT))) + TEXT
    replies = []
    for is_repeated in (False, True):
        with line(server.port) as raw:
            if is_repeated:
                asked_before(raw)
            raw.send(request)
            raw.connection.shutdown(socket.SHUT_WR)
            status, _, body = raw.reply()
            replies.append((status, body.get("code")))
    assert replies[0] == replies[1]


@pytest.mark.parametrize("body", [TEXT, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("behind_head", [-60, -30, -1, 0, 1, len(TEXT) - 1])
def test_a_repeated_head_that_comes_in_two_pieces(behind_head: int, body: bytes, server: Server) -> None:
    with line(server.port) as raw:
        asked_before(raw)
        request = head(Content_Length=str(len(body)))
        whole, place = request + body, len(request) + behind_head
        raw.send(whole[:place])
        time.sleep(0.03)  # where they come together all the same, only less is tried
        raw.send(whole[place:])
        assert raw.reply()[0] == 200
        asked_before(raw)


def test_the_next_query_comes_with_the_end_of_a_large_body(server: Server) -> None:
    """Under a repeated head, and behind it: no byte of one body is taken for another's."""
    bodies = [LARGE, TEXT, LARGE, LARGE, TEXT]
    whole = b"".join(head(Content_Length=str(len(body))) + body for body in bodies)
    with line(server.port) as raw:
        asked_before(raw)
        raw.send(whole)
        assert [len(orjson.dumps(raw.reply()[2])) > 10_000 for _ in bodies] == [body is LARGE for body in bodies]


def send_half(raw: Line, body: bytes, request_id: str, is_repeated: bool) -> None:
    """A head and half of its body; where `is_repeated`, behind another query under that head."""
    if is_repeated:
        asked_before(raw, X_Request_Id=request_id)
    raw.send(head(Content_Length=str(len(body)), X_Request_Id=request_id) + body[: len(body) // 2])


@repeated
@pytest.mark.parametrize("body", [TEXT, LARGE], ids=["small", "large"])
def test_a_body_that_ends_early(server: Server, body: bytes, is_repeated: bool) -> None:
    request_id = f"early-{is_repeated}-{len(body)}"
    with line(server.port) as raw:
        send_half(raw, body, request_id, is_repeated)
        time.sleep(0.03)  # where they come together all the same, only less is tried
        raw.connection.shutdown(socket.SHUT_WR)
        status, headers, problem = raw.reply()
        assert (status, problem["code"], headers["connection"]) == (400, "bad_request", "close")
        assert headers["x-request-id"] == request_id
    assert logged(server, request_id, 1 + is_repeated)[-1]["status"] == 400
    wait_for(lambda: metric(server.http, "pullback_queue_bytes") == 0)


@repeated
@pytest.mark.parametrize("body", [TEXT, LARGE], ids=["small", "large"])
def test_whoever_hangs_up_amid_a_body(server: Server, body: bytes, is_repeated: bool) -> None:
    request_id = f"amid-{is_repeated}-{len(body)}"
    with line(server.port) as raw:
        send_half(raw, body, request_id, is_repeated)
        wait_for(lambda: metric(server.http, "pullback_queue_bytes") > 0)
        raw.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    assert logged(server, request_id, 1 + is_repeated)[-1]["status"] == 499
    wait_for(lambda: metric(server.http, "pullback_queue_bytes") == 0)


@repeated
def test_a_body_that_stalls(impatient: Server, is_repeated: bool) -> None:
    request_id = f"stalled-{is_repeated}"
    with line(impatient.port) as raw:
        if is_repeated:
            asked_before(raw, X_Request_Id=request_id)
        raw.send(head(Content_Length=str(len(LARGE)), X_Request_Id=request_id) + LARGE[:100_000])
        status, _, problem = raw.reply()
        assert (status, problem["code"], problem["request_id"]) == (408, "body_timeout", request_id)
        assert raw.is_closed()
    entry = logged(impatient, request_id, 1 + is_repeated)[-1]
    assert (entry["status"], entry["code"]) == (408, "body_timeout")
    wait_for(lambda: metric(impatient.http, "pullback_queue_bytes") == 0)


def test_a_key_that_is_wrong_under_an_otherwise_repeated_head(strict: Server) -> None:
    with line(strict.port) as raw:
        for key, status in (
            (KEY, 200),
            (KEY, 200),
            (KEY[:-1] + "X", 401),
            (KEY, 200),
            ("another", 200),
            ("unknown", 401),
            (KEY, 200),
        ):
            raw.send(head(Content_Length=str(len(TEXT)), X_API_Key=key) + TEXT)
            assert raw.reply()[0] == status


def test_every_reply_has_an_id_and_the_date_of_its_own(server: Server) -> None:
    ids, dates = set(), set()

    def ask(raw: Line) -> int:
        raw.send(head(Content_Length=str(len(TEXT))) + TEXT)
        _, headers, _ = raw.reply()
        ids.add(headers["x-request-id"])
        dates.add(headers["date"])
        return len(dates)

    with line(server.port) as raw:
        count = 1
        ask(raw)
        while len(dates) < 2:  # the clock goes on
            ask(raw)
            count += 1
    assert len(ids) == count


@repeated
def test_whoever_hangs_up_is_not_computed_for(server: Server, is_repeated: bool) -> None:
    body, request_id = orjson.dumps(endless()), f"hung-up-{is_repeated}"
    with line(server.port) as raw:
        if is_repeated:
            asked_before(raw, X_Request_Id=request_id)
        raw.send(head(Content_Length=str(len(body)), X_Request_Id=request_id) + body)
        wait_for(lambda: metric(server.http, 'pullback_workers{state="busy"}') >= 1)
    assert logged(server, request_id, 1 + is_repeated)[-1]["status"] == 499
    wait_for(lambda: metric(server.http, 'pullback_workers{state="busy"}') == 0)
    wait_for(lambda: metric(server.http, "pullback_queue_bytes") == 0)
    assert server.http.post("/v1/query", json=SMALL).status_code == 200


def test_a_deadline_ends_it_in_the_same_words(server: Server) -> None:
    bodies = []
    for send, is_repeated in ((in_one_piece, False), (in_two_pieces, False), (in_one_piece, True)):
        with line(server.port) as raw:
            if is_repeated:
                asked_before(raw, X_Request_Id="late")
            body = orjson.dumps({**endless(), "timeout_s": 0.2})
            send(raw, head(Content_Length=str(len(body)), X_Request_Id="late"), body)
            bodies.append(raw.reply()[::2])
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0][1]["code"] == "deadline_exceeded"


def test_a_body_beyond_the_limit_in_one_piece(strict: Server) -> None:
    with line(strict.port) as raw:
        raw.send(head(Content_Length=str(BODY_LIMIT + 1), X_API_Key=KEY) + b" " * 1000)
        assert raw.reply()[0] == 413
