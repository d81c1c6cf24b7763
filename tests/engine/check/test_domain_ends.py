"""check where a function is defined on one side only: the limit of that side's quotients decides."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest
import torch

from app.engine.check.reasons import Reason
from tests.engine.building import checked

# Program, the end and an ordinary point, the one-sided derivative at the end and the derivative at the other.
ENDS: Final[dict[str, tuple[str, list[float], list[float]]]] = {
    "x^x": ("(x ** x).sum()", [0.0, 1.0], [-math.inf, 1.0]),
    "x^x alone": ("(x ** x).sum()", [0.0], [-math.inf]),
    "a square root": ("sqrt(x).sum()", [0.0, 4.0], [math.inf, 0.25]),
    "a power below one": ("(x ** 0.3).sum()", [0.0, 1.0], [math.inf, 0.3]),
    "a power above one": ("(x ** 1.5).sum()", [0.0, 1.0], [0.0, 1.5]),
    "a product with a root": ("(x * sqrt(x)).sum()", [0.0, 1.0], [0.0, 1.5]),
    "a root squared": ("(sqrt(x) ** 2).sum()", [0.0, 1.0], [1.0, 1.0]),
    "cosine of a root": ("cos(sqrt(x)).sum()", [0.0, 1.0], [-0.5, -math.sin(1.0) / 2]),
    "entropy": ("special.entr(x).sum()", [0.0, 1.0], [math.inf, -1.0]),
    "x log x": ("xlogy(x, x).sum()", [0.0, 1.0], [-math.inf, 1.0]),
    "an arcsine": ("asin(x).sum()", [1.0, 0.5], [math.inf, 1 / math.sqrt(0.75)]),
    "an arccosine": ("acos(x).sum()", [-1.0, 0.5], [-math.inf, -1 / math.sqrt(0.75)]),
    "acosh": ("acosh(x).sum()", [1.0, 2.0], [math.inf, 1 / math.sqrt(3.0)]),
    "the half circle": ("sqrt(1 - x ** 2).sum()", [1.0, 0.5], [-math.inf, -0.5 / math.sqrt(0.75)]),
    "an arcsine of a root": ("asin(sqrt(x)).sum()", [1.0, 0.5], [math.inf, 1.0]),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_one_sided_derivative_is_right_there_and_another_number_is_not(case: str) -> None:
    text, point, right = ENDS[case]
    report = checked(text, {"x": right}, x=point)["x"]
    assert report["agrees"] is True, report
    wrong: list[Any] = [0.75, *right[1:]]
    assert checked(text, {"x": wrong}, x=point)["x"]["agrees"] is False


@pytest.mark.parametrize("case", [name for name, (_, _, right) in ENDS.items() if math.isinf(right[0])])
def test_no_finite_number_is_confirmed_where_it_is_infinite(case: str) -> None:
    text, point, right = ENDS[case]
    assert checked(text, x=point)["x"]["agrees"] is False
    for claim in (0.0, 1.0, -math.copysign(math.inf, right[0])):
        assert checked(text, {"x": [claim, *right[1:]]}, x=point)["x"]["agrees"] is False


def test_near_the_end_of_a_domain_the_derivative_is_finite() -> None:
    point = [1 - 2**-40, 0.5]
    right = [1 / math.sqrt(1 - x * x) for x in point]
    assert checked("asin(x).sum()", {"x": right}, x=point)["x"]["agrees"] is True
    assert checked("asin(x).sum()", {"x": [math.inf, right[1]]}, x=point)["x"]["agrees"] is not True


@pytest.mark.parametrize("text", ["sqrt(z).sum()", "(z ** 0.5).sum()", "asin(z).sum()", "acos(z).sum()"])
@pytest.mark.parametrize("above", [1e-12, -1e-12, 1e-8])
def test_beside_a_branch_cut_the_right_number_is_not_called_wrong(text: str, above: float) -> None:
    z = torch.tensor([complex(-2, above), 1 + 1j], dtype=torch.complex128)
    leaf = z.clone().requires_grad_()
    value = leaf.pow(0.5) if "**" in text else getattr(torch, text.partition("(")[0])(leaf)
    (right,) = torch.autograd.grad(value, leaf, torch.ones_like(value))
    assert checked(text, {"z": right}, z=z)["z"]["agrees"] is not False
    assert checked(text, {"z": right * torch.tensor([1.1, 1.0])}, z=z)["z"]["agrees"] is False


def test_the_kink_of_the_complex_modulus_is_listed_and_another_subgradient_not_called_wrong() -> None:
    z = torch.tensor([0j, 3 + 4j], dtype=torch.complex128)
    for claim, agrees in ((0j, True), (0.6 + 0.6j, None), (2 + 0j, False)):
        expected = torch.tensor([claim, 0.6 + 0.8j], dtype=torch.complex128)
        report = checked("abs(z).sum()", {"z": expected}, z=z)["z"]
        assert report["agrees"] is agrees
        assert report["kinks"] == [[0]]


# Program, point, derivatives that cannot be told there, and some that are wrong all the same.
WITHOUT_NUMBER: Final[dict[str, tuple[str, list[float], list[list[float]], list[list[float]]]]] = {
    "no value": ("(x * log(x)).sum()", [0.0, 1.0], [[0.0, 1.0], [-math.inf, 1.0], [math.nan, 1.0]], [[0.0, 2.0]]),
    "no value of a root": ("sqrt(x).sum()", [-1.0, 1.0], [[math.nan, 0.5], [0.0, 0.5]], [[0.0, 0.7]]),
    "an infinite value": ("log(x).sum()", [0.0, 1.0], [[math.inf, 1.0]], [[0.0, 1.0], [math.inf, 2.0]]),
    "a pole": ("(1 / x).sum()", [0.0, 1.0], [[-math.inf, -1.0]], [[0.0, -1.0]]),
    "steep on one side": (
        "where(x > 0, xlogy(x, x), 0 * x).sum()",
        [0.0, 1.0],
        [[0.0, 1.0], [-math.inf, 1.0], [-3.0, 1.0], [math.nan, 1.0]],
        [[5.0, 1.0], [0.0, 2.0]],
    ),
    "a cusp": ("sqrt(abs(x)).sum()", [0.0, 1.0], [[0.0, 0.5], [math.inf, 0.5]], [[0.0, 0.7]]),
}


@pytest.mark.parametrize("case", WITHOUT_NUMBER)
def test_where_there_is_no_number_nothing_is_confirmed(case: str) -> None:
    text, point, open_ones, wrong = WITHOUT_NUMBER[case]
    assert checked(text, x=point)["x"]["agrees"] is not True
    for believed in open_ones:
        assert checked(text, {"x": believed}, x=point)["x"]["agrees"] is None, believed
    for believed in wrong:
        assert checked(text, {"x": believed}, x=point)["x"]["agrees"] is False, believed


def test_a_row_without_a_value_leaves_the_others_as_they_are() -> None:
    for believed, agrees in (([[0.0, 0.0], [0.0, 1.0]], None), ([[0.0, 0.0], [0.0, 2.0]], False)):
        assert checked("x * log(x)", {"x": believed}, kind="jacobian", x=[0.0, 1.0])["x"]["agrees"] is agrees


@pytest.mark.parametrize(
    ("text", "x", "right"),
    [
        ("exp(x).sum()", [-math.inf, 1.0], [0.0, math.e]),
        ("x.max()", [-math.inf, 1.0], [0.0, 1.0]),
        ("logsumexp(x, 0)", [-math.inf, 1.0], [0.0, 1.0]),
        ("softmax(x, 0)[1]", [-math.inf, 1.0], [0.0, 0.0]),
        ("tanh(x).sum()", [math.inf, 0.0], [0.0, 1.0]),
    ],
)
def test_an_infinite_element_has_no_neighbours_and_the_others_are_judged(text: str, x: list[float], right: list[float]) -> None:
    assert checked(text, x=x)["x"]["agrees"] is True
    assert checked(text, {"x": right}, x=x)["x"]["agrees"] is True
    assert checked(text, {"x": [right[0], right[1] + 0.75]}, x=x)["x"]["agrees"] is False


def test_a_mask_of_infinities_is_an_input_like_others() -> None:
    report = checked("softmax(x + m, 0)[1]", x=[1.0, 2.0, 3.0], m=[0.0, 0.0, -math.inf])
    assert (report["x"]["agrees"], report["m"]["agrees"]) == (True, True)


def test_many_ends_are_judged_by_those_that_are_looked_at() -> None:
    x = torch.zeros(60, dtype=torch.float64)
    x[:5] = 4.0
    right = torch.where(x > 0, 0.25, torch.inf)
    wrong = right.clone()
    wrong[50] = 0.0
    assert checked("sqrt(x).sum()", {"x": right}, x=x)["x"]["agrees"] is True
    assert checked("sqrt(x).sum()", {"x": wrong}, x=x)["x"]["agrees"] is False


@pytest.mark.parametrize("count", [251, 2000])
@pytest.mark.parametrize("ordinary", [1, 100])
def test_ends_outside_the_sample_are_judged_by_those_in_it(count: int, ordinary: int) -> None:
    x = torch.zeros(count, dtype=torch.float64)
    x[-ordinary:] = 4.0
    right = torch.where(x > 0, 0.25, torch.inf)
    assert checked("sqrt(x).sum()", {"x": right}, x=x)["x"]["agrees"] is True
    for index, claim in ((count // 2, 0.0), (3, -math.inf), (-1, 0.3), (-1, math.inf)):
        wrong = right.clone()
        wrong[index] = claim
        assert checked("sqrt(x).sum()", {"x": wrong}, x=x)["x"]["agrees"] is False


# Program, point, the right derivative, whether that is known or no number is, and a derivative that is wrong all the same.
NAN_OF_PYTORCH: Final[dict[str, tuple[str, list[float], list[float], bool | None, list[float] | None]]] = {
    "nothing but ends": ("(x * sqrt(x)).sum()", [0.0] * 4, [0.0] * 4, None, None),
    "many ends": ("xlogy(x, x).sum()", [0.0] * 40 + [1.0], [-math.inf] * 40 + [1.0], None, [-math.inf] * 40 + [2.0]),
    "a smooth zero": ("(x * sqrt(x.abs())).sum()", [0.0, 4.0], [0.0, 3.0], True, [1.0, 3.0]),
    "a kink at the middle": ("sqrt(1 - cos(x)).sum()", [0.0, 1.0], [0.0, math.cos(0.5) / math.sqrt(2)], True, [2.0, 0.6]),
    "a kink at a side": ("sqrt(1 - cos(x)).sum()", [0.0, 1.0], [0.5, math.cos(0.5) / math.sqrt(2)], True, [0.5, 0.7]),
    "a kink alone": ("sqrt(1 - cos(x)).sum()", [0.0], [0.5], True, [0.8]),
}


@pytest.mark.parametrize("case", NAN_OF_PYTORCH)
def test_a_right_number_where_pytorch_gives_nan_is_not_called_wrong(case: str) -> None:
    text, point, right, agrees, wrong = NAN_OF_PYTORCH[case]
    assert checked(text, x=point)["x"]["agrees"] is not True
    assert checked(text, {"x": [math.nan] * len(right)}, x=point)["x"]["agrees"] is not True
    report = checked(text, {"x": right}, x=point)["x"]
    assert report["agrees"] is agrees
    assert agrees or report["reason"] == Reason.NO_NUMBER
    if wrong is not None:
        assert checked(text, {"x": wrong}, x=point)["x"]["agrees"] is False
