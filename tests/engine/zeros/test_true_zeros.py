"""Zeros that other inputs explain are not computed in exact numbers; those that they do not explain are."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.zeros import lost_zeros
from tests.engine.asking import ask

# Program in x and y, their numbers, whether exact numbers are asked for.
CASES: list[tuple[str, Any, Any, bool]] = [
    ("((x - y) ** 2).mean()", [1.5, -2.0, 3e8], [1.5, -2.0, 3e8], False),
    ("nn.functional.mse_loss(x, y)", [0.0, 1.0], [0.0, 1.0], False),
    ("(x * y).sum()", [0.0, 0.0], [1.0, 2.0], False),
    ("(x ** 2).sum() + (y ** 2).sum()", [0.0, 0.0], [0.0, 0.0], False),
    ("tanh(x) * y", [25.0, 1.0], [0.0, 0.0], False),
    ("(x ** 2).sum() + y.prod()", [0.0, 0.0], [1e-170, 1e-170], True),
    ("cat([x, tanh(y)])", [25.0], [0.5], False), ("x.view_as(y)", [1.0], [2.0], False),
    ("x + y - x", [1e16, 1e16], [1.0, 1.0], True),
    ("1 - tanh(x + 25) + y * 0", [0.0, 0.0], [1.0, 1.0], True),
    ("x ** 2 + (1 - tanh(25 + y))", [0.0, 0.0], [0.0, 0.0], True),
]  # fmt: skip


@pytest.mark.parametrize(("text", "x", "y", "is_exact"), CASES)
def test_which_zeros_are_looked_at(text: str, x: Any, y: Any, is_exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Any] = []
    monkeypatch.setattr(lost_zeros, "exactly", lambda *args: looks.append(args))
    for kind in ("vjp", "jacobian"):
        ask(program=text, inputs={"x": x, "y": y}, want=["outputs", kind])
    assert bool(looks) == is_exact
