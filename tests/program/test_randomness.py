"""Random numbers of a program come from one seed, in order: what would have other numbers in PyTorch is refused with its line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.errors import PullbackError
from tests.engine.asking import Array, ask, results

DRAWN_TWICE = "a = torch.rand(2)\ntorch.manual_seed(1)\nb = torch.rand(2)\na - b"


_TWO_LAYERS = (
    "torch.manual_seed(1)\na = nn.Linear(2, 2)\ntorch.manual_seed({})\nb = nn.Linear(2, 2)\n(a(x) - 2 * b(x)).detach()"
)


@pytest.mark.parametrize(
    ("text", "seed", "first"),
    [
        ("torch.manual_seed(1)\n" + DRAWN_TWICE, None, 1),
        (DRAWN_TWICE, 7, 7),
        ("def f():\n    torch.manual_seed(0)\n    return torch.rand(2)\nf() - f()", None, 0),
        ("a = 0\nfor i in range(2):\n    torch.manual_seed(i + 3)\n    a = a + i * torch.randn(2)\na", None, 3),
        (_TWO_LAYERS.format(1), None, 1),
        (_TWO_LAYERS.format(4), None, 1),
        ("net = nn.Linear(3, 2)\ntorch.manual_seed(1)\nv = torch.randn(4, 3)\nnet(v).sum().detach()", 5, 5),
        ("a = torch.rand(2)\ntorch.manual_seed(int(x.sum()))\ntorch.cuda.manual_seed_all(2)\na - torch.rand(2)", 5, 5),
        ("a = F.dropout(x)\ntorch.manual_seed(2)\nb = F.dropout(x)\ntorch.manual_seed(2)\na + 2 * b - F.dropout(x)", 5, 5),
        (
            "torch.manual_seed(3)\nwith torch.random.fork_rng():\n    a = torch.rand(2)\ntorch.manual_seed(2)\na - torch.rand(2)",
            None,
            3,
        ),
        ("a = torch.rand(2)\ntorch.manual_seed(2)\nl = torch.randperm(7).tolist()\ntorch.tensor(l) * a[0]", 5, 5),
        ("torch.manual_seed(int(x.sum()))\ntorch.rand(2) * x", None, 3),
    ],
)
def test_what_is_drawn_after_a_seed_is_what_pytorch_draws(text: str, seed: int | None, first: int) -> None:
    wanted = _plain(text, first)
    for _ in range(2):  # the second is answered by what is known of the first
        answered = results(
            program=text, inputs={"x": [1.0, 2.0]} if "x" in text else {}, **({} if seed is None else {"seed": seed})
        )
        np.testing.assert_array_equal(answered["outputs"]["output"], wanted)


def _plain(text: str, seed: int) -> Array:
    """What plain PyTorch gives for the last line."""
    *lines, last = text.split("\n")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        names: dict[str, object] = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "x": torch.tensor([1.0, 2.0])}
        torch.manual_seed(seed)
        exec("\n".join(lines), names)  # noqa: S102 (a text of this file)
        wanted: Array = eval(last, names).numpy()  # noqa: S307 (the same)
    finally:
        torch.set_default_dtype(before)
    return wanted


def test_a_seed_that_counts_is_not_said_to_be_left_out() -> None:
    notes = ask(program=DRAWN_TWICE, seed=3).notes
    assert not any("manual_seed" in note.message for note in notes)


def test_derivatives_and_batches_draw_after_a_seed_what_one_run_draws() -> None:
    text = (
        "a = torch.rand(2)\ntorch.manual_seed(2)\nb = torch.rand(2)\ntorch.manual_seed(2)\nx ** 2 * (a - 3 * torch.rand(2) * b)"
    )
    factor = _plain(text.replace("x ** 2 * ", ""), 5)
    x = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    one = results(program=text, inputs={"x": x[0]}, seed=5, want=("jacobian", "jvp"), tangent={"x": [1.0, 1.0]})
    np.testing.assert_allclose(one["jacobian"]["output"]["x"], np.diag(2 * x[0] * factor))
    np.testing.assert_allclose(one["jvp"]["output"], 2 * x[0] * factor)
    together = results(
        program=text, inputs={"x": x}, seed=5, batched=("x",), want=("outputs", "vjp"), cotangent={"output": np.ones((3, 2))}
    )
    np.testing.assert_allclose(together["outputs"]["output"], x**2 * factor)
    np.testing.assert_allclose(together["vjp"]["x"], 2 * x * factor)


@pytest.mark.parametrize("text", ["torch.manual_seed(1)\n" + DRAWN_TWICE, _TWO_LAYERS.format(4)])
def test_another_seed_than_the_first_of_several_is_refused(text: str) -> None:
    with pytest.raises(PullbackError, match="seeds itself with 1 and later anew"):
        ask(program=text, inputs={"x": [1.0, 2.0]} if "x" in text else {}, seed=7)


def test_what_is_drawn_before_the_only_seed_needs_one_of_the_query() -> None:
    for text in (DRAWN_TWICE, "net = nn.Linear(3, 2)\ntorch.manual_seed(1)\nnet(torch.randn(4, 3))"):
        with pytest.raises(PullbackError, match="needs a seed"):
            ask(program=text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("with torch.random.fork_rng():\n    a = torch.rand(2)\na + torch.rand(2)", 1),
        ("g = torch.Generator()\na = torch.rand(2, generator=g)\ng.manual_seed(0)\na + torch.rand(2, generator=g)", 3),
        ("import time\na = torch.rand(2)\ntorch.manual_seed(int(time.time()))\na + torch.rand(2)", 3),
        ("import time\ntorch.manual_seed(int(time.time()))\na = torch.rand(2)\ntorch.manual_seed(3)\na + torch.rand(2)", 4),
    ],
)
def test_seeding_anew_by_what_is_not_known_is_refused_where_something_is_drawn_after(text: str, line: int) -> None:
    with pytest.raises(PullbackError, match=f"Line {line} seeds anew") as caught:
        ask(program=text, seed=7)
    assert "torch.manual_seed(0)" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("drawn", "option", "words"),
    [
        ("v * torch.rand(2)", ", randomness='different'", "others for each"),
        ("v * torch.rand_like(v)", ", randomness='different'", "others for each"),
        ("v * torch.rand(2)", "", "refuses"),
    ],
)
def test_numbers_that_each_member_draws_are_refused(drawn: str, option: str, words: str) -> None:
    text = f"torch.func.vmap(lambda v: {drawn}{{}})(torch.stack([x, x]))"
    with pytest.raises(PullbackError, match=words):
        ask(program=text.format(option), inputs={"x": [1.0, 2.0]}, seed=5)
    same = text.format(", randomness='same'")
    np.testing.assert_array_equal(results(program=same, inputs={"x": [1.0, 2.0]}, seed=5)["outputs"]["output"], _plain(same, 5))


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
        ask(program="import time\ntorch.manual_seed(1)\ntorch.manual_seed(int(time.time()))\ntorch.rand(2)")


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
