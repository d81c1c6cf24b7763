"""What check answers where ties, tiny derivatives and lost digits make a verdict hard: neither a false alarm nor a false confirmation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.building import checked


@pytest.mark.parametrize(
    ("text", "x"), [("exp(x).sum()", -690.0), ("exp(x).sum()", -720.0), ("exp(x).sum()", -740.0), ("exp(-x * x).sum()", 26.4)]
)
def test_no_tiny_derivative_is_called_wrong(text: str, x: float) -> None:
    assert checked(text, x=[x])["x"]["agrees"] is True


@pytest.mark.parametrize(("believed", "agrees"), [(1e-310, True), (2e-310, None), (2e-300, False)])
def test_subnormal_derivatives_say_as_much_as_they_hold(believed: float, agrees: Any) -> None:
    assert checked("(x * 1e-310).sum()", {"x": [believed]}, x=[1.0])["x"]["agrees"] is agrees
