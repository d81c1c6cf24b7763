"""Queries taken apart to be answered again: whatever stands in a field, the way for what repeats never decides otherwise than the whole road."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.errors import PullbackError
from app.limits import Limits
from app.protocols.message import Message
from app.protocols.native import bodies, native_query
from app.protocols.native.repetition import taking_apart
from app.query import Query
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


@pytest.mark.parametrize("dtype", [None, "float64", "float32", "int64", "float16"])
@pytest.mark.parametrize(
    "numbers",
    [
        1,
        -2.5,
        [1, 2],
        [0.1, 3e-45],
        [1, 2.5],
        [[1.5, 2], [3, 4]],
        [[[1e38]]],
        [3.4028235e38],
        [2**53, -(2**53)],
        [2**60],
        ["NaN", 1.0],
    ],
    ids=repr,
)
def test_tensors_are_read_as_the_whole_road_reads_them(numbers: Any, dtype: str | None) -> None:
    tensor = numbers if dtype is None else {"data": numbers, "dtype": dtype}
    for asked in (
        {"program": "return x * y", "inputs": {"x": tensor, "y": 2.0}, "cotangent": {"output": tensor}, "want": ["vjp"]},
        {"operation": "cat", "inputs": {"tensors": tensor}, "tangent": {"tensors": tensor}, "want": ["jvp"]},
        {"operation": "mul", "inputs": {"other": tensor, "input": [[1, 2]]}, "want": ["outputs"]},
    ):
        text = json.dumps(asked).encode()
        again = taking_apart(Message("query", memoryview(b"")))(text)  # type: ignore[misc]
        known = {} if again is None else again.tensors
        assert again is None or set(known) >= {"inputs.x"} or "operation" in asked
        first, second = (_read(text, *value) for value in ((), (json.loads(text), known)))
        assert first == second


def _read(text: bytes, *known: Any) -> Query | str:
    try:
        return bodies.read(memoryview(text), None, None, Limits(), *known)
    except PullbackError as error:
        return str(error.problem("x"))


@pytest.mark.parametrize("rows", [1, 200], ids=["a short text", "a long text"])
@pytest.mark.parametrize("depth", [90, 98, 99, 120])
def test_what_is_nested_deeply_beside_tensors_is_refused_as_the_whole_road_refuses_it(depth: int, rows: int) -> None:
    deep = json.loads("[" * depth + "1" + "]" * depth)
    text = json.dumps({**GOOD, "inputs": {"input": [[0.25] * 8] * rows}, "parameters": {"dim": deep}}).encode()
    again = taking_apart(Message("query", memoryview(b"")))(text)  # type: ignore[misc]
    assert again is not None
    assert _read(text) == _read(text, again.value, again.tensors)
    assert ("json_depth" in str(_read(text))) == (depth > 98)


def test_the_tensors_of_a_query_that_is_new_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_query, "tensor", None)  # what reads them again
    assert asked({"program": "return (x * y).sum()", "inputs": {"x": [[1.0, 2.5]], "y": 3}, "want": ["vjp"]}) == (200, "")
    assert asked({**GOOD, "inputs": {"input": [[1.5, 2.0, 0.5]]}}) == (200, "")


FAMILIES: tuple[tuple[dict[str, Any], ...], ...] = (
    (
        {"program": "return x @ w", "inputs": {"x": [[1.0]], "w": [2.0]}, "want": ["vjp"], "cotangent": {"output": [1.0]}},
        {"program": "return x @ w", "inputs": {"x": [[1.0, 2.0]] * 3, "w": [2.0, 0.5]}, "want": ["vjp"], "cotangent": {"output": [1.0] * 3}},
        {"program": "return x @ w", "inputs": {"x": 1.5, "w": []}, "want": ["vjp"], "cotangent": {"output": [[1.0]]}},
    ),
    tuple({**GOOD, "inputs": {"input": rows}, "parameters": {"dim": dim}} for dim in (0, 0.0, False) for rows in ([1.0], [[2.0]])),
    tuple({"operation": "cat", "inputs": {"tensors": rows}, "want": ["outputs"]} for rows in ([[1.0], [2.0]], [[1.0, 2.0]], [3.0])),
    tuple({"program": "return x", "inputs": {"x": rows}, "want": ["jvp"], "tangent": {"x": rows}} for rows in ([1.0], [[2.0]], [1])),
    tuple({"program": "return x", "inputs": {"x": rows}, "parameters": {name: 1}} for name in "nx" for rows in ([1.0], [[2.0]])),
    tuple({"program": "return x", "inputs": {"x": rows}, **more} for rows in (1, [2]) for more in ({"of": "x"}, {"want": "x"}, {"wrt": ["x"]})),
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_other_shapes_of_a_query_are_read_as_the_whole_road_reads_them(family: tuple[dict[str, Any], ...]) -> None:
    for asked in (*family, *family[::-1]):
        text = json.dumps(asked).encode()
        again = taking_apart(Message("query", memoryview(b"")))(text)  # type: ignore[misc]
        if again is not None:
            assert _read(text) == _read(text, again.value, again.tensors, again.family)


def test_a_query_of_another_shape_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def query(rows: int) -> dict[str, Any]:
        return {"program": "return (x * y).sum() * 7", "inputs": {"x": [[1.0, 2.5]] * rows, "y": 3.5}, "want": ["vjp"]}

    assert asked(query(2)) == (200, "")
    monkeypatch.setattr(native_query, "query", None)
    assert asked(query(3)) == (200, "")
