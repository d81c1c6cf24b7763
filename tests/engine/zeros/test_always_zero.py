"""What is zero whatever the inputs are is looked at once for all queries of a signature; what is zero at some of them is looked at each time."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from app.engine.zeros import lost_zeros
from app.limits import Limits
from app.query import Query
from app.road import Request, Road
from tests.engine.asking import ENGINE, data

X = [1.0, 2.5, 3.0]
# Program in x, what is wanted, whether it is zero whatever x is.
CASES: list[tuple[str, str, bool]] = [
    ("softmax(x, 0)", "vjp", True), ("(x - x.mean()).sum()", "gradient", True), ("(x / x.sum()).sum()", "gradient", True),
    ("nn.functional.layer_norm(x, (3,))", "vjp", True), ("x - x", "outputs", True), ("tanh(x).sum() * 0", "gradient", True),
    ("tanh(20 * x)", "vjp", False), ("1 - tanh(16 * x + 4)", "outputs", False), ("x * 1e-200 * 1e-200", "outputs", False),
    ("exp(-(16 * x) ** 4)", "outputs", False), ("sqrt(x * x) - x", "outputs", False), ("(x * x) ** 0.5 - x", "vjp", False),
    ("linalg.norm(x[:1]) - x[:1]", "outputs", False), ("x ** 2", "vjp", False), ("softmax(x, 0)", "outputs", False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "want", "is_always"), CASES)
def test_what_is_zero_whatever_the_inputs_are(text: str, want: str, is_always: bool) -> None:
    recipe = ENGINE.recipe(Query(program=text, inputs={"x": data(X)}, want=(want,)), None)
    assert recipe is not None
    assert recipe.always_zero is not None
    masks = recipe.always_zero({"x": torch.tensor(X, dtype=torch.float64)})
    assert any(mask.any() for mask in masks.values()) == is_always
    assert all(mask.all() == mask.any() for mask in masks.values())


def ask(road: Road, **query: Any) -> Any:
    body = memoryview(json.dumps(query).encode())
    reply = road.answer(Request("query", "a", "application/json", None, None, body), lambda _: None)
    return json.loads(b"".join(map(bytes, reply.buffers)))


def test_it_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of these numbers softmax leaves zeros; of the third query they are known to be ones."""
    road, query = (
        Road(Limits(), "cpu"),
        {"operation": "softmax", "parameters": {"dim": 0}, "want": ["vjp"], "inputs": {"input": X}},
    )
    answers = [ask(road, **query) for _ in range(3)]
    monkeypatch.setattr(lost_zeros, "note_lost_zeros", None)
    monkeypatch.setattr(lost_zeros, "exactly", None)
    assert [ask(road, **query) for _ in range(3)] == answers


@pytest.mark.parametrize("cotangent", [[1.0, 1.0], [1.0, 2.0]])
def test_a_cotangent_that_was_sent_is_a_number_like_others(cotangent: list[float]) -> None:
    """softmax at [0, 40] with a cotangent of ones is truly zero; with another one it is what was rounded away."""
    road = Road(Limits(), "cpu")
    query = {"program": "softmax(x, 0)", "want": ["vjp"]}
    for n in range(4):
        ask(road, inputs={"x": [1.0, 2.0 + n]}, cotangent={"output": [1.0, 1.0]}, **query)
    notes = ask(road, inputs={"x": [0.0, 40.0]}, cotangent={"output": cotangent}, **query)["notes"]
    alone = ask(Road(Limits(), "cpu"), inputs={"x": [0.0, 40.0]}, cotangent={"output": cotangent}, **query)["notes"]
    assert notes == alone
