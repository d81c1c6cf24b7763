"""HTTP/1.1 as clients really speak it, byte by byte; after each test the server answers a good query.

What is said on a connection is said twice: on a new one, and on one that has sent a query before, whose head is not parsed when it comes
again.
"""

from __future__ import annotations

import gzip
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import orjson
import pytest

from app.front.http.http_refusals import HEADER_BYTES_LIMIT
from tests.front import raw as by_hand
from tests.front.conftest import BODY_LIMIT, KEY
from tests.front.raw import Line, head, line
from tests.pool.long_queries import asked, endless
from tests.pool.queries import SMALL, heavy, metric
from tests.server import CLIENT_LIMIT_S, Server
from tests.waiting import wait_for

TEXT = orjson.dumps(SMALL)
QUERY = head(Content_Length=str(len(TEXT))) + TEXT
CHUNKED = b"%x\r\n%b\r\n0\r\n" % (len(TEXT), TEXT)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if line.__name__ in metafunc.function.__code__.co_names:
        metafunc.parametrize("_is_repeated", [False, True], indirect=True, ids=["new", "repeated"])


@contextmanager
def used_line(port: int) -> Iterator[Line]:
    """A connection that has sent a query, and its answer: a refusal, where the server wants a key."""
    with by_hand.line(port) as raw:
        raw.send(QUERY)
        assert raw.reply()[0] in (200, 401)
        yield raw


@pytest.fixture(autouse=True)
def _is_repeated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if getattr(request, "param", False):
        monkeypatch.setattr("tests.front.test_connection.line", used_line)


@pytest.fixture(autouse=True)
def _answers_afterwards(server: Server) -> Iterator[None]:
    yield
    assert server.http.post("/v1/query", json=SMALL).status_code == 200


@pytest.fixture
def answer(server: Server) -> object:
    return server.http.post("/v1/query", json=SMALL).json()["vjp"]


def ended(raw: Line) -> Line:
    """The client has sent all that it will send."""
    raw.connection.shutdown(socket.SHUT_WR)
    return raw


# --- the end of what the client sends ------------------------------------------------------------------------------------


def test_a_half_closed_connection_gets_its_answer(server: Server, answer: object) -> None:
    with line(server.port) as raw:
        raw.send(QUERY)
        status, _, body = ended(raw).reply()
        assert (status, body["vjp"]) == (200, answer)
        assert raw.is_closed()


def test_all_queries_before_the_half_close_are_answered(server: Server, answer: object) -> None:
    with line(server.port) as raw:
        raw.send(QUERY * 5)
        ended(raw)
        assert [raw.reply()[2]["vjp"] for _ in range(5)] == [answer] * 5
        assert raw.is_closed()


def test_a_half_closed_connection_waits_for_a_long_query(server: Server) -> None:
    """Longer than it takes until the server asks whether anyone is there: then an interim response comes first."""
    for seconds in (2, 20, 100):  # on a machine where the server is later than that to ask, longer
        body = orjson.dumps(heavy(timeout_s=seconds))
        with line(server.port) as raw:
            raw.send(head(Content_Length=str(len(body))) + body)
            statuses = [ended(raw).reply()[0]]
            if statuses == [100]:
                statuses.append(raw.reply()[0])
                break
    assert statuses == [100, 504]


def test_whoever_closes_altogether_is_not_waited_for(server: Server) -> None:
    gone = metric(server.http, 'pullback_worker_restarts_total{reason="gone"}')
    with asked(server, [endless()]):
        wait_for(lambda: metric(server.http, 'pullback_workers{state="busy"}') == 1)
    wait_for(lambda: metric(server.http, 'pullback_worker_restarts_total{reason="gone"}') > gone)


@pytest.mark.parametrize("cut", [QUERY[:9], QUERY[:40], QUERY[:-1], head(Transfer_Encoding="chunked") + CHUNKED[:-6]])
def test_what_ends_too_early_is_refused(server: Server, cut: bytes) -> None:
    with line(server.port) as raw:
        raw.send(cut)
        status, headers, problem = ended(raw).reply()
        assert (status, problem["code"], headers["connection"]) == (400, "bad_request", "close")
        assert raw.is_closed()


