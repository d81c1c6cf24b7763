"""Inference requests that come again are answered by their recipes, with the very bytes of the whole road, whatever their numbers are."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from app.limits import Limits
from app.protocols.oip.envelope import JSON_LENGTH
from app.road import Request, Road

# A content coding that changes nothing, so that the body is read by the whole road.
WHOLE_ROAD = "identity"
X, G = [0.5, -1.5, 2.0], [1.0, 0.0, -2.0]
DATATYPES = {"FP64": "<f8", "FP32": "<f4", "INT64": "<i8", "INT32": "<i4"}


def tensor(name: str, data: Any, datatype: str = "FP64", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(np.array(data, object).shape) if data else [0],
        "datatype": datatype,
        "data": data,
        **fields,
    }


# name: (model, inputs, the rest of the request, whether it has a recipe)
REQUESTS: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any], bool]] = {
    "all": ("exp", [tensor("input", X)], {}, True),
    "a scalar": ("exp", [tensor("input", 0.5)], {}, True),
    "named": ("softmax", [tensor("input", X)], {"outputs": [{"name": "vjp.input"}], "parameters": {"dim": 0}}, True),
    "the other way round": (
        "mul", [tensor("cotangent.output", G), tensor("other", X), tensor("input", [2.0, 3.0, 4.0])],
        {"outputs": [{"name": "vjp.other"}, {"name": "output"}, {"name": "vjp.input"}]}, True,
    ),
    "float32": ("tanh", [tensor("input", [0.5, 1.5], "FP32")], {}, True),
    "a matrix": ("tril", [tensor("input", [[2.0, 1.0], [1.0, 3.0]])], {}, True),
    "a matrix whose numbers decide on a note": ("linalg.inv", [tensor("input", [[2.0, 1.0], [1.0, 3.0]])], {}, True),
    "whole numbers": ("gather", [tensor("input", X), tensor("index", [0, 2], "INT64")], {"parameters": {"dim": 0}}, True),
    "nothing to differentiate": ("eq", [tensor("input", X), tensor("other", G)], {}, True),
    "a program": ("program", [tensor("x", X)], {"parameters": {"program": "return (x ** 2).sum()"}}, True),
    "an id": ("exp", [tensor("input", X)], {"id": "a"}, True),
    "a tangent": ("exp", [tensor("input", X), tensor("tangent.input", G)], {}, False),
    "a list": ("cat", [tensor("tensors.0", X), tensor("tensors.1", G)], {}, False),
    "a seed": ("bernoulli", [tensor("input", [0.5, 0.5])], {"parameters": {"seed": 3}}, False),
    "a timeout": ("exp", [tensor("input", X)], {"parameters": {"timeout": 9_000_000}}, False),
    "complex": ("exp", [tensor("input", [[0.5, 1.5]], parameters={"complex": True})], {}, False),
}  # fmt: skip


def body_of(inputs: list[dict[str, Any]], rest: dict[str, Any], *, binary: bool) -> tuple[bytes, dict[str, str]]:
    if not binary:
        return json.dumps({"inputs": inputs, **rest}).encode(), {}
    with np.errstate(over="ignore"):  # to infinity, as is meant
        tail = [np.asarray(one["data"], DATATYPES[one["datatype"]]).tobytes() for one in inputs]
    described = [
        {
            **{key: value for key, value in one.items() if key != "data"},
            "parameters": {**one.get("parameters", {}), "binary_data_size": len(raw)},
        }
        for one, raw in zip(inputs, tail, strict=True)
    ]
    parameters = {**rest.get("parameters", {}), "binary_data_output": True}
    text = json.dumps({"inputs": described, **rest, "parameters": parameters}).encode()
    return text + b"".join(tail), {JSON_LENGTH: str(len(text))}


def answer(
    road: Road, model: str, body: bytes, headers: dict[str, str], content_encoding: str | None = None
) -> tuple[Any, ...]:
    """All that a client sees of the reply, and what it counts as. With a `content_encoding`, as by the whole road."""
    request = Request("oip.infer", "a", None, content_encoding, None, memoryview(body), {"model": model, **headers})
    reply = road.answer(request, lambda _: None)
    return reply.status, reply.media_type, dict(reply.headers), b"".join(map(bytes, reply.buffers)), dict(reply.labels)


def changed(inputs: list[dict[str, Any]], number: random.Random, how: str) -> list[dict[str, Any]]:
    def of(value: Any) -> Any:
        if isinstance(value, list):
            return [of(member) for member in value]
        if type(value) is int:
            return value if how != "far" else value + 1
        return {"near": value * number.uniform(0.9, 1.1), "zero": 0.0, "far": value * 1e160, "as it is": value}[how]

    return [{**one, "data": of(one["data"])} for one in inputs]


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
@pytest.mark.parametrize(("model", "inputs", "rest", "repeats"), REQUESTS.values(), ids=REQUESTS)
def test_a_repeated_request_is_answered_alike(
    model: str, inputs: list[dict[str, Any]], rest: dict[str, Any], repeats: bool, binary: bool
) -> None:
    number = random.Random(1)
    road, whole = Road(Limits(), "cpu"), Road(Limits(), "cpu")
    for how in ("as it is", "as it is", "near", "near", "zero", "far", "near"):
        body, headers = body_of(changed(inputs, number, how), rest, binary=binary)
        assert answer(road, model, body, headers) == answer(whole, model, body, headers, WHOLE_ROAD), how
    assert (len(road.recipes) == 1) is repeats


@pytest.mark.parametrize("spoiled", [[np.nan, 1.0], [np.inf, 1.0], [-0.0, 5e-324]])
def test_bytes_that_are_no_ordinary_numbers(spoiled: list[float]) -> None:
    road, whole = Road(Limits(), "cpu"), Road(Limits(), "cpu")
    for data in ([0.5, 1.5], [0.5, 1.5], spoiled, [0.25, 1.0]):
        body, headers = body_of([tensor("input", data)], {}, binary=True)
        assert answer(road, "relu", body, headers) == answer(whole, "relu", body, headers, WHOLE_ROAD)


@pytest.mark.parametrize(
    "tensors",
    [
        [tensor("input", [1, 2])], [{**tensor("input", [1.0, 2.0]), "shape": [1, 2]}], [{**tensor("input", [1.0, 2.0]), "shape": [3]}],
        [tensor("input", [True, False])], [tensor("input", ["1", 2.0])], [tensor("input", [None, 2.0])], [tensor("input", [1e39, 2.0], "FP32")],
        [tensor("input", [1.0, 2.0]), tensor("input", [1.0, 2.0])], [tensor("other", [1.0, 2.0])], [], [1],
        [{"name": "input", "shape": [2], "datatype": "FP64"}], [{"name": "input"}],
        [{**tensor("input", [1.0]), "data": [[1.0], [2.0, 3.0]]}], [tensor("input", [])], [{**tensor("input", [1.0, 2.0]), "more": 1}],
        [{**tensor("input", [1.0, 2.0]), "parameters": {"binary_data_size": 16}}], [{**tensor("input", [1.0, 2.0]), "datatype": []}],
        [{**tensor("input", [1.0, 2.0]), "parameters": [1]}], [{**tensor("input", [1.0, 2.0]), "data": {}}], [tensor("input", [1.0, 2.0], "BOOL")],
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_only_like_another_is_read_for_itself(tensors: list[Any]) -> None:
    road, whole = Road(Limits(), "cpu"), Road(Limits(), "cpu")
    good, _ = body_of([tensor("input", [0.5, 1.5])], {}, binary=False)
    for _ in range(3):
        assert answer(road, "exp", good, {})[0] == 200
    body = json.dumps({"inputs": tensors}).encode()
    for _ in range(3):
        reply = answer(road, "exp", body, {})
        assert reply == answer(whole, "exp", body, {}, WHOLE_ROAD)
        assert reply[0] < 500
