"""The outermost layer: keys, origins, request ids, header caps, verbs; every refusal a problem with the request's id."""

from __future__ import annotations

import base64

import httpx
import pytest

from app.front.http.http_refusals import HEADER_BYTES_LIMIT, HEADER_COUNT_LIMIT
from tests.front.conftest import KEY
from tests.front.raw import head, line
from tests.pool.queries import SMALL, metric
from tests.server import Server


def code_of(reply: httpx.Response) -> str:
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert problem["status"] == reply.status_code
    assert problem["request_id"] == reply.headers["x-request-id"]
    assert problem["detail"]
    code: str = problem["code"]
    return code


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ""},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": KEY[:-1]},
        {"Authorization": "Bearer wrong"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"X-API-Key": KEY, "Authorization": "Bearer wrong"},
        {"X-API-Key": "k" * 10_000},
    ],
)
@pytest.mark.parametrize("path", ["/v1/query", "/docs", "/openapi.json", "/metrics", "/v1/operations", "/nowhere"])
def test_without_a_right_key_every_path_is_closed(strict: Server, headers: dict[str, str], path: str) -> None:
    reply = strict.http.request("POST" if path == "/v1/query" else "GET", path, headers=headers)
    assert (reply.status_code, code_of(reply)) == (401, "unauthorized")
    assert reply.headers["www-authenticate"] == "Bearer"


def test_two_keys_of_which_one_is_wrong(strict: Server) -> None:
    headers = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer wrong")]
    assert strict.http.get("/metrics", headers=headers).status_code == 401
    assert strict.http.get(f"/metrics?x-api-key={KEY}").status_code == 401


