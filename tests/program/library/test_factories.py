"""Tensors that a program makes stand where its inputs are, as on a GPU."""

from __future__ import annotations

import pytest
import torch

from app.program.compiler import build_program

ELSEWHERE = torch.device("meta")  # no GPU is needed to be somewhere else than on the CPU


@pytest.mark.parametrize(
    "text",
    [
        "ones(3) * x", "torch.eye(3) @ x", "torch.tensor([1.0, 2.0, 3.0]) * x", "arange(3) * x", "torch.full((3,), 2.0) + x", "rand(3) * x",
        "x.new_zeros(3) + x", "zeros_like(x) + x", "zeros(3, device='cpu') + x", "linspace(0, 1, 3) * x",
    ],
)  # fmt: skip
def test_a_constant_stands_where_the_inputs_are(text: str) -> None:
    with ELSEWHERE:
        x = torch.empty(3, dtype=torch.float64)
        function = build_program(text, {"x": x}, {}, torch.float64)
    assert {node.meta["val"].device for node in function.graph.nodes if "val" in node.meta} == {ELSEWHERE}
