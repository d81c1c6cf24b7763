"""explain where PyTorch refuses one side of an element: the derivative from the inside, beside the number that PyTorch gives."""

from __future__ import annotations

import pytest

from tests.engine.building import explained

_NLL = "gaussian_nll_loss(tensor([1.0, 2.0]), tensor([2.0, 2.0]), x, reduction='sum')"


@pytest.mark.parametrize(
    ("text", "x", "elements", "taken", "right"),
    [
        ("F.binary_cross_entropy(x, tensor([0.0, 1.0, 1.0]))", [0.0, 1.0, 0.5], [[0], [1]], [0.0, 0.0], [1 / 3, -1 / 3]),
        ("F.binary_cross_entropy(x, tensor([0.0, 1.0])) * 2", [0.0, 0.5], [[0]], [0.0], [1.0]),
        (_NLL, [0.0, 1.0], [[0]], [-499999500000.0], [0.0]),
        ("quantile(tensor([1.0, 0.0]), x)", [0.0], [[0]], [0.0], [1.0]),
    ],
)
def test_a_number_that_is_not_the_derivative_from_the_inside(
    text: str, x: list[float], elements: list[list[int]], taken: list[float], right: list[float]
) -> None:
    entry = explained(text, x=x)["inputs"]["x"]
    assert (entry["verdict"], entry["elements"]) == ("kink", elements)
    assert entry["subgradient"] == pytest.approx(taken)
    assert entry["derivative"] == pytest.approx(right, abs=1e-6)
    assert "ends here" in entry["because"]["reason"]
    assert "wrong" in entry["because"]["reason"]


def test_the_right_number_from_the_inside_is_not_called_wrong() -> None:
    entry = explained("F.binary_cross_entropy(tensor([0.3, 0.4]), x)", x=[0.0, 1.0])["inputs"]["x"]
    assert (entry["verdict"], entry["elements"]) == ("kink", [[0], [1]])
    assert "wrong" not in entry["because"]["reason"]


def test_a_slope_that_does_not_settle_is_no_derivative_from_the_inside() -> None:
    entry = explained("F.binary_cross_entropy(x, tensor([1.0, 0.0]))", x=[0.0, 0.0])["inputs"]["x"]
    assert "PyTorch gives 0 at element [1], which is wrong: it is 0.5." in entry["because"]["reason"]
    assert entry["derivative"][0] == "NaN"
    alone = explained("F.binary_cross_entropy(x, tensor([1.0]))", x=[0.0])["inputs"]["x"]
    assert "wrong" not in alone["because"]["reason"]
