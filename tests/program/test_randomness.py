"""Random numbers of a program come from one seed, in order: what would have other numbers in PyTorch is refused with its line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.errors import PullbackError
from tests.engine.asking import ask, results

DRAWN_TWICE = "a = torch.rand(2)\ntorch.manual_seed(1)\nb = torch.rand(2)\na - b"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("torch.manual_seed(1)\n" + DRAWN_TWICE, 3),
        ("def f():\n    torch.manual_seed(0)\n    return torch.rand(2)\nf() - f()", 2),
        ("for i in range(2):\n    torch.manual_seed(i)\n    a = torch.randn(2)\na", 2),
        ("torch.manual_seed(1)\na = nn.Linear(2, 2)\ntorch.manual_seed(1)\nb = nn.Linear(2, 2)\na(x) - b(x)", 3),
        ("with torch.random.fork_rng():\n    a = torch.rand(2)\na + torch.rand(2)", 1),
        ("g = torch.Generator()\na = torch.rand(2, generator=g)\ng.manual_seed(0)\na + torch.rand(2, generator=g)", 3),
    ],
)
def test_seeding_anew_is_refused_where_something_is_drawn_after(text: str, line: int) -> None:
    with pytest.raises(PullbackError, match=f"Line {line} seeds anew") as caught:
        ask(program=text, inputs={"x": [1.0, 2.0]}, seed=7)
    assert "draw them once" in str(caught.value.fix)


def test_several_generators_are_refused() -> None:
    with pytest.raises(PullbackError, match="several generators"):
        ask(program="g = torch.Generator()\nx * torch.rand(2, generator=g) + torch.rand(2)", inputs={"x": [1.0, 2.0]}, seed=7)


@pytest.mark.parametrize(
    "text",
    [
        "torch.manual_seed(3)\ntorch.rand(2)",
        "torch.manual_seed(3)\na = torch.rand(2)\ntorch.manual_seed(4)\na",
        "g = torch.Generator().manual_seed(3)\ntorch.rand(2, generator=g)",
    ],
)
def test_one_seed_of_the_text_is_the_seed(text: str) -> None:
    wanted = torch.rand(2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    np.testing.assert_array_equal(results(program=text)["outputs"]["output"], wanted)


def test_the_seed_of_the_query_is_before_that_of_the_text() -> None:
    one, two = (results(program="torch.manual_seed(3)\ntorch.rand(2)", seed=seed)["outputs"]["output"] for seed in (3, 4))
    assert not np.array_equal(one, two)
