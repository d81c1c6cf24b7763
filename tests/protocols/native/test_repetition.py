"""Queries taken apart to be answered again: whatever stands in a field, the way for what repeats never decides otherwise than the whole road."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.road import Request
from tests.protocols.asking import road

GOOD: dict[str, Any] = {
    "operation": "softmax",
    "inputs": {"input": {"dtype": "float32", "data": [1.0, 2.0]}},
    "parameters": {"dim": -1},
    "want": ["outputs", "vjp"],
}
VALUES: tuple[Any, ...] = (
    None,
    True,
    3,
    -1.5,
    2**70,
    "float64",
    "x",
    "",
    [],
    [1],
    [[1.0], 2.0],
    [[]],
    {},
    {"a": 1},
    ["float32"],
)


def asked(query: Any) -> tuple[int, str]:
    """Status and code of the answer."""
    reply = road().answer(Request("query", "x", None, None, None, memoryview(json.dumps(query).encode())), lambda _: None)
    body = json.loads(b"".join(bytes(piece) for piece in reply.buffers))
    return reply.status, body.get("code", "")


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("place", ["dtype", "data", "input", "inputs", "parameters", "want", "operation", "cotangent", "seed"])
def test_anything_anywhere_is_answered_or_refused(place: str, value: Any) -> None:
    """Three times, since what comes again goes another way; and a good query between them."""
    query = json.loads(json.dumps(GOOD))
    holder = {"dtype": query["inputs"]["input"], "data": query["inputs"]["input"], "input": query["inputs"]}.get(place, query)
    holder[place] = value
    answers = [asked(one) for one in (query, GOOD, query, GOOD, query)]
    assert answers[1] == answers[3] == (200, "")
    assert answers[0] == answers[2] == answers[4]
    assert answers[0][0] < 500


def test_numbers_belong_to_their_field_in_whatever_order_these_come() -> None:
    """First asked with the same numbers in both, so that an exchange would not show."""

    def answered(cotangent: float, number: float, content_type: str = "application/json") -> bytes:
        query = {"operation": "exp", "cotangent": {"output": [cotangent]}, "inputs": {"input": [number]}, "want": ["vjp"]}
        request = Request("query", "x", content_type, None, None, memoryview(json.dumps(query).encode()))
        return b"".join(bytes(piece) for piece in road().answer(request, lambda _: None).buffers)

    for number in (0.5, 0.75, 1.25):
        answered(number, number)
    assert answered(2.5, 0.5) == answered(2.5, 0.5, "application/json; charset=utf-8")
