"""How exactly the client's numbers are known: casts in the program, places after the point, and digits that are too few."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.engine.building import checked, normal, program
from tests.oracle.test_derivations import wide

X = normal(6)
SCALES = wide([1e-3, 1.0, 30.0, 1e3, 2e4, 7e5])


def decimals(numbers: Tensor, places: int) -> Tensor:
    return wide([float(f"{value:.{places}f}") for value in numbers.tolist()])


@pytest.mark.parametrize("places", [4, 6, 8])
def test_places_after_the_point_beside_large_numbers(places: int) -> None:
    """960.389090 beside 0.000833: more digits than a person writes, but so many places after the point."""
    right = SCALES * X.cos()
    printed = decimals(right, places)
    assert checked("(s * sin(x)).sum()", {"x": printed}, x=X, s=SCALES)["x"]["agrees"] is True
    printed[1] += 3 * 10.0**-places * max(1.0, 1e-5 * 10.0**places)
    assert checked("(s * sin(x)).sum()", {"x": printed}, x=X, s=SCALES)["x"]["agrees"] is False


@pytest.mark.parametrize("scale", [1e-6, 4e-6, 3e-5])
def test_what_is_left_of_a_printout_proves_nothing(scale: float) -> None:
    right = scale * X.cos()
    verdict = checked(f"({scale} * sin(x)).sum()", {"x": decimals(right, 6)}, x=X)["x"]
    assert verdict["agrees"] is None, verdict
    assert checked(f"({scale} * sin(x)).sum()", {"x": decimals(3 * right, 6)}, x=X)["x"]["agrees"] is False


@pytest.mark.parametrize("cast", ["x.half()", "x.bfloat16()", "x.to(torch.float16)", "x.to(torch.bfloat16)"])
def test_a_cast_rounds_the_derivative_on_its_way_back(cast: str) -> None:
    live = X.clone().requires_grad_()
    narrow = torch.bfloat16 if "bfloat16" in cast else torch.float16
    (right,) = torch.autograd.grad((torch.sin(live.to(narrow)) * 3).sum(), live)
    text = f"(sin({cast}) * 3).sum()"
    assert checked(text, {"x": right}, x=X)["x"]["agrees"] is True
    assert checked(text, {"x": 1.5 * right}, x=X)["x"]["agrees"] is False


@pytest.mark.parametrize("tiny", [-40.0, -50.0, -60.0, -80.0])
@pytest.mark.parametrize("large", [12.0, 9.3, 3.7, -1.3])
def test_a_tiny_number_is_no_proof_of_a_printout(large: float, tiny: float) -> None:
    right = wide([large, tiny]).exp()
    assert checked("exp(x).sum()", {"x": right}, x=[large, tiny])["x"]["agrees"] is True
    for factor in (-1.0, 5.0):
        wrong = right * wide([1.0, factor])
        assert checked("exp(x).sum()", {"x": wrong}, x=[large, tiny])["x"]["agrees"] is False


@pytest.mark.parametrize("places", [10, 12])
def test_a_wrong_number_is_no_noise_of_differences_that_are_a_billion_times_larger(places: int) -> None:
    x = wide([-40.0, 0.5])
    right = x.sigmoid() * (-x).sigmoid()
    printed = torch.stack([right[0], right[1].round(decimals=places)])
    assert checked("sigmoid(x).sum()", {"x": printed}, x=x)["x"]["agrees"] is True
    assert checked("sigmoid(x).sum()", {"x": printed * wide([2.0, 1.0])}, x=x)["x"]["agrees"] is False


@pytest.mark.parametrize("wrong", [[1.0, 1.1, 1.0], [1.0, 1.0, 2.0]])
def test_the_rounding_of_a_huge_number_to_float32_is_no_noise_of_differences(wrong: list[float]) -> None:
    x = wide([1e-30, 1.0, 1e20]).float().double()
    right = (1 / x).float().double()
    assert checked("log(x).sum()", {"x": right}, x=x)["x"]["agrees"] is True
    assert checked("log(x).sum()", {"x": (right * wide(wrong)).float().double()}, x=x)["x"]["agrees"] is False


@pytest.mark.parametrize("large", [-0.2, -1.3])
def test_a_tiny_number_is_not_written_in_the_places_of_the_others(large: float) -> None:
    x = wide([large, -50.0])
    printed = decimals(x.exp(), 4)
    assert checked("exp(x).sum()", {"x": printed}, x=x)["x"]["agrees"] is True
    printed[1] = -x[1].exp()
    assert checked("exp(x).sum()", {"x": printed}, x=x)["x"]["agrees"] is not True


def test_a_tiny_number_beside_a_large_one_that_saturates() -> None:
    x = wide([0.3, -80.0])
    right = 1e5 * x.sigmoid() * (-x).sigmoid()
    text = "(1e5 * sigmoid(x)).sum()"
    assert checked(text, {"x": right}, x=x)["x"]["agrees"] is True
    assert checked(text, {"x": right * wide([1.0, 7.0])}, x=x)["x"]["agrees"] is False


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("(9.81 * cos(x)).sum()", [0.5, -1.16, 1.9]),
        ("(sin(x) * cos(3 * x)).sum()", [0.5, -1.16]),
        ("(sin(x) ** 3).sum()", [-1.16]),
    ],
)
def test_short_decimals_that_half_precision_holds_may_have_been_computed_in_it(text: str, x: list[float]) -> None:
    """4.6875 and 9.375: where they are not the derivative, they may be its rounding."""
    leaves = wide(x)
    live = leaves.to(torch.bfloat16).requires_grad_()
    (right,) = torch.autograd.grad(program(text, {"x": live}).call(live)[0], live)
    assert checked(text, {"x": right.double()}, x=leaves)["x"]["agrees"] is not False
    assert checked(text, {"x": -right.double()}, x=leaves)["x"]["agrees"] is False
    assert checked(text, {"x": (1.5 * right).double()}, x=leaves)["x"]["agrees"] is False


@pytest.mark.parametrize(
    ("text", "x", "believed"),
    [
        ("(x ** 3 + 0.1 * x).sum()", [1.25], [4.6875]),
        ("(0.503 * x ** 2).sum()", [0.5, 0.25, 0.0625], [0.5, 0.25, 0.0625]),
    ],
)
def test_short_decimals_of_a_wrong_formula_do_not_agree(text: str, x: list[float], believed: list[float]) -> None:
    assert checked(text, {"x": believed}, x=x)["x"]["agrees"] is not True


@pytest.mark.parametrize(
    ("text", "x", "believed", "verdict"),
    [
        ("(x ** 3).sum()", [1.3, 0.7], [5.375, 1.5625], False),
        ("(x ** 3).sum()", [1.25], [4.96875], False),
        ("exp(x).sum()", [1.3, 0.4], [3.875, 1.5625], False),
        ("exp(x).sum()", [1.3, 0.4], [3.671875, 1.4921875], True),
        ("exp(x).sum()", [1.3, 0.4], [3.6875, 1.5], None),
    ],
)
def test_half_precision_that_nobody_named_explains_its_own_rounding_and_no_more(
    text: str, x: list[float], believed: list[float], verdict: bool | None
) -> None:
    assert checked(text, {"x": believed}, x=x)["x"]["agrees"] is verdict
