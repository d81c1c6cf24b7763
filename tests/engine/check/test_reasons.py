"""Every reason for which check cannot tell is in the contract, and there is a query that is answered with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import torch

from app.engine.check.reasons import Reason
from tests.engine.building import checked

CONTRACT: Final = (Path(__file__).parents[3] / "docs" / "contract.md").read_text()
# Program, point, what is believed.
CASES: Final[dict[Reason, tuple[str, Any, Any]]] = {
    Reason.UNSETTLED: ("cos(x).real.sum()", torch.tensor([1e14 + 0.5j], dtype=torch.complex128), None),
    Reason.NO_DIGITS: ("cos(1e11 * (x / 3 * 1e6)).sum()", [0.7], None),
    Reason.ROUNDING: (
        "(x + 10).var()",
        torch.tensor([0.5, 1.5, -1.0, 2.0], dtype=torch.float16),
        [-0.1703, 0.5112, -1.1923, 0.8513],
    ),
    Reason.NO_DERIVATIVE: ("where(x > 0, x + 1, x).sum()", [0.0], [1.0]),
    Reason.NO_NUMBER: ("(x * log(x)).sum()", [0.0, 1.0], [0.0, 1.0]),
    Reason.CORNERS: ("maximum(x.sort().values, x.cumsum(0)).median()", [0.0] * 40, [0.02] * 40),
    Reason.BENEATH: ("sin(x).sum() * 1e-14 + 1.0", [1.0], [2.2e-10]),
    Reason.AS_DIFFERENCES: ("(exp(x) + 1e10).sum()", [1.0], [2.7183001]),
    Reason.COARSE: ("(x ** 2).sum()", [3.2e-6, 6.1e-6], [0.000006, 0.000012]),
    Reason.SHORT: ("(x ** 3 + 0.01 * x).sum()", [1.25], [4.6875]),
    Reason.WHOLE: ("(x ** 3).sum()", [20.2803, 43.5083], [1234.0, 5679.0]),
    Reason.ZEROS: ("(x ** 3).sum()", [1e-5, 2e-4], [0.0, 0.0]),
}
# It needs a derivative of PyTorch's that exact numbers cannot follow and rounding all but hides.
WITHOUT: Final = {Reason.TWO_AGAINST_ONE}


@pytest.mark.parametrize("reason", Reason)
def test_the_contract_has_every_reason(reason: Reason) -> None:
    assert f"\n- {reason}\n" in CONTRACT


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in WITHOUT])
def test_a_query_that_is_answered_with_it(reason: Reason) -> None:
    text, x, believed = CASES[reason]
    verdict = checked(text, None if believed is None else {"x": believed}, x=x)["x"]
    assert verdict["agrees"] is None, verdict
    assert verdict["reason"] == reason
    assert "likely" not in verdict


@pytest.mark.parametrize(
    "text", ["max(log(x))", "min(log(x))", "clamp(log(x), -1, 1).sum()", "maximum(log(x), log(x.flip(0))).sum()"]
)
def test_the_largest_of_nan_is_nan_in_exact_numbers_too(text: str) -> None:
    assert checked(text, {}, x=[-1.0, 2.0])["x"]["agrees"] is None
