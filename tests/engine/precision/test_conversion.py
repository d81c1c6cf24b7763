"""Numbers that do not fit the dtype asked for: how many digits their rounding leaves is said, and nothing where it leaves what is usual."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from app.query import Note
from tests.engine.asking import ask

OFFSET = [1e8, 1e8 + 1, 1e8 + 2]


def _notes(program: str, numbers: list[float], dtype: str | None) -> dict[str, Note]:
    options: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    answer = ask(program=program, inputs={"x": np.array(numbers)}, want=["precision"], **options)
    return {note.at: note for note in answer.notes if note.code == "rounded_inputs"}


@pytest.mark.parametrize(
    ("program", "numbers", "dtype"),
    [
        ("x.var()", OFFSET, "float32"),
        ("x.var()", [100.3, 100.7, 101.1], "bfloat16"),
        ("(x - x.mean()).pow(3).sum()", [1e6 + 0.1, 1e6 + 0.5, 1e6 + 0.7], "float32"),
        ("sin(x).sum()", [1e6 + 0.1], "float32"),
        ("(1 / (x - 1)).sum()", [1 + 1e-7], "float32"),
    ],
)
def test_what_rounding_loses_is_said(program: str, numbers: list[float], dtype: str) -> None:
    notes = _notes(program, numbers, dtype)
    assert set(notes) == {"x", "output.output"}
    for note in notes.values():
        left, whole = map(float, re.search(r"about ([\d.]+) of ([\d.]+) digits", note.message).groups())  # type: ignore[union-attr]
        assert left < 0.6 * whole


def test_only_the_output_moves() -> None:
    assert set(_notes("log(x).sum()", [1.0000001], "float32")) == {"output.output"}


@pytest.mark.parametrize(
    ("program", "numbers", "dtype"),
    [
        ("x.var()", OFFSET, None),
        ("x.var()", OFFSET, "float64"),
        ("x.var()", [1.0, 2.0, 4.0], "float32"),
        ("x.var()", [0.1, 0.2, 0.7], "float32"),
        ("x.sum() ** 2", [0.1, 0.2, 0.3], "float32"),
        ("sin(x).sum()", [0.1, 0.2, 0.3], "bfloat16"),
        ("softmax(x, 0)[0]", [0.1, 0.2, 0.3], "float16"),
        ("x.prod()", [0.1, -3.3, 7.7], "bfloat16"),
        ("((1 - torch.cos(x)) / x ** 2).sum()", [1e-3, 1e-4], "float32"),  # float64 loses these, not the rounding of x
        ("(torch.log(1 + x) / x).sum()", [1.1e-7], "float32"),
    ],
)
def test_what_is_usual_is_not(program: str, numbers: list[float], dtype: str | None) -> None:
    assert not _notes(program, numbers, dtype)