def test_what_is_cut_behind_a_good_query_does_not_spoil_it(server: Server, answer: object) -> None:
    with line(server.port) as raw:
        raw.send(QUERY + QUERY[:50])
        assert ended(raw).reply()[2]["vjp"] == answer
        assert raw.reply()[0] == 400


# --- what follows a request ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage", [b"\0\1\2\3", b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x02\0", b"GET / HTTP/9.9\r\n\r\n", b"a" * 200_000]
)
@pytest.mark.parametrize("good", [QUERY, head(Transfer_Encoding="chunked") + CHUNKED + b"\r\n", head("/health/live", "GET")])
def test_garbage_behind_a_good_query_does_not_spoil_it(server: Server, good: bytes, garbage: bytes) -> None:
    with line(server.port) as raw:
        raw.try_send(good + garbage)
        assert raw.reply()[0] == 200
        status, headers, _ = raw.reply()
        assert status in (400, 431)
        assert headers["connection"] == "close"
        assert raw.is_closed()


def test_garbage_behind_a_query_that_is_being_computed(server: Server) -> None:
    body = orjson.dumps(heavy(timeout_s=2))
    with line(server.port) as raw:
        raw.send(head(Content_Length=str(len(body))) + body)
        wait_for(lambda: metric(server.http, 'pullback_workers{state="busy"}') == 1 or not raw.is_silent())
        raw.send(b"GARBAGE\r\n\r\n")
        assert [raw.reply()[0], raw.reply()[0]] == [504, 400]


def test_pipelined_queries_are_answered_in_order(server: Server) -> None:
    bodies = [orjson.dumps({"operation": "neg", "inputs": {"input": number}}) for number in range(600)]
    with line(server.port) as raw:
        raw.send(b"".join(head(Content_Length=str(len(body))) + body for body in bodies))
        assert [-raw.reply()[2]["outputs"]["output"]["data"] for _ in bodies] == list(range(600))


def test_chunked_queries_are_pipelined_too(server: Server, answer: object) -> None:
    with line(server.port) as raw:
        raw.send((head(Transfer_Encoding="chunked") + CHUNKED + b"\r\n") * 30)
        assert [raw.reply()[2]["vjp"] for _ in range(30)] == [answer] * 30


# --- upgrades ------------------------------------------------------------------------------------------------------------

H2C = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2_Settings": "AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA",
}


@pytest.mark.parametrize(
    "upgrade", [H2C, {"Connection": "Upgrade", "Upgrade": "websocket"}, {"Connection": "upgrade", "Upgrade": "TLS/1.2"}]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_to_upgrade_is_answered_as_http_1_1(
    server: Server, answer: object, upgrade: dict[str, str], chunked: bool
) -> None:
    """As Java's HttpClient sends it, with its first request on every connection."""
    framing = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": str(len(TEXT))}
    with line(server.port) as raw:
        raw.send(head(**upgrade, **framing) + (CHUNKED + b"\r\n" if chunked else TEXT))
        status, headers, body = raw.reply()
        assert (status, body["vjp"]) == (200, answer)
        assert "upgrade" not in headers
        raw.send(QUERY)
        assert raw.reply()[0] == 200


def test_an_upgrade_without_a_body_and_with_a_query_behind_it(server: Server) -> None:
    with line(server.port) as raw:
        raw.send(head("/health/live", "GET", **H2C) + QUERY)
        assert [raw.reply()[0], raw.reply()[0]] == [200, 200]


def test_a_large_body_with_a_request_to_upgrade_that_comes_in_pieces(server: Server, answer: object) -> None:
    large = TEXT[:-1] + b" " * 3_000_000 + b"}"
    with line(server.port) as raw:
        whole = head(Content_Length=str(len(large)), **H2C) + large
        for start in range(0, len(whole), 100_001):
            raw.send(whole[start : start + 100_001])
        assert raw.reply()[2]["vjp"] == answer


# --- transfer codings, chunks and trailers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
@pytest.mark.parametrize("lines", [1, 2])
def test_a_body_compressed_on_its_way(server: Server, answer: object, coding: str, compress: object, lines: int) -> None:
    packed = compress(TEXT)  # type: ignore[operator]
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed)
    coded = head(Transfer_Encoding=f"{coding}, chunked")
    if lines == 2:
        coded = coded.replace(b", chunked", b"\r\nTransfer-Encoding: chunked")
    with line(server.port) as raw:
        raw.send(coded + body)
        status, _, reply = raw.reply()
        assert (status, reply["vjp"]) == (200, answer)


