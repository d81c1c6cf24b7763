"""What docs/contract.md says and no other test asks: the replies as a client sees them, over HTTP."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from typing import Any, Final

import jsonschema
import pytest

from app.errors import CODES, PullbackError
from app.protocols.registry import refused
from tests.server import Server

# Requests that are refused, each for another reason: address, body.
REFUSED: Final[dict[str, tuple[str, bytes]]] = {
    "empty": ("/v1/query", b""),
    "cut": ("/v1/query", b'{"operation":'),
    "not_utf8": ("/v1/query", b"\xff\xfe"),
    "no_object": ("/v1/query", b"3"),
    "no_name": ("/v1/query", b"{}"),
    "extent": ("/v1/query", b'{"operation": "exp", "inputs": {"input": {"data": [1.0], "shape": [-1]}}}'),
    "huge_shape": (
        "/v1/query",
        b'{"operation": "exp", "inputs": {"input": {"data": [1.0], "shape": [4611686018427387904, 8]}}}',
    ),
    "ragged": ("/v1/query", b'{"operation": "exp", "inputs": {"input": [[1.0], 2.0]}}'),
    "dtype": ("/v1/query", b'{"operation": "exp", "inputs": {"input": {"data": [1.0], "dtype": "FP8"}}}'),
    "twice": ("/v1/query", b'{"operation": "exp", "inputs": {"input": [1.0]}, "want": ["vjp", "vjp"]}'),
    "of": (
        "/v1/query",
        b'{"program": "return {\'a\': x.sum(), \'b\': x}", "inputs": {"x": [1.0]}, "want": ["gradient"], "of": "c"}',
    ),
    "format": ("/v1/query", b'{"operation": "exp", "inputs": {"input": [1.0]}, "format": "block"}'),
    "seed": ("/v1/query", b'{"operation": "exp", "inputs": {"input": [1.0]}, "seed": -1}'),
    "axis": ("/v1/query", b'{"operation": "softmax", "inputs": {"input": [1.0]}, "parameters": {"dim": 7}}'),
    "singular": ("/v1/query", b'{"operation": "linalg.inv", "inputs": {"A": [[1.0, 1.0], [1.0, 1.0]]}}'),
    "index": ("/v1/query", b'{"operation": "gather", "inputs": {"input": [1.0], "index": [5]}, "parameters": {"dim": 0}}'),
    "syntax": ("/v1/query", b'{"program": "x +", "inputs": {"x": [1.0]}}'),
    "underscore": ("/v1/query", b'{"program": "x.__class__", "inputs": {"x": [1.0]}}'),
    "file_shape": ("/v1/query", b'{"function": "banana_log_density", "inputs": {"x": [1.0]}}'),
    "no_list": ("/v1/queries", b"{}"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_every_refusal_says_what_to_do(server: Server, case: str) -> None:
    path, body = REFUSED[case]
    reply = server.http.post(path, content=body, headers={"Content-Type": "application/json"})
    problem = reply.json()
    assert reply.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "code", "detail", "fix", "request_id"} <= problem.keys(), problem
    assert problem["status"] == reply.status_code == CODES[problem["code"]][0]
    assert problem["request_id"] == reply.headers["x-request-id"]
    assert problem["fix"].endswith((".", "…")), problem


@pytest.mark.parametrize(
    "head",
    [
        b"no request at all",
        b"GARBAGE /v1/query HTTP/1.1\r\nHost: localhost",
        b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5",
        b"GET /v1/limits HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 100_000,
    ],
    ids=lambda head: head[:12].decode(),
)
def test_what_is_no_request_has_an_id_to_ask_after(server: Server, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        line.sendall(head + b"\r\n\r\n")
        reply = http.client.HTTPResponse(line)
        reply.begin()
        assert json.load(reply)["request_id"] == reply.getheader("X-Request-Id")


def test_a_body_that_breaks_off_is_refused_under_the_clients_id(server: Server) -> None:
    head = b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: mine\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        line.sendall(head + b"1\r\n{\r\n")
        time.sleep(0.1)
        line.sendall(b"no chunk\r\n")
        reply = http.client.HTTPResponse(line)
        reply.begin()
        assert (reply.status, reply.getheader("X-Request-Id")) == (400, "mine")
        assert json.load(reply)["request_id"] == "mine"


@pytest.mark.parametrize("code", CODES)
def test_no_code_leaves_a_client_alone(code: str) -> None:
    assert PullbackError(code, "It is so.").fix
    assert PullbackError(code, "It is so.", fix="Do so.").fix == "Do so."


def test_what_is_expected_is_what_to_send() -> None:
    error = PullbackError("bad_parameter", "`dim` must be an integer.", at="dim", expected="an integer", given="1.5")
    assert error.fix == "Send an integer."
    assert error.sentences() == "`dim` must be an integer. At: dim. Given: 1.5. Send an integer."


def _milliseconds(server_timing: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"(\w+);dur=([\d.]+)", server_timing)}


def test_a_list_says_how_long_its_queries_took(server: Server) -> None:
    query = {"program": "(x @ x).sum()", "inputs": {"x": [[1.0, 2.0], [3.0, 4.0]]}, "want": ["hessian"]}
    times = _milliseconds(server.http.post("/v1/queries", json=[query, {"operation": "no_such"}]).headers["server-timing"])
    assert times.keys() == {"queue", "compute", "encode"}
    assert times["compute"] > 0
    assert times["encode"] > 0


@pytest.mark.parametrize("accept", ["application/vnd.safetensors", "text/html", "application/json;q=0"])
def test_a_list_is_answered_in_json_alone(server: Server, accept: str) -> None:
    reply = server.http.post("/v1/queries", json=[], headers={"Accept": accept})
    assert (reply.status_code, reply.json()["code"]) == (406, "not_acceptable")
    assert server.http.post("/v1/queries", json=[], headers={"Accept": f"{accept}, application/json"}).status_code in (200, 406)
    assert server.http.post("/v1/queries", json=[], headers={"Accept": "text/html, */*;q=0.1"}).status_code == 200


def test_an_unknown_function_is_told_its_nearest(server: Server) -> None:
    problem = server.http.get("/v1/functions/rosenbrok").json()
    assert problem["code"] == "unknown_function"
    assert "rosenbrock" in problem["detail"]


# --- refusals in a foreign protocol speak of its own fields -----------------------------------------------------------


def _infer(outputs: list[str]) -> dict[str, Any]:
    tensor = {"name": "input", "shape": [1], "datatype": "FP64", "data": [1.0]}
    return {"inputs": [tensor], "outputs": [{"name": name} for name in outputs]}


def test_an_output_of_no_input_is_refused_in_the_inference_protocols_words(server: Server) -> None:
    reply = server.http.post("/v2/models/exp/infer", json=_infer(["vjp.z"]))
    assert reply.status_code == 422
    assert "At: outputs." in reply.json()["error"]
    assert "`z`" in reply.json()["error"]
    assert "wrt" not in reply.json()["error"]


@pytest.mark.parametrize(
    ("action", "product", "more"),
    [
        ("jacobian", "jac", {}),
        ("jacobian_vector_product", "jvp", {"tangent_vector": {"z": [1.0]}}),
        ("vector_jacobian_product", "vjp", {"cotangent_vector": {"output": [1.0]}}),
    ],
)
def test_an_unknown_path_is_refused_where_it_stands(server: Server, action: str, product: str, more: dict[str, Any]) -> None:
    body = {"inputs": {"input": [1.0]}, f"{product}_inputs": ["z"], f"{product}_outputs": ["output"], **more}
    reply = server.http.post(f"/tesseract/exp/{action}", json=body)
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"] == ["body", f"{product}_inputs"]


def test_a_missing_parameter_is_refused_where_it_stands(server: Server) -> None:
    reply = server.http.post("/tesseract/softmax/apply", json={"inputs": {"input": [1.0]}})
    (detail,) = reply.json()["detail"]
    assert detail["loc"] == ["body", "inputs", "dim"]
    assert "parameters" not in detail["msg"]


@pytest.mark.parametrize("path", ["/v2/models/rosenbrok", "/tesseract/rosenbrok/health"])
def test_an_unknown_model_is_told_the_nearest_functions_too(server: Server, path: str) -> None:
    reply = server.http.get(path)
    assert reply.status_code == 404
    assert "rosenbrock" in reply.text


@pytest.mark.parametrize("endpoint", ["oip.infer", "umbridge.Evaluate", "tesseract.apply"])
def test_a_foreign_refusal_says_each_thing_once(endpoint: str) -> None:
    error = PullbackError("bad_parameter", "It is wrong.", at="x", expected="one of a, b", given="c")
    text = b"".join(refused(endpoint, error, "id").buffers).decode()
    assert text.count("one of a, b") == 1
    assert "c" in text


# --- the schema says all that is sent ---------------------------------------------------------------------------------

_POINTS: Final[dict[str, tuple[str, Any]]] = {
    "smooth": ("(x**2).sum()", [1.0, 2.0]),
    "kink": ("relu(x).sum()", [0.0, 2.0]),
    "infinite": ("sqrt(x).sum()", [0.0, 2.0]),
    "whole": ("argmax(x)", [0.0, 2.0]),
    "cut": ("p = softmax(x, 0)\nlabel = argmax(p)\nwhere(label == 1, 0.0, 1.0) * x[0]", [0.0, 2.0]),
    "steps": ("round(x).sum()", [0.5, 2.0]),
    "narrow": ("log(softmax(x, 0))[0]", {"data": [0.0, 90.0], "dtype": "float32"}),
    "branch": ("y = x * 2\nif y.sum() > 0:\n    z = y * 3\nelse:\n    z = y\nz.sum()", [0.5, 2.0]),
    "complex": ("abs(x).sum()", {"data": [[0, 0], [1, 2]], "dtype": "complex128"}),
    "wrong_in_pytorch": ("(relu(x) - relu(-x)).sum()", [0.0, 1.0]),
    "unused": ("ones(2).sum() + 0 * x.shape[0]", [0.5, 2.0]),
    "random": ("(x * rand(2)).sum()", [0.5, 2.0]),
}
_FORMATS: Final = {
    "shifted": ("x[1:] * x[:-1]", "jacobian"),
    "sorted": ("sort(x)[0]", "jacobian"),
    "pointwise": ("x * x", "jacobian"),
    "sum_of_squares": ("(x * x).sum()", "hessian"),
    "several": ("return {'a': x * 2, 'b': x.sum()}", "jacobian"),
}


_REFUSED_REPORTS: Final = {(point, want) for point in ("whole", "unused", "random") for want in ("precision", "check")}


@pytest.fixture(scope="module")
def validator(server: Server) -> Any:
    """Of answers, by the served document, in which every object is closed: what it does not name must not be sent."""
    schemas = closed(server.http.get("/openapi.json").json()["components"])
    return jsonschema.Draft202012Validator({"$ref": "#/components/schemas/Answer", "components": schemas})


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    members = {key: closed(member) for key, member in schema.items()}
    return members | (
        {"additionalProperties": False} if "properties" in members and "additionalProperties" not in members else {}
    )


def _undocumented(validator: Any, answer: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in map(_deepest, validator.iter_errors(answer))]


def _deepest(error: Any) -> Any:
    return jsonschema.exceptions.best_match([error])


@pytest.mark.parametrize("want", ["outputs", "explain", "precision", "check"])
@pytest.mark.parametrize("point", _POINTS)
def test_reports_hold_what_the_schema_says_and_nothing_else(server: Server, validator: Any, point: str, want: str) -> None:
    program, x = _POINTS[point]
    answer = server.http.post("/v1/query", json={"program": program, "inputs": {"x": x}, "want": [want], "seed": 1})
    if answer.status_code != 200:  # of what has no derivative, and of what is drawn anew in each run
        assert (point, want) in _REFUSED_REPORTS, answer.json()
    else:
        assert not _undocumented(validator, answer.json())


@pytest.mark.parametrize("expected", [[2.0, 4.0], [4.0, 8.0], [9.0, -1.0], [[2.0, 4.0]]])
def test_a_check_of_what_is_believed_is_as_the_schema_says(server: Server, validator: Any, expected: Any) -> None:
    query = {"program": "(x**2).sum()", "inputs": {"x": [1.0, 2.0]}, "want": ["check"], "expected": {"x": expected}}
    answer = server.http.post("/v1/query", json=query).json()
    assert not _undocumented(validator, answer)
    assert isinstance(answer["check"]["x"]["also_possible"], list)


@pytest.mark.parametrize("form", ["dense", "diagonal", "sparse", "auto"])
@pytest.mark.parametrize("case", _FORMATS)
@pytest.mark.parametrize("batched", [False, True])
def test_derivatives_of_every_format_are_as_the_schema_says(
    server: Server, validator: Any, case: str, form: str, batched: bool
) -> None:
    program, want = _FORMATS[case]
    query = {"program": program, "inputs": {"x": [3.0, 1.0, 2.0]}, "want": [want], "format": form}
    if batched:
        query |= {"inputs": {"x": [[3.0, 1.0, 2.0], [1.0, 2.0, 4.0]]}, "batched": ["x"]}
    answer = server.http.post("/v1/query", json=query)
    if answer.status_code != 200:
        assert form == "diagonal", answer.json()
    else:
        assert not _undocumented(validator, answer.json())


@pytest.mark.parametrize("point", _POINTS)
def test_every_finding_has_the_contracts_keys(server: Server, point: str) -> None:
    program, x = _POINTS[point]
    query = {"program": program, "inputs": {"x": x}, "want": ["explain"], "seed": 1}
    explain = server.http.post("/v1/query", json=query).json()["explain"]
    for entry in [*explain["inputs"].values(), *explain["outputs"].values()]:
        for finding in [entry, *entry["findings"]]:
            assert {"verdict", "because", "instead", "elements"} <= finding.keys()
