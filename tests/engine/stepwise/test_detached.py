"""What a Function detaches, and what it gives there."""

from __future__ import annotations

import pytest
import torch

from app.engine.stepwise.detached import detached_values
from app.engine.stepwise.point import Point
from tests.engine.building import program


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("x * 2", []),
        ("x * x.detach()", [[1.0, 2.0]]),
        ("y = x * 2\nwith torch.no_grad():\n    t = y + 1\ny * t", [[2.0, 4.0]]),  # what enters the region
        ("y = x * 2\ny.data[0] = 5.0\ny * x", []),  # what is written behind autograd's back moves with the rest
    ],
)
def test_what_is_detached_is_held_as_it_is_at_the_point(text: str, held: list[list[float]]) -> None:
    leaves = {"x": torch.tensor([1.0, 2.0], dtype=torch.float64)}
    point = Point(program(text, leaves), leaves, None)
    assert [value.tolist() for value in detached_values(point).values()] == held
