"""Rows of a Jacobian are recorded with what confirms them, answered with the same bytes, and not at all where that contradicts them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from app.engine.autodiff import freivalds
from app.engine.recipes import PreparedReply
from app.limits import Limits
from app.road import Request, Road

# A media type that says the same in other words, so that the body is read by the whole road.
WHOLE_ROAD = "application/json; charset=utf-8"
X = [[0.3, -1.2, 0.7], [1.1, 0.4, -0.6]]
Y = [0.9, -0.2, 1.4]


def changed(value: Any, factor: float) -> Any:
    return [changed(member, factor) for member in value] if isinstance(value, list) else value * factor


def asked(road: Road, query: dict[str, Any], factor: float, content_type: str) -> tuple[int, bytes]:
    """Status and body of the answer to the query with its numbers times `factor`."""
    inputs = {name: changed(value, factor) for name, value in query["inputs"].items()}
    body = memoryview(json.dumps({**query, "inputs": inputs}).encode())
    reply = road.answer(Request("query", "a", content_type, None, None, body), lambda _: None)
    return reply.status, b"".join(map(bytes, reply.buffers))


def proved(road: Road, query: dict[str, Any]) -> PreparedReply | None:
    """What is prepared for the query, after it came so often that what can be recorded of it is."""
    for number in range(10):
        asked(road, query, 1 + number / 16, "application/json")
    while road.improve():
        pass
    body = json.dumps(query).encode()
    take_apart = road.taking_apart(Request("query", "a", "application/json", None, None, memoryview(body)))
    parts = None if take_apart is None else take_apart(body)
    return None if parts is None else parts.prepared


def program(text: str, **inputs: Any) -> dict[str, Any]:
    return {"program": text, "inputs": inputs, "want": ["jacobian"]}


RECORDED = [
    {"operation": "softmax", "inputs": {"input": Y}, "parameters": {"dim": 0}, "want": ["jacobian"]},
    {
        "operation": "softmax",
        "inputs": {"input": X},
        "parameters": {"dim": 1},
        "want": ["outputs", "jacobian"],
        "dtype": "float32",
    },
    program("(x @ y).tanh() * x.sum()", x=X, y=Y),
    {**program("return {'a': (x * y).exp().sum(1), 'b': x.sum() * y.sum()}", x=X, y=Y), "wrt": ["y"]},
    program("return {'a': x.sum(), 'b': relu(x).sum(0) ** 2}", x=X),
    {**program("return {'a': (x * x).sum(), 'b': y.sin()}", x=X, y=Y), "of": "a", "want": ["gradient", "jacobian", "vjp"]},
    program("cross_entropy(x, softmax(x.flip(0), 1), reduction='none')", x=X),
]


@pytest.mark.parametrize("query", RECORDED, ids=lambda query: str(query.get("program", "softmax")))
def test_jacobians_are_recorded_and_have_the_bytes_of_the_whole_road(query: dict[str, Any]) -> None:
    road = Road(Limits(), "cpu")
    prepared = proved(road, query)
    assert prepared is not None
    joint = prepared.recipe.joint
    if joint.single is None:  # by measured time; it is right all the same
        pytest.skip("on this machine the recording took no less time just now")
    for factor in (1.0, 0.5, -3.0, 0.0, 1e200, 1e-200):
        assert asked(road, query, factor, "application/json") == asked(road, query, factor, WHOLE_ROAD)


def test_rows_that_one_pass_contradicts_are_left_to_the_whole_road() -> None:
    """Of rows that PyTorch computes wrong only at some numbers: nothing recorded at others gives them."""
    road = Road(Limits(), "cpu")
    query = RECORDED[0]
    prepared = proved(road, query)
    assert prepared is not None
    if prepared.recipe.joint.single is None:
        pytest.skip("on this machine the recording took no less time just now")
    right = asked(road, query, 1.0, "application/json")
    weights = [constant for constant in prepared.recipe.joint.single.constants if constant.shape == (1, 3)]
    assert len(weights) == 1
    weights[0].mul_(torch.tensor([1.0, 1.0, 2.0]))  # as if a row were another
    freivalds.weights.cache_clear()  # they are shared
    body = json.dumps(query).encode()
    take_apart = road.taking_apart(Request("query", "a", "application/json", None, None, memoryview(body)))
    parts = None if take_apart is None else take_apart(body)
    assert parts is not None
    assert road.repeated(prepared, parts.repetition) is None
    assert asked(road, query, 1.0, "application/json") == right


def test_outputs_without_a_derivative_stand_beside_those_that_have_one() -> None:
    query = program("return {'a': (x * x).sum(0), 'b': x > 0, 'c': x.argmax(1), 'd': y}", x=X, y=Y) | {"wrt": ["x"]}
    road = Road(Limits(), "cpu")
    assert proved(road, query) is not None
    assert asked(road, query, 1.0, "application/json") == asked(road, query, 1.0, WHOLE_ROAD)
    assert asked(road, query, 1.0, WHOLE_ROAD)[0] == 200


def test_cdist_whose_batched_backward_is_wrong_has_no_recording() -> None:
    """∂|x-z|/∂x = sign(x-z) in one dimension; what confirms the rows contradicts them for every number."""
    query = {
        "operation": "cdist",
        "inputs": {"x1": [[0.3], [-1.2]], "x2": [[0.5], [-2.0], [1.5]]},
        "wrt": ["x1"],
        "want": ["jacobian"],
    }
    road = Road(Limits(), "cpu")
    prepared = proved(road, query)
    assert prepared is None or prepared.recipe.joint.single is None
    assert asked(road, query, 1.0, "application/json") == asked(road, query, 1.0, WHOLE_ROAD)
