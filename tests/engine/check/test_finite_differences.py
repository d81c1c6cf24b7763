"""What differences of a long program may take: fewer forwards and elements, and no look at every step."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from app.engine.check import autodiff_faults
from app.engine.check.finite_differences import SAMPLED, SECONDS, Budget
from tests.engine.building import checked


def _budget(seconds: float) -> Budget:
    def values(leaves: Any) -> torch.Tensor:
        time.sleep(seconds)
        return torch.zeros(1)

    return Budget.of(cast(Any, SimpleNamespace(values=values)))


def test_a_long_forward_is_run_a_few_times_only() -> None:
    slow, quick = _budget(1.1 * SECONDS / SAMPLED), _budget(0.0)
    assert (slow.left, slow.sampled) == (24, 12)
    assert quick.left > 2 * SAMPLED
    assert quick.sampled == SAMPLED


def test_of_a_long_program_a_cut_path_is_named_without_a_look_at_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autodiff_faults, "_LOOKED_AT", 2)
    monkeypatch.setattr(autodiff_faults, "evidence_at", lambda point: pytest.fail("it looks at every step"))
    report = checked("h = sin(x)\n(x * x + h.detach()).sum()", x=[0.3, 1.0])["x"]
    assert report["likely"]["code"] == "cut_path"
    assert "Line 2" in report["likely"]["message"]
