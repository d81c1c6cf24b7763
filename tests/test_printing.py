"""An answer as text: every kind of element, small and large tensors, and what is not finite."""

from __future__ import annotations

from typing import Any

import pytest

from app.printing import tensor_text


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        ({"dtype": "float64", "shape": [], "data": 0.25}, "x  float64 = 0.25"),
        ({"dtype": "float64", "shape": [], "data": "NaN"}, "x  float64 = NaN"),
        ({"dtype": "float64", "shape": [2], "data": ["-Infinity", 0.1234567]}, "x  float64[2]\n  [-Infinity  0.123457]"),
        ({"dtype": "int64", "shape": [2, 2], "data": [[1, -20], [3, 4]]}, "x  int64[2, 2]\n  [[  1 -20]\n   [  3   4]]"),
        ({"dtype": "bool", "shape": [2], "data": [True, False]}, "x  bool[2]\n  [ True False]"),
        ({"dtype": "complex128", "shape": [1], "data": [[1.0, -2.5]]}, "x  complex128[1]\n  [1.-2.5j]"),
        ({"dtype": "float32", "shape": [0, 3], "data": []}, "x  float32[0, 3]\n  []"),
        ({"dtype": "float32", "shape": [9], "data": "AAAA"}, "x  float32[9]\n  (base64, 4 characters)"),
    ],
)
def test_tensor(tensor: dict[str, Any], text: str) -> None:
    assert tensor_text("x", tensor) == text


def test_large_tensors_are_shown_by_their_corners() -> None:
    text = tensor_text("x", {"dtype": "float64", "shape": [40, 40], "data": [[float(i) for i in range(40)]] * 40})
    assert "..." in text
    assert len(text.splitlines()) < 12


def _coo(count: int, **more: Any) -> dict[str, Any]:
    indices = {"dtype": "int64", "shape": [2, count], "data": [list(range(count)), [0] * count]}
    values = {"dtype": "float64", "shape": [count], "data": [0.5] * (count - 1) + ["NaN"]}
    return {
        "layout": "coo",
        "shape": [99, 1],
        "dtype": "float64",
        "indices": indices,
        "values": values,
        "holds": "here",
        **more,
    }


def test_a_sparse_result_is_shown_by_its_entries() -> None:
    text = tensor_text("x", _coo(2))
    assert text == "x  float64[99, 1], sparse: 2 entries; the pattern holds at this point\n  [0, 0]  0.5\n  [1, 0]  NaN"


def test_of_many_entries_the_first_and_the_last_are_shown() -> None:
    lines = tensor_text("x", _coo(50, holds="everywhere")).splitlines()
    assert "50 entries; the pattern holds for any values" in lines[0]
    assert len(lines) == 22
    assert lines[1] == "  [0, 0]  0.5"
    assert lines[11] == "  …"
    assert lines[-1] == "  [49, 0]  NaN"
    encoded = {"dtype": "float64", "shape": [50], "data": "AAAA", "encoding": "base64"}
    assert "base64" in tensor_text("x", _coo(50, values=encoded))
