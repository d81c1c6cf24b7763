"""Mistakes in Hessians are named by the step whose second derivative is wrong; what goes round a step is not called left out by it."""

from __future__ import annotations

from typing import Any, Final

import pytest
import torch
from torch import Tensor

from tests.engine.building import checked, normal

V, U, A, W = normal(3, seed=1), normal(4, seed=2), normal(4, 3), normal(4, seed=3)
NET = "((tanh(a @ v) * u).sum() - 1) ** 2"
H = torch.tanh(A @ V)
J = A.T @ (U * (1 - H**2))
R = (H * U).sum() - 1
GAUSS = 2 * torch.outer(J, J)


def net(second: Tensor) -> Tensor:
    """The Hessian of NET with this in the place of tanh's second derivative."""
    return GAUSS + 2 * R * (A.T * (U * second)) @ A


TANH = -2 * H * (1 - H**2)
S = torch.sigmoid(V)
P = torch.softmax(A @ V, 0)
ENTROPY = (A.T * P) @ A - torch.outer(A.T @ P, A.T @ P)
SUM = "logsumexp(a @ v, 0) + (v ** 4).sum()"
QUARTIC = torch.diag(12 * V**2)

# Program, what is believed, its code, words of the message.
MISTAKES: Final[dict[str, tuple[str, Tensor, str, str]]] = {
    "gauss newton": (NET, GAUSS, "gauss_newton", "Jᵀ·∇²L·J"),
    "curvature alone": (NET, net(TANH) - GAUSS, "missing_term", "of `tanh` (line 1"),
    "its sign": (NET, net(-TANH), "sign_of_term", "second derivative of `tanh`"),
    "its half": (NET, net(TANH / 2), "factor_of_term", "second derivative of `tanh`"),
    "without the slope": (NET, net(-2 * H), "wrong_rule", "its output times -2"),
    "first for second": (NET, net(1 - H**2), "wrong_rule", "as its first derivative"),
    "a slope squared": ("sigmoid(v).sum()", torch.diag((S * (1 - S)) ** 2), "wrong_rule", "the square of its first derivative"),
    "one term": (SUM, ENTROPY, "missing_term", "logsumexp"),
    "the other term": (SUM, QUARTIC, "missing_term", "`logsumexp` (line 1"),
    "the diagonal of one step": (SUM, (A.T * (P * (1 - P))) @ A + QUARTIC, "diagonal_only", "by the value of `@`"),
    "first derivative": (SUM, (A.T * P) @ A + QUARTIC, "wrong_rule", "first derivative by the value of `@`"),
    "squares": (SUM, (A.T * P**2) @ A + QUARTIC, "outer_product", "square of the derivative by the value of `@`"),
    "taken as 1": (SUM, A.T @ A + QUARTIC, "wrong_rule", "is taken as 1"),
    "beside doubled": (SUM, 2 * (ENTROPY + QUARTIC) - torch.diag((ENTROPY + QUARTIC).diagonal()), "factor_of_term", "beside the diagonal"),
    "beside negative": (SUM, 2 * torch.diag((ENTROPY + QUARTIC).diagonal()) - ENTROPY - QUARTIC, "sign_of_term", "beside the diagonal"),
    "inverse": (SUM, torch.linalg.inv(ENTROPY + QUARTIC), "inverse", "inverse of the Hessian"),
}  # fmt: skip


def _report(text: str, believed: Tensor) -> dict[str, Any]:
    leaves: dict[str, Any] = {name: leaf for name, leaf in {"a": A, "u": U}.items() if f"{name} " in text or f"{name})" in text}
    report: dict[str, Any] = checked(text, {"v": believed}, kind="hessian", v=V, **leaves)["v"]
    return report


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_second_derivative_is_named(name: str) -> None:
    text, believed, code, words = MISTAKES[name]
    report = _report(text, believed)
    assert report["agrees"] is False
    assert report["likely"]["code"] == code, report
    assert words in report["likely"]["message"]


def test_the_right_hessians_agree() -> None:
    assert _report(NET, net(TANH))["agrees"] is True
    assert _report(SUM, ENTROPY + QUARTIC)["agrees"] is True


def test_what_goes_round_a_step_is_not_called_left_out_by_it() -> None:
    claims = _report(SUM, ENTROPY)
    assert all(claim["code"] != "gauss_newton" for claim in [claims["likely"], *claims["also_possible"]])
