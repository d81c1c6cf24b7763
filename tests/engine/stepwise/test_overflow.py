"""The first step that overflows in the dtype that was sent is found; infinity that float64 has too is none."""

from __future__ import annotations

from weakref import ReferenceType, ref

import pytest
import torch
from torch import Tensor

from app.engine.stepwise.overflow import first_overflow
from app.engine.stepwise.point import Point, step_of
from tests.engine.building import program


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = x + 1\nb = a ** 2\nc = b * 2\n1 / c", 2),
        ("a = x / 0\n1 / a", None),
        ("a = x.masked_fill(x > 0, -inf)\nexp(a)", None),
    ],
)
def test_first_overflow(text: str, line: int | None) -> None:
    leaves = {"x": torch.tensor([300.0, 2.0], dtype=torch.float16)}
    function = program(text, leaves)
    for at, batched in ((leaves, ()), ({"x": torch.stack([leaves["x"], leaves["x"] / 300])}, ("x",))):
        node = first_overflow(function, at, None, batched)
        step = None if node is None else step_of(node)
        assert (None if step is None else step.line) == line


def test_results_that_no_later_step_needs_are_dropped() -> None:
    leaves = {"x": torch.ones(4)}
    point = Point(program("a = x + 1\nb = a * 2\nc = b * 3\nc.sum()", leaves), leaves, None)
    alive = []
    results: list[ReferenceType[Tensor]] = []
    for _, result in point.in_order():
        results.append(ref(result))
        del result
        alive.append(sum(each() is not None for each in results))
    assert len(alive) == 4
    assert max(alive) <= 2
