"""The behaviours that UM-Bridge's own conformance suite looks for, written anew: closed replies, exact error types, no Content-Type."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.server import Server

NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1}
ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            "required": ["type", "message"],
            "additionalProperties": False,
        }
    },
    "required": ["error"],
    "additionalProperties": False,
}


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SUPPORT = closed(**{key: {"type": "boolean"} for key in ("Evaluate", "Gradient", "ApplyJacobian", "ApplyHessian")})
SCHEMAS = {
    "Info": closed(protocolVersion={"const": 1.0}, models={"type": "array", "items": {"type": "string"}, "minItems": 1}),
    "ModelInfo": closed(support=SUPPORT),
    "InputSizes": closed(inputSizes={"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}),
    "OutputSizes": closed(outputSizes={"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}),
    "Evaluate": closed(output={"type": "array", "items": NUMBERS, "minItems": 1}),
    "Gradient": closed(output=NUMBERS),
    "ApplyJacobian": closed(output=NUMBERS),
    "ApplyHessian": closed(output=NUMBERS),
}


class Bridge:
    """Sends as the suite does: a string as the body, no Content-Type."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def post(self, path: str, **fields: Any) -> httpx.Response:
        request = self._http.build_request("POST", f"/{path}", content=json.dumps(fields).encode())
        request.headers.pop("content-type", None)
        return self._http.send(request)

    def ask(self, path: str, **fields: Any) -> Any:
        reply = self.post(path, **fields)
        assert reply.status_code == 200, reply.text
        Draft202012Validator(SCHEMAS[path]).validate(reply.json())
        return reply.json()

    def refused(self, path: str, kind: str, **fields: Any) -> None:
        reply = self.post(path, **fields)
        assert reply.status_code == 400, reply.text
        Draft202012Validator(ERROR).validate(reply.json())
        assert reply.json()["error"]["type"] == kind, reply.text

    def models(self) -> list[str]:
        reply = self._http.get("/Info")
        assert reply.status_code == 200
        Draft202012Validator(SCHEMAS["Info"]).validate(reply.json())
        listed: list[str] = reply.json()["models"]
        return listed

    def point(self, name: str) -> dict[str, Any]:
        """A model's zeros with an empty config, and the vectors that go with them."""
        sizes = self.ask("InputSizes", name=name, config={})["inputSizes"]
        outputs = self.ask("OutputSizes", name=name, config={})["outputSizes"]
        return {
            "name": name,
            "config": {},
            "input": [[0.0] * size for size in sizes],
            "sens": [0.0] * outputs[0],
            "vec": [0.0] * sizes[0],
        }


@pytest.fixture
def bridge(speaking: Server) -> Bridge:
    return Bridge(speaking.http)


DERIVATIVES = {
    "Gradient": ("sens", {"outWrt": 0, "inWrt": 0}),
    "ApplyJacobian": ("vec", {"outWrt": 0, "inWrt": 0}),
    "ApplyHessian": ("both", {"outWrt": 0, "inWrt1": 0, "inWrt2": 0}),
}


def call(point: dict[str, Any], path: str) -> dict[str, Any]:
    vector, indices = DERIVATIVES[path]
    left_out = {"sens": "vec", "vec": "sens", "both": ""}[vector]
    return {**{key: value for key, value in point.items() if key != left_out}, **indices}


# 1, 2
def test_info_lists_models(bridge: Bridge) -> None:
    models = bridge.models()
    assert len(models) == len(set(models))


def test_the_first_model_is_one_small_vector_to_one_number(bridge: Bridge) -> None:
    first = bridge.models()[0]
    assert bridge.ask("InputSizes", name=first, config={}) == {"inputSizes": [2]}
    assert bridge.ask("OutputSizes", name=first, config={}) == {"outputSizes": [1]}


def test_the_first_model_is_finite_at_zeros_whatever_else_is_kept(bridge: Bridge) -> None:
    """The server has functions of its own, some of one small vector and infinite at zero."""
    first = bridge.models()[0]
    assert len(bridge.models()) > 20
    bridge.ask("Evaluate", name=first, input=[[0.0, 0.0]], config={})


