"""Which Functions' zeros tell, and that a recipe leaves those to the whole road."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from app.engine.zeros.telling_zeros import has_telling_zeros, telling
from app.limits import Limits
from app.query import Query
from app.road import Request, Road
from tests.engine.asking import ENGINE, data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tanh(x).sum()", "any"),
        ("tanh(x[0])", "all"),
        ("relu(x).sum()", None),
        ("where(x > 0, x, 0.0)", None),
        ("rand(3) * x", None),
    ],
)
def test_of_which_functions_zeros_tell(text: str, expected: str | None) -> None:
    prepared = ENGINE.prepared(Query(program=text, inputs={"x": data([1.0, 2.0, 3.0])}, want=("vjp",), seed=0))
    assert telling(prepared) == expected


def test_zeros_of_an_input_explain_those_beside_them() -> None:
    def tells(result: Any, *leaves: Any, rule: Any = "any") -> bool:
        return has_telling_zeros(np.array(result), rule, lambda: [np.array(leaf) for leaf in leaves])

    assert tells([0.0, 1.0], [25.0, 1.0])
    assert not tells([0.0, 1.0], [0.0, 1.0])
    assert tells([0.0, 0.0, 1.0], [25.0, 0.0, 1.0])
    assert not tells([[0.0, 1.0], [0.0, 2.0]], [0.0, 1.0])
    assert not tells([0.0, 1.0], [[0.0, 1.0], [1.0, 1.0]])
    assert tells([0.0, 0.0], [0.0, 0.0], rule="all")
    assert not tells([0.0, 1.0], [25.0, 1.0], rule="all")


@pytest.mark.parametrize("want", [["vjp"], ["jacobian"], ["jvp"], ["outputs", "vjp"]])
def test_a_recipe_leaves_them_to_the_whole_road(want: list[str]) -> None:
    road = Road(Limits(), "cpu")

    def codes(x: list[float]) -> list[str]:
        body = json.dumps({"program": "tanh(x)", "inputs": {"x": x}, "want": want}).encode()
        reply = road.answer(Request("query", "a", "application/json", None, None, memoryview(body)), lambda _: None)
        return [note["code"] for note in json.loads(b"".join(map(bytes, reply.buffers)))["notes"]]

    for number in range(12):
        assert "rounded" not in codes([0.5, 0.25 + number])
    assert len(road.recipes) == 1
    assert "rounded" in codes([0.5, 25.0])
    assert "rounded" in codes([0.5, 15.0])
    assert "rounded" not in codes([0.5, 0.75])
