"""Keys, limits, timeouts, request ids and metrics hold for the foreign protocols, and every refusal has its protocol's own shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from app.errors import CODES, PullbackError
from app.protocols.registry import PROTOCOLS, protocol_of, refused, refused_at
from tests.protocols.conftest import BODY_LIMIT, KEY
from tests.server import CLIENT_LIMIT_S, Server

# Protocol → an address that computes, a small body, a slow one, and how the reply begins.
CALLS: Final[dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]]] = {
    "oip": (
        "/v2/models/sin/infer",
        {"inputs": [{"name": "input", "shape": [1], "datatype": "FP64", "data": [1.0]}], "outputs": [{"name": "vjp.input"}]},
        "/v2/models/slow/infer",
        {"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 1.0]}]},
    ),
    "umbridge": (
        "/Gradient",
        {"name": "rosenbrock", "input": [[0.0, 0.0]], "sens": [1.0], "outWrt": 0, "inWrt": 0},
        "/Evaluate",
        {"name": "slow", "input": [[1.0, 1.0]]},
    ),
    "tesseract": (
        "/tesseract/sin/vector_jacobian_product",
        {"inputs": {"input": [1.0]}, "vjp_inputs": ["input"], "vjp_outputs": ["output"], "cotangent_vector": {"output": [1.0]}},
        "/tesseract/slow/apply",
        {"inputs": {"x": [1.0, 1.0]}},
    ),
}


def assert_shape(protocol: str, body: Any) -> None:
    """The protocol's own error object, closed."""
    if protocol == "oip":
        assert body.keys() == {"error"}
        assert isinstance(body["error"], str)
    elif protocol == "umbridge":
        assert body.keys() == {"error"}
        assert body["error"].keys() == {"type", "message"}
    else:
        assert body.keys() == {"detail"}
        for one in body["detail"] if isinstance(body["detail"], list) else ():
            assert one.keys() == {"type", "loc", "msg"}


@pytest.fixture
def keyed(guarded: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=CLIENT_LIMIT_S) as client:
        yield client


@pytest.mark.parametrize("protocol", CALLS)
def test_a_key_is_needed(guarded: Server, keyed: httpx.Client, protocol: str) -> None:
    path, body, _, _ = CALLS[protocol]
    refusal = guarded.http.post(path, json=body)
    assert refusal.status_code == 401
    assert refusal.headers["www-authenticate"]
    assert_shape(protocol, refusal.json())
    assert keyed.post(path, json=body).status_code == 200


def test_probes_need_no_key_but_pages_do(guarded: Server) -> None:
    assert guarded.http.get("/v2/health/live").status_code == 200
    assert guarded.http.get("/v2/health/ready").status_code == 200
    for path in ("/v2", "/v2/models", "/Info", "/tesseract/sin/openapi.json", "/tesseract/sin/health"):
        assert guarded.http.get(path).status_code == 401, path


@pytest.mark.parametrize("protocol", CALLS)
def test_request_ids_and_timings(keyed: httpx.Client, protocol: str) -> None:
    path, body, _, _ = CALLS[protocol]
    reply = keyed.post(path, json=body, headers={"X-Request-Id": "mine"})
    assert reply.headers["x-request-id"] == "mine"
    assert re.fullmatch(r"queue;dur=[\d.]+, compute;dur=[\d.]+, encode;dur=[\d.]+", reply.headers["server-timing"])


@pytest.mark.parametrize("protocol", CALLS)
def test_a_body_that_is_too_large(keyed: httpx.Client, protocol: str) -> None:
    refusal = keyed.post(CALLS[protocol][0], content=b" " * (BODY_LIMIT + 1))
    assert refusal.status_code == 413
    assert_shape(protocol, refusal.json())


def test_a_timeout_of_the_request_itself(keyed: httpx.Client) -> None:
    _, _, path, body = CALLS["oip"]
    refusal = keyed.post(path, json={**body, "parameters": {"timeout": 50_000}})
    assert refusal.status_code == 504
    assert "0.05" in refusal.json()["error"]


@pytest.mark.parametrize("protocol", CALLS)
def test_a_wrong_verb(keyed: httpx.Client, protocol: str) -> None:
    refusal = keyed.get(CALLS[protocol][0])
    assert refusal.status_code == 405
    assert refusal.headers["allow"] == "POST"
    assert_shape(protocol, refusal.json())


@pytest.mark.parametrize(
    ("protocol", "path"), [("oip", "/v2/nothing"), ("oip", "/v2/models//infer"), ("tesseract", "/tesseract/sin")]
)
def test_an_address_where_nothing_is(keyed: httpx.Client, protocol: str, path: str) -> None:
    refusal = keyed.post(path, content=b"{}")
    assert refusal.status_code == 404
    assert_shape(protocol, refusal.json())


def test_metrics_count_them(keyed: httpx.Client) -> None:
    def computed() -> float:
        text = keyed.get("/metrics").text
        return sum(float(value) for value in re.findall(r'requests_total\{[^}]*kind="vjp"[^}]*\} ([\d.]+)', text))

    before = computed()
    for path, body, _, _ in CALLS.values():
        assert keyed.post(path, json=body).status_code == 200
    assert computed() == before + len(CALLS)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("protocol", [protocol.name for protocol in PROTOCOLS])
def test_every_refusal_has_a_shape_in_every_protocol(protocol: str, code: str) -> None:
    error = PullbackError(code, "It is so.", at="inputs.x[0]", expected="this", given="that", fix="Do so.", retry_after_s=1)
    written = refused(f"{protocol}.any", error, "id")
    body = json.loads(b"".join(written.buffers))
    assert_shape(protocol, body)
    assert "It is so." in json.dumps(body)
    assert written.status >= 400
    if CODES[code][0] in (401, 403, 413, 429, 500, 503, 504, 507):
        assert written.status == CODES[code][0]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v2", "oip"),
        ("/v2/models/x/infer", "oip"),
        ("/v2x", None),
        ("/Info", "umbridge"),
        ("/Evaluate", "umbridge"),
        ("/EvaluateShMem", "umbridge"),
        ("/evaluate", None),
        ("/tesseract/x/apply", "tesseract"),
        ("/v1/query", None),
        ("/", None),
    ],
)
def test_whose_address_it_is(path: str, name: str | None) -> None:
    protocol = protocol_of(path)
    assert (protocol.name if protocol else None) == name
    written = refused_at(path, PullbackError("not_found", "Nothing."), None)
    assert (written.media_type == "application/problem+json") == (name is None)