@pytest.mark.parametrize("lines", [b"gzip\r\nContent-Encoding: identity", b"identity\r\nContent-Encoding: gzip"])
def test_codings_in_several_lines_are_one_list(server: Server, answer: object, lines: bytes) -> None:
    """RFC 9110, section 5.3: of two lines none is left out."""
    packed = gzip.compress(TEXT)
    with line(server.port) as raw:
        raw.send(head(Content_Length=str(len(packed)), Content_Encoding="CODED").replace(b"CODED", lines) + packed)
        status, _, reply = raw.reply()
        assert (status, reply["vjp"]) == (200, answer)


@pytest.mark.parametrize(
    "headers",
    [
        {"Transfer_Encoding": "br, chunked"},
        {"Transfer_Encoding": "gzip, gzip, chunked"},
        {"Transfer_Encoding": "gzip, chunked", "Content_Encoding": "gzip"},
    ],
)
def test_another_coding_is_refused(server: Server, headers: dict[str, str]) -> None:
    packed = gzip.compress(TEXT)
    with line(server.port) as raw:
        raw.send(head(**headers) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed))
        status, _, problem = raw.reply()
        assert (status, problem["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["chunked, gzip", "gzip", "identity, gzip"])
def test_a_body_without_an_end_is_refused(server: Server, coding: str) -> None:
    with line(server.port) as raw:
        raw.send(head(Transfer_Encoding=coding) + CHUNKED)
        assert raw.reply()[0] == 400
        assert raw.is_closed()


def test_trailers_are_no_headers(strict: Server) -> None:
    """Neither a key nor anything else of ours may come in them (RFC 9110, section 6.5.1)."""
    trailers = f"X-API-Key: {KEY}\r\nX-Request-Id: trailing\r\nAccept: text/nonsense\r\nContent-Encoding: br\r\n\r\n".encode()
    with line(strict.port) as raw:
        raw.send(head(Transfer_Encoding="chunked") + CHUNKED + trailers)
        assert raw.reply()[0] == 401
    with line(strict.port) as raw:
        raw.send(head(Transfer_Encoding="chunked", X_API_Key=KEY) + CHUNKED + trailers)
        status, headers, _ = raw.reply()
        assert status == 200
        assert headers["x-request-id"] != "trailing"


@pytest.mark.parametrize("endless", [b"a:\r\n", b"A-Long-Name: with a long value\r\n", b"x" * 1000])
@pytest.mark.parametrize("count", [HEADER_BYTES_LIMIT // 2, 5_000_000])
def test_endless_trailers_end(server: Server, endless: bytes, count: int) -> None:
    with line(server.port) as raw:
        raw.try_send(head(Transfer_Encoding="chunked") + CHUNKED + endless * (count // len(endless) * 4))
        status, _, problem = raw.reply()
        assert (status, problem["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("extension", [b";a=b", b";" + b"x" * 1000, b';a="b c"'])
@pytest.mark.parametrize("size", [b"5", b"0"])
def test_endless_chunk_extensions_end(server: Server, extension: bytes, size: bytes) -> None:
    with line(server.port) as raw:
        raw.try_send(head(Transfer_Encoding="chunked") + size + extension * (3_000_000 // len(extension)))
        status, _, problem = raw.reply()
        assert (status, problem["code"]) == (431, "headers_too_large")


def test_signed_chunks_are_a_body(server: Server, answer: object) -> None:
    """A hundred bytes of extension for each chunk, as S3's clients send them."""
    pieces = [TEXT[start : start + 1] for start in range(len(TEXT))] * 1
    signed = b"".join(b"%x;chunk-signature=%b\r\n%b\r\n" % (len(piece), b"a" * 64, piece) for piece in pieces)
    with line(server.port) as raw:
        raw.send(head(Transfer_Encoding="chunked") + signed + b"0\r\nDigest: x\r\n\r\n")
        assert raw.reply()[2]["vjp"] == answer


# --- Expect --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "path", "headers"),
    [
        (413, "/v1/query", {"X_API_Key": KEY, "Content_Length": str(BODY_LIMIT + 1)}),
        (401, "/v1/query", {"Content_Length": "100"}),
        (404, "/nowhere", {"X_API_Key": KEY, "Content_Length": "100"}),
        (405, "/v1/operations", {"X_API_Key": KEY, "Content_Length": "100"}),
        (403, "/v1/query", {"X_API_Key": KEY, "Content_Length": "100", "Origin": "https://evil.example"}),
    ],
)
def test_a_refusal_instead_of_continue_leaves_no_body_behind(
    strict: Server, expected: int, path: str, headers: dict[str, str]
) -> None:
    """The client will not send the body now, so what it sends next must not be taken for it (RFC 9110, section 10.1.1)."""
    with line(strict.port) as raw:
        raw.send(head(path, Expect="100-continue", **headers))
        status, answered, _ = raw.reply()
        assert (status, answered["connection"]) == (expected, "close")
        assert raw.is_closed()


def test_a_body_is_sent_after_continue(server: Server, answer: object) -> None:
    with line(server.port) as raw:
        for _ in range(2):
            raw.send(head(Expect="100-continue", Content_Length=str(len(TEXT))))
            assert raw.reply()[0] == 100
            raw.send(TEXT)
            assert raw.reply()[2]["vjp"] == answer


def test_http_1_0_is_never_told_to_continue(server: Server, answer: object) -> None:
    with line(server.port) as raw:
        raw.send(head(Expect="100-continue", Content_Length=str(len(TEXT))).replace(b"HTTP/1.1", b"HTTP/1.0") + TEXT)
        status, _, body = raw.reply()
        assert (status, body["vjp"]) == (200, answer)
        assert raw.is_closed()


# --- hosts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "", "]["],
)
@pytest.mark.parametrize("path", ["/v1/functions", "/metrics", "/v1/operations", "/docs", "/v2/health/ready"])
def test_another_name_in_host_is_refused_on_loopback(server: Server, host: str, path: str) -> None:
    reply = server.http.get(path, headers={"Host": host})
    assert reply.status_code == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.2:80", "[::1]:8000", "app.localhost", "localhost."]
)
def test_loopbacks_own_names_are_taken(server: Server, host: str) -> None:
    assert server.http.post("/v1/query", json=SMALL, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: localhost\r\n"])
def test_one_host_and_no_more(server: Server, hosts: bytes) -> None:
    with line(server.port) as raw:
        raw.send(b"GET /health/live HTTP/1.1\r\n" + hosts + b"\r\n")
        status, _, problem = raw.reply()
        assert (status, problem["code"]) == (400, "bad_request")


def test_http_1_0_needs_no_host(server: Server) -> None:
    with line(server.port) as raw:
        raw.send(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert raw.reply()[0] == 200


# --- refusals while the client sends -------------------------------------------------------------------------------------


def test_whoever_goes_on_sending_reads_the_refusal(server: Server) -> None:
    """As much as the largest body, in chunks, at an address that takes none."""
    with httpx.Client(base_url=server.url, timeout=CLIENT_LIMIT_S) as client:
        reply = client.post("/v1/query", content=(b" " * 1_000_000 for _ in range(300)))
        assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large")


def test_a_refused_request_and_the_next_on_the_same_connection(strict: Server) -> None:
    """Without Expect the body comes anyway, and is skipped."""
    with line(strict.port) as raw:
        raw.send(head("/v1/query", Content_Length=str(len(TEXT))) + TEXT)
        raw.send(head("/v1/query", X_API_Key=KEY, Content_Length=str(len(TEXT))) + TEXT)
        assert [raw.reply()[0], raw.reply()[0]] == [401, 200]
