"""A sample of explain's advice, run where it is given: `python -m tests.oracle.advice_sweep` runs all of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from app.errors import PullbackError
from tests.engine.asking import ask
from tests.oracle import explain_points
from tests.oracle.advice_sweep import complaints, pastes, pieces
from tests.oracle.explain_points import AskedPoint


def points() -> Iterator[AskedPoint]:
    yield from pastes()
    yield from itertools.islice(explain_points.of_programs(), 150, None, 15)
    yield from itertools.islice(explain_points.of_pointwise_functions(), 0, None, 131)


def test_the_advice_of_the_sample_keeps_its_promise() -> None:
    broken = {}
    for point in points():
        try:
            words = complaints(point)
        except PullbackError:
            continue
        if words:
            broken[point.title] = words
    assert not broken


@pytest.mark.parametrize(
    ("text", "x", "advice"),
    [
        ("sqrt(x)", [0.0, 1.0], "sqrt(x + eps)"),
        ("sqrt(x)", [-1.0, 1.0], "sqrt(x.clamp(min=0) + eps)"),
        ("rsqrt(x)", [-1.0, 0.0], "rsqrt(x.clamp(min=0) + eps)"),
        ("x.floor().long() * 1.0", [1.5, -2.5], "x + (floor(x) - x).detach()"),
        ("x.long() * 1.0", [1.5, -2.5], "x + (trunc(x) - x).detach()"),
        ("special.entr(x)", [0.0, 1.0], "-xlogy(x, x.clamp(min=0) + eps)"),
    ],
)
def test_the_advice_is_for_this_point(text: str, x: list[float], advice: str) -> None:
    report = ask(program=text, inputs={"x": np.array(x)}, want=["explain"]).results["explain"]
    assert advice in report["inputs"]["x"]["instead"]


def test_pieces_are_what_is_advised() -> None:
    sentence = "Pass it through: `s = x * 2`, then `s + 1` has the value of `round(x)`; or `hard=True`."
    assert list(pieces(sentence)) == [("s = x * 2", "s + 1")]
