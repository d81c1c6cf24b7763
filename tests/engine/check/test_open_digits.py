"""What narrow dtypes leave of a derivative: right numbers agree, wrong ones that rounding could have made are left open, in a note or not."""

from __future__ import annotations

from typing import Any, Final

import pytest
import torch
from torch import Tensor

from tests.engine.building import checked, normal, program

PROGRAMS: Final = (
    "x.var()", "softmax(x, 0)[0]", "(x ** 2).mean()", "logsumexp(x, 0)", "F.layer_norm(x, (6,)).pow(3).sum()",
    "(x + 10).var()", "x.std() * x.norm()",
)  # fmt: skip
HALVES: Final = (torch.float16, torch.bfloat16)


def _derivative(text: str, x: Tensor) -> Tensor:
    live = x.clone().requires_grad_()
    (value,) = program(text, {"x": x}).call(live)
    return torch.autograd.grad(value, live)[0]


def _verdict(text: str, x: Tensor, believed: Tensor) -> Any:
    return checked(text, {"x": believed}, x=x)["x"]["agrees"]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("text", PROGRAMS)
def test_the_rounded_derivative_and_that_of_pytorch_agree(text: str, dtype: torch.dtype) -> None:
    x = normal(6).to(dtype)
    right = _derivative(text, x.double())
    assert _verdict(text, x, right.to(dtype)) is True
    # What PyTorch gives in this dtype may have no digit left.
    assert _verdict(text, x, _derivative(text, x)) is not False


@pytest.mark.parametrize("factor", [1.1, 0.9, 1.5])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("text", PROGRAMS)
def test_a_tenth_too_much_never_agrees(text: str, dtype: torch.dtype, factor: float) -> None:
    x = normal(6).to(dtype)
    assert _verdict(text, x, (factor * _derivative(text, x.double())).to(dtype)) is not True


@pytest.mark.parametrize(("believed", "agrees"), [(1e-15, None), (2.2e-16, None), (7.714999391855671e-22, True)])
def test_what_lies_beneath_rounding_is_known_from_exact_numbers(believed: float, agrees: Any) -> None:
    """1 - tanh(25)² is 7.7e-22, which float64 rounds to 0: other numbers of its size are neither right nor wrong."""
    assert checked("tanh(x).sum()", {"x": [believed]}, x=[25.0])["x"]["agrees"] is agrees


def test_a_zero_that_rounding_fills_agrees_with_nothing_large() -> None:
    """The derivative of x.sum() - 2 * x.sum() + x.sum() is zero; in bfloat16 a person may have a rest of it, or a mistake."""
    x = normal(6).bfloat16()
    for rest, agrees in ((0.0, True), (0.03, None), (0.5, False)):
        believed = torch.full((6,), rest).bfloat16()
        believed[0] = 1.0
        assert _verdict("(x * 3).sum() - (x * 3).sum() + x[0]", x, believed) is agrees, rest


def test_zeros_of_what_float32_loses_are_left_open() -> None:
    """log(1 + x²) of 1e-6 is 1e-12, which float32 adds to 1 in vain: its derivative there is zero, and 2e-6 in float64."""
    text, x = "log(1 + x ** 2).norm()", [1e-6, 2e-6]
    assert checked(text, {"x": [0.0, 0.0]}, x=x)["x"]["agrees"] is None
    assert checked("(x ** 2).norm()", {"x": [0.0, 0.0]}, x=[1e-3, 2e-3])["x"]["agrees"] is False


@pytest.mark.parametrize(
    "text",
    ["softmax(x, 0).sum()", "log_softmax(x, 0).exp().sum()", "((x - x.mean()) / sqrt(x.var(correction=0) + 1e-5)).sum()"],
)
def test_roundings_of_a_zero_derivative_raise_no_question(text: str) -> None:
    """Sums that cancel to zero leave 1e-16 of their terms in PyTorch's derivative."""
    assert checked(text, {}, x=[0.3, 1.7, -2.2, 0.9])["x"]["agrees"] is True


