"""√2, π and the like are exact where a program computes them, and what is written where their digits are written."""

from __future__ import annotations

import pytest

from tests.engine.asking import ask


def digits(program: str, x: float) -> float:
    report = ask(program=program, inputs={"x": x}, want=["precision"]).results["precision"]["x"]
    return float(report["digits"]["worst"])


@pytest.mark.parametrize("root", ["sqrt(2.0)", "math.sqrt(2)", "2 ** 0.5", "sqrt(tensor(2.0))"])
def test_a_rounded_root_costs_its_share_of_the_digits(root: str) -> None:
    """At -5 the density moves by 25 times the relative error of √2, which is 0.7 of float64's eps: 14.8 digits are left."""
    assert digits(f"0.5 * (1 + erf(x / {root}))", -5.0) == pytest.approx(14.8, abs=0.2)


def test_digits_that_are_written_are_meant() -> None:
    assert digits("0.5 * (1 + erf(x / 1.4142135623730951))", -5.0) > 15.4


def test_pi_is_exact_where_it_is_computed_with() -> None:
    assert digits("sin(math.pi * x)", 1e6 + 0.25) < 11
    assert digits("sin(3.141592653589793 * x)", 1e6 + 0.25) > 8
    assert digits("sin(3.0 * x)", 0.5) > 15