@pytest.mark.parametrize(
    "headers", [{"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}, {"authorization": "bearer another"}]
)
def test_a_right_key_opens(strict: Server, headers: dict[str, str]) -> None:
    assert strict.http.post("/v1/query", json=SMALL, headers=headers).status_code == 200


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("user", ["", "anyone", "a b", "ü"])
def test_a_key_may_be_a_basic_password(strict: Server, user: str) -> None:
    """For clients of other protocols, which know no Bearer (RFC 7617)."""
    assert strict.http.post("/v1/query", json=SMALL, headers={"Authorization": basic(user, KEY)}).status_code == 200
    assert strict.http.post("/v1/query", json=SMALL, auth=(user, KEY)).status_code == 200


@pytest.mark.parametrize(
    "credentials",
    [
        basic(KEY, ""), basic("", "wrong"), basic(KEY, "wrong"), basic("", KEY + ":"), basic("", ":" + KEY), f"Basic {KEY}", "Basic",
        "Basic ====", "Basic " + base64.b64encode(KEY.encode()).decode(), "Digest " + KEY, "Negotiate " + KEY, KEY,
    ],
)  # fmt: skip
def test_what_is_no_basic_password(strict: Server, credentials: str) -> None:
    assert strict.http.get("/metrics", headers={"Authorization": credentials}).status_code == 401


@pytest.mark.parametrize(
    "credentials",
    [basic("proxy", "secret"), "Digest username=a", "Negotiate YII=", "AWS4-HMAC-SHA256 Credential=a", "nonsense", ""],
)
@pytest.mark.parametrize("own", [("X-API-Key", KEY), ("Authorization", f"Bearer {KEY}"), ("Authorization", basic("a", KEY))])
def test_a_key_beside_another_scheme_counts(strict: Server, credentials: str, own: tuple[str, str]) -> None:
    """What a proxy needs of the client says nothing to us."""
    for headers in ([own, ("Authorization", credentials)], [("Authorization", credentials), own]):
        assert strict.http.get("/metrics", headers=headers).status_code == 200


def test_health_needs_no_key(strict: Server) -> None:
    assert strict.http.get("/health/live").json() == {"status": "live"}
    assert strict.http.get("/health/ready").json() == {"status": "ready"}


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://notebook.example.evil", "http://notebook.example", ""]
)
def test_a_foreign_page_is_refused(keyed: httpx.Client, origin: str) -> None:
    reply = keyed.post("/v1/query", json=SMALL, headers={"Origin": origin})
    assert (reply.status_code, code_of(reply)) == (403, "foreign_origin")
    assert "access-control-allow-origin" not in reply.headers


def test_a_name_that_was_made_to_point_here_is_foreign(keyed: httpx.Client) -> None:
    reply = keyed.post("/v1/query", json=SMALL, headers={"Origin": "http://evil.example", "Host": "evil.example"})
    assert reply.status_code == 403


def test_our_own_pages_may_call(strict: Server, keyed: httpx.Client) -> None:
    for host in (f"127.0.0.1:{strict.port}", f"localhost:{strict.port}"):
        headers = {"Origin": f"http://{host}", "Host": host}
        assert keyed.post("/v1/query", json=SMALL, headers=headers).status_code == 200


def test_an_allowed_page_may_call_and_read(keyed: httpx.Client) -> None:
    origin = "https://notebook.example"
    preflight = keyed.options(
        "/v1/query",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type, x-api-key",
        },
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "x-api-key" in preflight.headers["access-control-allow-headers"]
    assert "POST" in preflight.headers["access-control-allow-methods"]
    reply = keyed.post("/v1/query", json=SMALL, headers={"Origin": origin})
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("path", ["/v1/query", "/v1/queries", "/v1/operations", "/metrics", "/nowhere", "/v2/models/exp/infer"])
def test_a_preflight_needs_no_key(strict: Server, path: str) -> None:
    """Browsers send none with it (Fetch standard, section 4.8)."""
    asked = {
        "Origin": "https://notebook.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    reply = strict.http.options(path, headers=asked)
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == "https://notebook.example"
    assert strict.http.post(path, headers={"Origin": "https://notebook.example"}).status_code == 401


def test_a_preflight_of_another_origin_does_not_pass(strict: Server) -> None:
    reply = strict.http.options(
        "/v1/query", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert (reply.status_code, code_of(reply)) == (403, "foreign_origin")
    assert "access-control-allow-origin" not in reply.headers


def test_an_allowed_page_may_read_that_its_key_is_wrong(strict: Server) -> None:
    headers = {"Origin": "https://notebook.example", "X-API-Key": "wrong"}
    reply = strict.http.post("/v1/query", json=SMALL, headers=headers)
    assert (reply.status_code, code_of(reply)) == (401, "unauthorized")
    assert reply.headers["access-control-allow-origin"] == "https://notebook.example"


def test_other_options_need_a_key(strict: Server) -> None:
    assert strict.http.options("/v1/query", headers={"Origin": "https://notebook.example"}).status_code == 401


@pytest.mark.parametrize("request_id", ["a", "run-7.b_c", "x" * 128])
def test_a_harmless_request_id_is_kept(keyed: httpx.Client, request_id: str) -> None:
    for reply in (
        keyed.post("/v1/query", json=SMALL, headers={"X-Request-Id": request_id}),
        keyed.get("/v1/operations/exp", headers={"X-Request-Id": request_id}),
        keyed.get("/nowhere", headers={"X-Request-Id": request_id}),
    ):
        assert reply.headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 129, "<b>", "a b", "ä", '{"a":1}'])
def test_another_request_id_is_replaced(keyed: httpx.Client, request_id: str) -> None:
    reply = keyed.post("/v1/query", json=SMALL, headers=[(b"X-Request-Id", request_id.encode("latin-1"))])
    assert reply.headers["x-request-id"] not in ("", request_id)


def test_a_trace_is_carried_on(keyed: httpx.Client) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert keyed.post("/v1/query", json=SMALL, headers={"traceparent": trace}).headers["traceparent"] == trace
    assert "traceparent" not in keyed.post("/v1/query", json=SMALL, headers={"traceparent": "00-zz"}).headers


def test_server_timing(keyed: httpx.Client) -> None:
    parts = keyed.post("/v1/query", json=SMALL).headers["server-timing"].split(", ")
    assert [part.split(";dur=")[0] for part in parts] == ["queue", "compute", "encode"]
    assert all(float(part.split(";dur=")[1]) >= 0 for part in parts)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/v1/query", "/v1/queries"])
def test_other_verbs_at_a_computing_door(keyed: httpx.Client, method: str, path: str) -> None:
    reply = keyed.request(method, path)
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    if method != "HEAD":
        assert code_of(reply) == "method_not_allowed"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
@pytest.mark.parametrize(
    "path", ["/v1/operations", "/v1/operations/exp", "/health/ready", "/metrics", "/docs", "/openapi.json"]
)
def test_other_verbs_at_a_page(keyed: httpx.Client, method: str, path: str) -> None:
    reply = keyed.request(method, path)
    assert (reply.status_code, code_of(reply)) == (405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, HEAD"


def test_a_verb_refused_at_a_page_counts_as_no_refusal(keyed: httpx.Client) -> None:
    name = 'pullback_refusals_total{code="method_not_allowed"}'
    before = metric(keyed, name)
    assert {keyed.post(path).status_code for path in ("/health/live", "/health/ready", "/v1/operations")} == {405}
    assert metric(keyed, name) == before
    assert keyed.get("/v1/query").status_code == 405
    assert metric(keyed, name) == before + 1


@pytest.mark.parametrize("path", ["/v1/operations", "/v1/operations/exp", "/health/live", "/metrics", "/docs", "/openapi.json"])
def test_head_where_get_is(keyed: httpx.Client, path: str) -> None:
    head_reply, get_reply = keyed.head(path), keyed.get(path)
    assert head_reply.status_code == get_reply.status_code == 200
    assert head_reply.content == b""
    assert head_reply.headers["content-type"] == get_reply.headers["content-type"]


@pytest.mark.parametrize("path", ["/v1/operations", "/health/live", "/health/ready"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_slash_at_the_end_leads_to_the_page(keyed: httpx.Client, path: str, method: str) -> None:
    reply = keyed.request(method, path + "/?a=b")
    assert (reply.status_code, reply.headers["location"], reply.content) == (307, f"{keyed.base_url}{path}?a=b", b"")
    assert reply.headers["x-request-id"]
    assert keyed.get(path + "//", follow_redirects=True).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/query/", "/v1/nothing", "/%2e%2e/etc/passwd", "/v1/operations/a/b", "/docs/assets/none"]
)
def test_nothing_is_there(keyed: httpx.Client, path: str) -> None:
    assert keyed.get(path).status_code == 404


def test_too_many_headers(strict: Server) -> None:
    with line(strict.port) as raw:
        many = {f"X-H{number}": "1" for number in range(HEADER_COUNT_LIMIT + 1)}
        raw.send(head("/health/live", "GET", **many))
        status, _, problem = raw.reply()
        assert (status, problem["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("size", [HEADER_BYTES_LIMIT + 1, 10_000_000])
def test_too_large_headers(strict: Server, size: int) -> None:
    with line(strict.port) as raw:
        raw.try_send(head("/health/live", "GET", X_Long="x" * size))
        status, _, problem = raw.reply()
        assert (status, problem["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE\r\n\r\n",
        head(Content_Length="5", Transfer_Encoding="chunked"),
        head(Content_Length="-1"),
        head(Content_Length="12x"),
        head("/" + "a" * 100_000, "GET"),
        head("/health/live", "GET", **{"X-Nul": "a\0b"}),
    ],
)
def test_what_is_not_http(strict: Server, data: bytes) -> None:
    with line(strict.port) as raw:
        raw.try_send(data)
        status, _, problem = raw.reply()
        assert status in (400, 431)
        assert problem["code"] in ("bad_request", "headers_too_large")
        assert raw.is_closed()
