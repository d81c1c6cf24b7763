"""Whole numbers that float64 cannot hold are not rounded in silence."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.asking import ask


@pytest.mark.parametrize(
    ("numbers", "rounded"), [([2**53 + 1], True), ([-(2**62) - 1, 3], True), ([2**53, 2**60], False), ([4, 9], False)]
)
def test_promotion_says_what_it_rounds(numbers: list[int], rounded: bool) -> None:
    notes = ask(operation="maximum", inputs={"input": np.array(numbers), "other": np.array([1])}, want=["outputs"]).notes
    assert ("rounded" in [note.code for note in notes]) == rounded