# 3 to 8
@pytest.mark.parametrize("path", ["ModelInfo", "InputSizes", "OutputSizes"])
def test_facts_of_a_model(bridge: Bridge, path: str) -> None:
    for name in bridge.models():
        bridge.ask(path, name=name, config={})
        bridge.ask(path, name=name)


@pytest.mark.parametrize("path", ["ModelInfo", "InputSizes", "OutputSizes"])
def test_facts_of_an_unknown_model(bridge: Bridge, path: str) -> None:
    bridge.refused(path, "ModelNotFound", name="no such model")


# 9 to 13
def test_evaluate(bridge: Bridge) -> None:
    for name in bridge.models():
        point = bridge.point(name)
        reply = bridge.post("Evaluate", name=name, input=point["input"], config={})
        if name.startswith("same_") and reply.status_code != 200:  # of an operation that is infinite at zero
            assert reply.json()["error"]["type"] in ("InvalidOutput", "InvalidInput")
            continue
        Draft202012Validator(SCHEMAS["Evaluate"]).validate(reply.json())
        sizes = bridge.ask("OutputSizes", name=name, config={})["outputSizes"]
        assert [len(vector) for vector in reply.json()["output"]] == sizes


def test_evaluate_without_config(bridge: Bridge) -> None:
    point = bridge.point(bridge.models()[0])
    assert bridge.ask("Evaluate", name=point["name"], input=point["input"]) == bridge.ask(
        "Evaluate", name=point["name"], input=point["input"], config=None
    )


def test_evaluate_of_an_unknown_model_looks_at_nothing_else(bridge: Bridge) -> None:
    bridge.refused("Evaluate", "ModelNotFound", name="no such model")


def test_evaluate_with_a_vector_too_many(bridge: Bridge) -> None:
    point = bridge.point(bridge.models()[0])
    bridge.refused("Evaluate", "InvalidInput", name=point["name"], input=[*point["input"], [0.0]], config={})
    bridge.refused("Evaluate", "InvalidInput", name=point["name"], input=[], config={})


def test_evaluate_with_a_wrong_length(bridge: Bridge) -> None:
    for name in bridge.models():
        point = bridge.point(name)
        longer = [[*point["input"][0], 0.0], *point["input"][1:]]
        bridge.refused("Evaluate", "InvalidInput", name=name, input=longer, config={})


# 14 to 22
@pytest.mark.parametrize("path", DERIVATIVES)
def test_derivative(bridge: Bridge, path: str) -> None:
    point = bridge.point(bridge.models()[0])
    assert len(bridge.ask(path, **call(point, path))["output"]) == (1 if path == "ApplyJacobian" else 2)


@pytest.mark.parametrize("path", DERIVATIVES)
def test_derivative_of_an_unknown_model_looks_at_nothing_else(bridge: Bridge, path: str) -> None:
    bridge.refused(path, "ModelNotFound", name="no such model")


@pytest.mark.parametrize("path", DERIVATIVES)
def test_derivative_with_wrong_vectors(bridge: Bridge, path: str) -> None:
    point = bridge.point(bridge.models()[0])
    good = call(point, path)
    bridge.refused(path, "InvalidInput", **{**good, "input": [[0.0]]})
    bridge.refused(path, "InvalidInput", **{**good, "input": [[0.0, 0.0], [0.0]]})
    for field in ("sens", "vec"):
        if field in good:
            bridge.refused(path, "InvalidInput", **{**good, field: [*good[field], 1.0]})
            bridge.refused(path, "InvalidInput", **{key: value for key, value in good.items() if key != field})


@pytest.mark.parametrize(("path", "index"), [(path, index) for path, (_, indices) in DERIVATIVES.items() for index in indices])
@pytest.mark.parametrize("value", [1, -1, "0", 0.5, None, True])
def test_derivative_with_a_wrong_index(bridge: Bridge, path: str, index: str, value: Any) -> None:
    good = call(bridge.point(bridge.models()[0]), path)
    bridge.refused(path, "InvalidInput", **{**good, index: value})
