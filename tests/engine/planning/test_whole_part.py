"""The part of a program that makes whole numbers of whole numbers."""

from __future__ import annotations

import pytest
import torch

from app.engine.planning.whole_part import whole_part
from app.query import Query
from tests.engine.asking import ENGINE, data

CASES: list[tuple[str, list[list[int]] | None]] = [
    ("x * 2", None),
    ("x[n[0]] * 2", None),
    ("x * (n + 1)", [[2, 3]]),
    ("m = n * n\nreturn x * (n + 1)", [[2, 3]]),
    ("x * (n + 1) * (arange(2) * 3)", [[2, 3], [0, 3]]),
]


@pytest.mark.parametrize(("program", "values"), CASES, ids=[program for program, _ in CASES])
def test_it_is_what_leads_to_whole_steps(program: str, values: list[list[int]] | None) -> None:
    query = Query(program=program, inputs={"x": data([0.5, 1.0]), "n": data([1, 2])}, want=("jacobian",), wrt=("x",))
    function = ENGINE.prepared(query).function
    part = whole_part(function)
    assert (part is None) == (values is None)
    if part is not None:
        leaves = {"x": torch.tensor([0.5, 1.0]), "n": torch.tensor([1, 2])}
        assert [value.tolist() for value in part.call(*(leaves[name] for name in part.leaves))] == values
        assert len(part.graph.nodes) < len(function.graph.nodes)
        of_inputs = whole_part(function, of_inputs=True)
        assert of_inputs is not None
        assert len(of_inputs.outputs) == 1
