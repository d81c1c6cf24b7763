"""HTTP, byte by byte, at a real server: requests cut at every place and requests that are nearly right; whatever comes, it answers or hangs up.

After each, the server answers a good query.
"""

from __future__ import annotations

import gzip
import itertools
import re
import socket
import time
from collections.abc import Iterator
from typing import Final

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pool.queries import SMALL
from tests.server import Server
from tests.share import is_whole
from tests.waiting import HANG_S

TEXT: Final = orjson.dumps(SMALL)
PACKED: Final = gzip.compress(TEXT, mtime=0)
HOST: Final = b"Host: localhost\r\n"
REQUESTS: Final = {
    "declared": b"POST /v1/query HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(TEXT) + TEXT,
    "chunked": b"POST /v1/query HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"".join(
        b"%x;a=b\r\n%b\r\n" % (len(TEXT[start : start + 30]), TEXT[start : start + 30]) for start in range(0, len(TEXT), 30)
    )
    + b"0\r\nDigest: x\r\n\r\n",
    "upgrade": b"POST /v1/query HTTP/1.1\r\n"
    + HOST
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(TEXT)
    + TEXT,
    "packed": b"POST /v1/query HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: gzip, chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(PACKED), PACKED),
    "list": b"POST /v1/queries HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n[%b]" % (len(TEXT) + 2, TEXT),
    "page": b"GET /v1/operations/exp HTTP/1.1\r\n" + HOST + b"Accept: */*\r\n\r\n",
}
# What may be answered to something that is nearly a query; 5xx only where nothing of ours is broken.
STATUSES: Final = frozenset({200, 204, 307, 308, 400, 401, 403, 404, 405, 406, 408, 413, 415, 422, 429, 431, 504, 507})
SETTINGS: Final = settings(
    max_examples=500 if is_whole() else 200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def _answers_afterwards(server: Server) -> Iterator[None]:
    yield
    assert server.http.post("/v1/query", json=SMALL).status_code == 200


def exchanged(port: int, pieces: list[bytes], pause_s: float = 0.0) -> bytes:
    """All that comes back for these pieces; the client then sends no more, and waits until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), HANG_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                received += data
        except (ConnectionResetError, BrokenPipeError):
            return received
        return received


def statuses(received: bytes) -> list[int]:
    """Those of the responses in what has come; each must be whole, and nothing may stand between or behind them."""
    codes = []
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        assert end, received
        match = re.match(rb"HTTP/1\.1 (\d{3}) [\w -]+(\r\n|$)", head)
        assert match, head
        status = int(match[1])
        size = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        assert size or status in (100, 204), head
        length = int(size[1]) if size else 0
        assert len(rest) >= length, "a response is cut"
        if b"problem+json" in head:
            problem = orjson.loads(rest[:length])
            assert problem["status"] == status
            assert problem["code"] not in ("internal", "worker_crashed"), problem
        received = rest[length:]
        if status != 100:
            codes.append(status)
    return codes


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_cut_at_any_place_and_ends_there_is_refused(server: Server, name: str) -> None:
    request = REQUESTS[name]
    assert statuses(exchanged(server.port, [request])) == [200]
    assert exchanged(server.port, []) == b""
    for place in range(1, len(request)):
        assert statuses(exchanged(server.port, [request[:place]])) == [400], place


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_cut_at_any_place_and_goes_on_is_answered(server: Server, name: str) -> None:
    """Two requests, so that the cut also falls between and behind them; a pause lets the server see the first part alone."""
    request = REQUESTS[name]
    for place in range(1, len(request) + 3):
        both = request + REQUESTS["declared"]
        assert statuses(exchanged(server.port, [both[:place], both[place:]], pause_s=0.001)) == [200, 200], place


@pytest.mark.parametrize("name", REQUESTS)
def test_one_byte_at_a_time(server: Server, name: str) -> None:
    pieces = [bytes([byte]) for byte in REQUESTS[name] * 2]
    assert statuses(exchanged(server.port, pieces)) == [200, 200]


_TOKENS: Final = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"00", b"-1", b"+5", b"0x10", b"f" * 17, b"1" * 20, b"\xff\xfe", b"{", b"}",
    b"\r\n\r\n", b"0\r\n\r\n", b"POST", b"GET ", b"PUT", b"CONNECT a:1 ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/9",
    b"Content-Length: 5\r\n", b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive, Upgrade\r\n", b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"Host: evil\r\n",
    b"Host: localhost\r\n", b"Content-Encoding: gzip\r\n", b"Content-Type: text/plain\r\n", b"Content-Type: application/vnd.safetensors\r\n",
    b"Accept: application/vnd.safetensors\r\n", b"Origin: null\r\n", b" folded: x\r\n", b"a:\r\n", b"/v1/queries", b"http://a/v1/query", b"*", b"%00",
    b"%", b"?a=b#c", b"//", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
)  # fmt: skip


@st.composite
def nearly_requests(draw: st.DrawFn) -> bytes:
    """One or two good requests in which up to four places are damaged."""
    data = b"".join(draw(st.lists(st.sampled_from(list(REQUESTS.values())), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 2, 7, 30])))
        instead = draw(st.one_of(st.sampled_from(_TOKENS), st.binary(max_size=4), st.just(data[start:end] * 2)))
        data = data[:start] + instead + data[end:]
    return data


@SETTINGS
@given(data=nearly_requests(), places=st.lists(st.integers(0, 2000), max_size=2))
def test_nearly_good_requests_are_answered_or_refused(server: Server, data: bytes, places: list[int]) -> None:
    marks = [0, *sorted({min(place, len(data)) for place in places}), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(marks)]
    assert set(statuses(exchanged(server.port, pieces))) <= STATUSES


@settings(SETTINGS, max_examples=200)
@given(data=st.binary(max_size=400))
def test_noise_is_refused(server: Server, data: bytes) -> None:
    assert set(statuses(exchanged(server.port, [data]))) <= {400, 403, 404}
