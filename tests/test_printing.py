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
