"""One number that is not finite is seen wherever it stands, in small tensors and in large ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.protocols.json_numbers import is_finite


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 7, 2047, 2048, 5000])
def test_one_number_that_is_not_finite_is_seen(size: int, dtype: type) -> None:
    values: Any = np.linspace(-1e30, 1e30, size).astype(dtype)
    assert is_finite(values)
    assert is_finite(np.full(size, np.finfo(dtype).max, dtype)), "their sum would not be"
    for odd in (np.nan, np.inf, -np.inf):
        for place in {0, size // 2, size - 1}:
            broken = values.copy()
            broken[place] = odd
            assert not is_finite(broken)


def test_whole_numbers_are_finite() -> None:
    assert is_finite(np.full(5000, 1 << 62))
