"""`random` and `np.random` draw Python's numbers where the program seeds them, and are refused where it does not, or where they draw too many."""

from __future__ import annotations

import pytest

from app.errors import PullbackError
from tests.program.building import answer, tensors

BEGIN = "import random\nimport numpy as np\n"


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("random.random()", "every run"),
        ("np.random.default_rng().normal()", "every run"),
        ("[random.seed(0), random.seed(), random.random()][2]", "every run"),
        ("[np.random.RandomState(0).choice(9999) for _ in range(500)]", "evaluates more than"),
        ("np.random.RandomState(0).randn(10**5, 10**5)", "too long"),
        ("np.random.RandomState(0).normal(size=(10**5, 10**5))", "too long"),
        ("np.random.RandomState(0).permutation(10**9)", "too long"),
        ("random.Random(0).choices([1], k=10**9)", "too long"),
        ("random.Random(0).choice(x)", "for lists"),
        ("random.Random(0).getrandbits(3)", "not in the language"),
        ("np.random.RandomState(-1)", "between 0 and"),
    ],
)
def test_is_refused(expression: str, words: str) -> None:
    with pytest.raises(PullbackError, match=words):
        answer(f"{BEGIN}k = {expression}\nreturn x * k", tensors(x=1.0))


def test_a_generator_begins_anew_where_it_is_seeded_again() -> None:
    lines = "random.seed(1)\na = random.random()\nrandom.seed(1)\nreturn x * (random.random() - a)"
    (value,) = answer(BEGIN + lines, tensors(x=1.0)).values()
    assert value.item() == 0
