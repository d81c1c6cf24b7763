"""What check answers where ties, tiny derivatives and lost digits make a verdict hard: neither a false alarm nor a false confirmation."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest
import torch

from tests.engine.building import checked


@pytest.mark.parametrize(
    ("text", "x"), [("exp(x).sum()", -690.0), ("exp(x).sum()", -720.0), ("exp(x).sum()", -740.0), ("exp(-x * x).sum()", 26.4)]
)
def test_no_tiny_derivative_is_called_wrong(text: str, x: float) -> None:
    assert checked(text, x=[x])["x"]["agrees"] is True


@pytest.mark.parametrize(("believed", "agrees"), [(1e-310, True), (2e-310, None), (2e-300, False)])
def test_subnormal_derivatives_say_as_much_as_they_hold(believed: float, agrees: Any) -> None:
    assert checked("(x * 1e-310).sum()", {"x": [believed]}, x=[1.0])["x"]["agrees"] is agrees


WEIGHTS: Final = (1.51, -0.22, -0.3, 1.99, 0.41, 0.7, -1.1, 0.05, 2.2, 0.9, -0.8, 0.33)
SORTED: Final = "(x.sort()[0] * torch.tensor({})).sum()"
TIES: Final = [("x.quantile(0.5)", 8), *((SORTED.format(list(WEIGHTS[:n])), n) for n in (5, 8, 12))]


@pytest.mark.parametrize(("text", "count"), TIES)
def test_a_tie_of_more_corners_than_are_seen_is_no_mistake_of_pytorch(text: str, count: int) -> None:
    assert checked(text, x=[1.0] * count)["x"]["agrees"] is not False
    assert checked(text, {"x": [0.0] * count}, x=[1.0] * count)["x"]["agrees"] is False


def test_pytorch_is_not_said_to_be_wrong_where_the_client_has_its_number() -> None:
    text, x = "x.kthvalue(2)[0] * x.max()", torch.ones(3, dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(x.kthvalue(2)[0] * x.max(), x)
    assert "PyTorch's own" not in str(checked(text, {"x": ours}, x=x.detach())["x"].get("note"))


OWN: Final = """class F(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return {}

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return {}

return F.apply(x)"""


@pytest.mark.parametrize(
    ("forward", "backward", "x", "agrees"),
    [
        ("x.max()", "g * (x == x.max())", [2.0, 2.0], False),
        ("x.max()", "g * (x == x.max()) * 0", [2.0, 2.0], False),
        ("x.max()", "g * (x == x.max()) / (x == x.max()).sum()", [2.0, 2.0], True),
        ("x.relu().sum()", "g * (x > 0)", [0.0, 0.0, 1.0], True),
        ("x.relu().sum()", "g * (x >= 0)", [0.0, 0.0, 1.0], True),
    ],
)
def test_a_backward_of_its_own_gives_a_subgradient_at_a_tie_or_is_wrong(
    forward: str, backward: str, x: list[float], agrees: bool
) -> None:
    assert checked(OWN.format(forward, backward), x=x)["x"]["agrees"] is agrees


def test_that_the_client_has_the_same_makes_a_wrong_backward_no_better() -> None:
    text = OWN.format("x.max()", "g * (x == x.max())")
    assert checked(text, {"x": [1.0, 1.0]}, x=[2.0, 2.0])["x"]["agrees"] is False
    assert checked(text, {"x": [0.5, 0.5]}, x=[2.0, 2.0])["x"]["agrees"] is True


def test_a_straight_through_backward_reads_no_wrong_tensor() -> None:
    verdict = checked(OWN.format("x.sign()", "g * (x.abs() < 1)") + ".sum()", x=[0.5, -0.3, 2.0])["x"]
    assert (verdict["agrees"], verdict["likely"]["code"]) == (False, "wrong_backward")


@pytest.mark.parametrize("text", ["(x ** 2).sum()", "(x.abs() ** 1.5).sum()", "sqrt((x ** 2).mean()) ** 2", "x.norm() ** 2"])
def test_a_derivative_that_vanishes_is_no_kink(text: str) -> None:
    """PyTorch's own is NaN for the third: 0 times infinity."""
    for believed, agrees in ((0.0, True), (1e-3, False)):
        verdict = checked(text, {"x": [believed, 0.0]}, x=[0.0, 0.0])["x"]
        assert verdict["agrees"] is agrees, verdict
        assert "kinks" not in verdict


def test_noise_beside_a_huge_constant_is_no_kink() -> None:
    """cos of 1e11 moves as its last bit does, whatever v does."""
    text, v, m = "cos(v).sum() + cos(linalg.eigvalsh(m @ m.T)).sum()", [0.5, -7.4], [[3.1e5, 1.7e5], [-0.9e5, 2.3e5]]
    right = [-math.sin(0.5), math.sin(7.4)]
    assert checked(text, {"v": right}, v=v, m=m)["v"]["agrees"] is not False
    assert checked(text, {"v": [right[0], 1.02 * right[1]]}, v=v, m=m)["v"]["agrees"] is not True
