"""What a Function detaches, and what it gives there."""

from __future__ import annotations

import pytest
import torch

from app.engine.stepwise.detached import detached_values
from app.engine.stepwise.point import Point
from tests.engine.building import checked, program


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


@pytest.mark.parametrize(
    "form",
    ["F.embedding(i, e, padding_idx=0)", "F.embedding(i, e, -3)", "F.embedding_bag(i[None], e, padding_idx=0, mode='sum')"],
)
@pytest.mark.parametrize(("first", "agrees"), [(0.0, True), (1.0, False)])
def test_a_row_of_padding_is_a_constant_to_who_checks_a_derivative(form: str, first: float, agrees: bool) -> None:
    believed = [[first, first], [1.0, 1.0], [2.0, 2.0]]
    verdict = checked(f"{form}.sum()", {"e": believed}, i=torch.tensor([0, 2, 2, 1]), e=[[1.0, 2.0], [0.5, 0.1], [0.3, 0.7]])[
        "e"
    ]
    assert verdict["agrees"] is agrees
    assert ("a path from `e` ends" in verdict.get("note", "")) is agrees