@pytest.mark.parametrize("factor", [0.5, 1.3, 1.45])
def test_below_the_ordinary_numbers_of_the_dtype_only_the_rounded_number_agrees(factor: float) -> None:
    """The derivatives of sigmoid at -50, 40 and 700 are zero in float16; a multiple in float64 is told by its digits from nothing."""
    x = torch.tensor([-50.0, 40.0, 700.0], dtype=torch.float16)
    right = torch.exp(-x.double().abs())
    assert _verdict("sigmoid(x).sum()", x, right.to(torch.float16)) is True
    assert _verdict("sigmoid(x).sum()", x, factor * right) is None


def test_steps_that_round_one_by_one_agree_in_half_precision() -> None:
    """A formula of gelu's derivative computed in bfloat16 from its first step on, 1 + erf(x) of negative x included."""
    x = torch.linspace(-4, 4, 9).to(torch.bfloat16)
    believed = 0.5 * (1 + torch.erf(x / 2**0.5)) + x * torch.exp(-x * x / 2) / (2 * torch.pi) ** 0.5
    for text in ("nn.functional.gelu(x).sum()", "(0.5 * x * (1 + erf(x / sqrt(2.0)))).sum()"):
        assert checked(text, {"x": believed}, x=x)["x"]["agrees"] is True
        assert checked(text, {"x": -believed}, x=x)["x"]["agrees"] is False
        assert checked(text, {"x": believed.clone().index_fill_(0, torch.tensor(6), 0.0)}, x=x)["x"]["agrees"] is False


@pytest.mark.parametrize(
    ("text", "numbers", "dtype"),
    [
        ("x.sin().exp().tanh().sum()", [0.7], torch.bfloat16),
        ("((x - 3) ** 2).exp().sum()", [1.5], torch.bfloat16),
        ("(x * x + 1).log().sqrt().sum()", [1.3], torch.bfloat16),
        ("(x + 300000).var()", [0.3, 1.2, -0.7], torch.float32),
    ],
)
def test_a_factor_that_pytorch_does_not_have_is_no_rounding(text: str, numbers: list[float], dtype: torch.dtype) -> None:
    x = torch.tensor(numbers, dtype=dtype)
    right = _derivative(text, x.double())
    assert checked(text, {"x": right}, x=x)["x"].get("note") is None
    assert _verdict(text, x, right) is True
    for factor in (0.94, 1.04, 1.06, 1.09):
        assert _verdict(text, x, factor * right) is not True, factor


def test_what_rounding_may_have_made_agrees_with_a_note() -> None:
    """Two units of bfloat16 too much: so much is a right formula off by, and a mistake may be."""
    text, x = "x.sin().exp().tanh().sum()", torch.tensor([0.7], dtype=torch.bfloat16)
    report = checked(text, {"x": 1.02 * _derivative(text, x.double())}, x=x)["x"]
    assert report["agrees"] is True
    assert "a mistake of that size" in report["note"]


@pytest.mark.parametrize(("factor", "agrees"), [(1.0, True), (0.5, False), (-1.0, False)])
def test_derivatives_whose_squares_are_beneath_all_numbers(factor: float, agrees: bool) -> None:
    believed = torch.tensor([factor * 1.5e-150], dtype=torch.float64)
    assert checked("x.abs().pow(1.5).sum()", {"x": believed}, x=[1e-300])["x"]["agrees"] is agrees


@pytest.mark.parametrize(("factor", "agrees"), [(1.0, True), (0.5, False)])
def test_a_pole_within_the_last_bit_is_no_jump(factor: float, agrees: bool) -> None:
    """tan at the double beside π/2: 1 / cos² of it, by mpmath."""
    believed = torch.tensor([factor * 2.6670937881135714e32], dtype=torch.float64)
    assert checked("tan(x).sum()", {"x": believed}, x=[torch.pi / 2])["x"]["agrees"] is agrees


def test_zeros_that_pytorch_gives_by_its_own_rule_are_not_called_rounded() -> None:
    """The derivative of a binary cross-entropy at p = y = 1 is -1, and PyTorch gives 0 in every arithmetic."""
    for believed, agrees in ((-1.0, True), (0.0, False), (1.0, False)):
        report = checked("nn.functional.binary_cross_entropy(x, y)", {"x": [believed]}, x=[1.0], y=[1.0], wrt=("x",))
        assert report["x"]["agrees"] is agrees
