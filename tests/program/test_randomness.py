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


@pytest.mark.parametrize(
    "text",
    [
        "g = torch.Generator()\nx * torch.rand(2, generator=g) + torch.rand(2)",
        "from torch.utils.data import random_split\ng = torch.Generator().manual_seed(1)\na, b = random_split([1, 2], [1, 1], generator=g)\n"
        "x * torch.rand(2, generator=g)",  # what comes from the second seed of a generator would be of another
    ],
)
def test_several_generators_are_refused(text: str) -> None:
    with pytest.raises(PullbackError, match="several generators"):
        ask(program=text, inputs={"x": [1.0, 2.0]}, seed=7)


def test_which_of_two_generators_a_name_is_is_not_guessed() -> None:
    text = "g = torch.Generator().manual_seed(3)\nh = torch.Generator().manual_seed(2)\ntorch.rand(2, generator=g)"
    with pytest.raises(PullbackError, match="seed"):
        ask(program=text)


def test_a_generator_of_its_own_may_be_seeded_between_draws() -> None:
    text = "a = torch.rand(2)\ng = torch.Generator().manual_seed(4)\ntorch.stack([a, torch.rand(2)])"
    torch.manual_seed(3)
    wanted = torch.rand(2, 2, dtype=torch.float64)
    np.testing.assert_array_equal(results(program=text, seed=3)["outputs"]["output"], wanted)


@pytest.mark.parametrize(
    "text",
    [
        "torch.manual_seed(3)\ntorch.rand(2)",
        "torch.manual_seed(3)\na = torch.rand(2)\ntorch.manual_seed(4)\na",
        "g = torch.Generator().manual_seed(3)\ntorch.rand(2, generator=g)",
        "def seed_all(seed=3):\n    torch.cuda.manual_seed(seed)\n    torch.manual_seed(seed)\nseed_all()\ntorch.rand(2)",
    ],
)
def test_one_seed_of_the_text_is_the_seed(text: str) -> None:
    wanted = torch.rand(2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    np.testing.assert_array_equal(results(program=text)["outputs"]["output"], wanted)


@pytest.mark.parametrize(
    "text",
    [
        "torch.manual_seed(1)\ntorch.manual_seed(3)\ntorch.rand(2)",
        "torch.manual_seed(1)\nn = 3\ntorch.manual_seed(n)\ntorch.rand(2)",
        "torch.manual_seed(1)\ntorch.manual_seed(3)\na = torch.rand(2)\ntorch.manual_seed(4)\na",
        "torch.cuda.manual_seed_all(1)\ntorch.manual_seed(3)\ntorch.cuda.manual_seed(2)\ntorch.rand(2)",
        "def f():\n    torch.manual_seed(3)\n    return torch.rand(2)\ntorch.manual_seed(1)\nf()",
        "torch.manual_seed(1)\ng = torch.Generator().manual_seed(3)\ntorch.rand(2, generator=g)",
        "g = torch.Generator()\ng.manual_seed(3)\nh = torch.Generator()\nh.manual_seed(2)\ntorch.manual_seed(1)\ntorch.rand(2, generator=g)",
    ],
)
def test_of_several_seeds_the_last_before_anything_is_drawn_counts(text: str) -> None:
    test_one_seed_of_the_text_is_the_seed(text)


def test_a_last_seed_that_is_not_known_is_asked_for() -> None:
    with pytest.raises(PullbackError, match="seed"):
        ask(program="torch.manual_seed(1)\ntorch.manual_seed(int(x.sum()))\ntorch.rand(2) * x", inputs={"x": [1.0, 2.0]})


def test_the_seed_of_the_query_is_before_that_of_the_text() -> None:
    one, two = (results(program="torch.manual_seed(3)\ntorch.rand(2)", seed=seed)["outputs"]["output"] for seed in (3, 4))
    assert not np.array_equal(one, two)


_LOADER = "from torch.utils.data import DataLoader\n"
_READING = (
    "l = torch.randperm(7).tolist()\ntorch.tensor(l)",
    "n = 0\nfor i in range(20):\n    if torch.rand(()) < 0.5:\n        n += 2 ** i\ntorch.tensor(n)",
    "w = nn.Linear(1, 1).weight\ntorch.tensor(1.0 if w.item() > 0 else 2.0)",
    _LOADER + "torch.cat([b for b in DataLoader([0.0, 1.0, 2.0, 3.0, 4.0], batch_size=2, shuffle=True)])",
)


@pytest.mark.parametrize("text", _READING)
def test_numbers_that_are_read_of_what_is_drawn_are_those_of_the_seed(text: str) -> None:
    *lines, last = text.split("\n")
    names: dict[str, object] = {"torch": torch, "nn": torch.nn}
    before = torch.get_default_dtype()
    for seed in (1, 2, 3, 1):  # one worker answers all of them
        torch.set_default_dtype(torch.float64)
        try:
            torch.manual_seed(seed)
            exec("\n".join(lines), names)  # noqa: S102 (a text of this file)
            wanted = eval(last, names).numpy()  # noqa: S307 (the same)
        finally:
            torch.set_default_dtype(before)
        np.testing.assert_array_equal(results(program=text, seed=seed)["outputs"]["output"], wanted)
