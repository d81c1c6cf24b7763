"""Pages and lists: the catalogue, functions, metrics, the log, and many queries in one request."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.pool.queries import SMALL, metric
from tests.server import Server
from tests.waiting import wait_for


def lines(server: Server, **fields: Any) -> list[dict[str, Any]]:
    """The log's lines with these fields, up to that of a request that is made now: lines are written in the order of the requests' ends."""
    mark = uuid.uuid4().hex
    server.http.get("/v1/limits", headers={"X-Request-Id": mark})
    wait_for(lambda: mark in server.log.read_text())
    logged = [orjson.loads(line) for line in server.log.read_bytes().splitlines() if line.startswith(b"{")]
    return [line for line in logged if fields.items() <= line.items()]


def test_the_catalogue_lists_and_describes(server: Server) -> None:
    listed = server.http.get("/v1/operations").json()["operations"]
    assert len(listed) > 500
    assert set(listed[0]) == {"name", "summary", "tags"}
    entry = server.http.get("/v1/operations/softmax").json()
    assert entry["signatures"][0]["arguments"][0] == {
        "name": "input", "kind": "tensor", "required": True, "differentiable": True,
        **{k: v for k, v in entry["signatures"][0]["arguments"][0].items() if k in ("optional", "keyword_only", "meaning")},
    }  # fmt: skip
    assert entry["signatures"][0]["outputs"] == [{"name": "output", "differentiable": True}]
    assert {"documentation", "formula", "example"} <= set(entry)
    assert server.http.post("/v1/query", json=entry["example"]).status_code == 200


def test_search(server: Server) -> None:
    operations = server.http.get("/v1/operations", params={"search": "pinv"}).json()["operations"]
    assert "linalg.pinv" in [operation["name"] for operation in operations]
    names = {
        wanted: {o["name"] for o in server.http.get("/v1/operations", params={"differentiable": wanted}).json()["operations"]}
        for wanted in ("true", "false")
    }
    assert "softmax" in names["true"]
    assert "argmax" in names["false"]
    assert not names["true"] & names["false"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/operations/softmux", 404, "unknown_operation"),
        ("/v1/operations/__class__", 404, "unknown_operation"),
        ("/v1/operations/" + "a" * 10_000, 404, "unknown_operation"),
        ("/v1/functions/none", 404, "unknown_function"),
        ("/v1/operations?differentiable=perhaps", 400, "bad_request"),
        ("/v1/operations?search=" + "a" * 1000, 400, "bad_request"),
    ],
)
def test_what_is_not_there(server: Server, path: str, status: int, code: str) -> None:
    reply = server.http.get(path)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert len(reply.content) < 2048


def test_functions(server: Server) -> None:
    functions = server.http.get("/v1/functions").json()["functions"]
    assert functions
    name = functions[0]["name"]
    assert server.http.get(f"/v1/functions/{name}").json() == functions[0]


def test_a_list_of_queries(server: Server) -> None:
    asked = [SMALL, {"operation": "no_such"}, {**SMALL, "inputs": {"input": [1, 2]}}, "nonsense"]
    reply = server.http.post("/v1/queries", json=asked)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    first, unknown, third, nonsense = reply.json()
    assert first == server.http.post("/v1/query", json=SMALL).json()
    assert (unknown["status"], unknown["code"]) == (404, "unknown_operation")
    assert third["vjp"]["input"]["shape"] == [2]
    assert nonsense["code"] == "bad_request"


def test_an_empty_list(server: Server) -> None:
    assert server.http.post("/v1/queries", json=[]).json() == []


def test_a_long_list(server: Server) -> None:
    reply = server.http.post("/v1/queries", json=[SMALL] * 300)
    assert [answer["vjp"]["input"]["shape"] for answer in reply.json()] == [[3]] * 300


@pytest.mark.parametrize("body", [b"{}", b"7", b"[1,", b"", b'{"operation": "exp"}'])
def test_what_is_no_list(server: Server, body: bytes) -> None:
    reply = server.http.post("/v1/queries", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert reply.headers["content-type"] == "application/problem+json"


def test_too_long_a_list(server: Server) -> None:
    reply = server.http.post("/v1/queries", json=[0] * 10_001)
    assert (reply.status_code, reply.json()["code"]) == (400, "bad_request")


def test_metrics_count(server: Server) -> None:
    def number(name: str) -> float:
        return metric(server.http, name)

    names = ['pullback_requests_total{code="200",kind="vjp"}', 'pullback_refusals_total{code="unknown_operation"}',
             "pullback_compute_seconds_count", "pullback_received_bytes_total", "pullback_sent_bytes_total"]  # fmt: skip
    before = [number(name) for name in names]
    body = orjson.dumps(SMALL)
    for _ in range(3):
        server.http.post("/v1/query", content=body, headers={"Content-Type": "application/json"})
    server.http.post("/v1/query", json={"operation": "no_such"})
    after = [number(name) for name in names]
    answered, refused, computed, received, sent = (b - a for a, b in zip(before, after, strict=True))
    assert (answered, refused, computed) == (3, 1, 4)
    assert received == 3 * len(body) + len(b'{"operation":"no_such"}')
    assert sent > 0


def test_metrics_are_what_prometheus_reads(server: Server) -> None:
    reply = server.http.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(reply.text)}
    assert {
        "pullback_requests", "pullback_queue_seconds", "pullback_compute_seconds", "pullback_queue_length",
        "pullback_queue_bytes", "pullback_workers", "pullback_worker_restarts", "process_resident_memory_bytes",
    } <= names  # fmt: skip


def test_one_line_a_request(server: Server) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"X-Request-Id": "one-line", "traceparent": trace}
    reply = server.http.post("/v1/query", json=SMALL, headers=headers)
    (line,) = lines(server, request_id="one-line")
    assert line["event"] == "request"
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/query", 200)
    assert (line["operation"], line["want"], line["worker"]) == ("softmax", "vjp", 0)
    assert line["bytes_out"] == len(reply.content)
    assert line["trace_id"] == trace[3:35]
    assert 0 < line["compute_ms"] <= line["ms"]
    server.http.post("/v1/query", json={"operation": "no_such"}, headers={"X-Request-Id": "refused"})
    (refused,) = lines(server, request_id="refused")
    assert (refused["status"], refused["code"]) == (404, "unknown_operation")


def test_nothing_can_be_written_into_the_log(server: Server) -> None:
    server.http.get('/no"where\\%0a{"event":"forged"}', headers={"X-Request-Id": 'x"}\\n{"event":"forged"}'})
    assert lines(server, event="forged") == []
    assert any("forged" in line.get("path", "") for line in lines(server, status=404))


def test_an_answer_in_safetensors(server: Server) -> None:
    reply = server.http.post("/v1/query", json=SMALL, headers={"Accept": "application/vnd.safetensors"})
    assert reply.headers["content-type"] == "application/vnd.safetensors"
    assert int(reply.headers["content-length"]) == len(reply.content)


def test_a_body_without_content_type_is_json(server: Server) -> None:
    request = httpx.Request("POST", f"{server.url}/v1/query", content=orjson.dumps(SMALL))
    assert "content-type" not in request.headers
    assert server.http.send(request).status_code == 200
