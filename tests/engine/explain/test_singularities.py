"""Singular points: what is not finite is blamed on the element that made it, and on the step that made it first."""

from __future__ import annotations

import pytest

from tests.engine.building import explained

POINTS = [2.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("operation", "x", "outputs", "inputs"),
    [
        ("log", POINTS, "infinite at x = 0 and NaN at x = -1", ["infinite at x = 0", "NaN at x = -1"]),
        ("log", [-1.0, 2.0, 0.0], "infinite at x = 0 and NaN at x = -1", ["infinite at x = 0", "NaN at x = -1"]),
        ("log", [0.0, 2.0], "infinite at x = 0,", ["infinite at x = 0."]),
        ("log", [-3.0, 2.0], "NaN at x = -3,", ["NaN at x = -3,"]),
        ("log2", POINTS, "infinite at x = 0 and NaN at x = -1", ["infinite at x = 0", "NaN at x = -1"]),
        ("log1p", [1.0, -1.0, -2.0], "infinite at x = -1 and NaN at x = -2", ["infinite at x = -1", "NaN at x = -2"]),
        ("rsqrt", POINTS, "infinite at x = 0 and NaN at x = -1", ["infinite at x = 0 and not a number at x = -1"]),
        ("sqrt", POINTS, "NaN at x = -1,", ["infinite at x = 0 and not a number at x = -1"]),
        ("reciprocal", POINTS, "infinite at x = 0,", ["infinite at x = 0."]),
        ("atanh", [0.5, 1.0, 2.0], "infinite at x = 1 and NaN at x = 2", ["infinite at x = 1", "NaN at x = 2"]),
        ("acosh", [2.0, 0.5, 1.0], "NaN at x = 0.5,", ["infinite at x = 1 and not a number at x = 0.5"]),
    ],
)
def test_each_kind_is_blamed_on_its_element(operation: str, x: list[float], outputs: str, inputs: list[str]) -> None:
    report = explained(f"{operation}(x)", x=x)
    assert outputs in report["outputs"]["output"]["because"]["reason"]
    reasons = " | ".join(finding["because"]["reason"] for finding in report["inputs"]["x"]["findings"])
    for words in inputs:
        assert words in reasons


def test_a_sums_nan_is_blamed_on_the_element_that_made_it() -> None:
    report = explained("log(x).sum()", x=POINTS)
    assert "NaN at x = -1" in report["outputs"]["output"]["because"]["reason"]
    reasons = [(finding["because"]["reason"], finding["elements"]) for finding in report["inputs"]["x"]["findings"]]
    assert ("The derivative of `log` is infinite at x = 0.", [[1]]) in reasons
    assert all("NaN at x = 0" not in reason for reason, _ in reasons)


def test_a_derivative_of_what_is_not_finite_is_blamed_on_what_made_that() -> None:
    report = explained("y = log(x)\nz = y * y\nz.sum()", x=POINTS)
    because = report["inputs"]["x"]["because"]
    assert (because["line"], because["operation"]) == (1, "log")
    assert "infinite at x = 0 and NaN at x = -1" in because["reason"]


def test_the_end_of_a_domain_is_one_finding_beside_a_kink_elsewhere() -> None:
    assert [f["elements"] for f in explained("(x ** x).sum()", x=[0.0, 1.0])["inputs"]["x"]["findings"]] == [[[0]]]
    beside = explained("(x ** 1.5).sum() + abs(x - 1).sum()", x=[0.0, 1.0])["inputs"]["x"]["findings"]
    assert sorted(f["elements"] for f in beside) == [[[0]], [[1]]]


def test_nan_is_named_where_no_derivative_leads_to_it() -> None:
    report = explained("masked_fill(x, x > 0, -inf).softmax(-1)", x=[1.0, 2.0])
    for entry in (report["inputs"]["x"], report["outputs"]["output"]):
        assert any("The value of `softmax` is NaN" in str(finding["because"]) for finding in entry["findings"])
    assert "NaN" not in str(explained("masked_fill(x, x > 0, -inf)", x=[1.0, 2.0]))


def test_a_zero_after_a_logarithm_is_no_constant_function() -> None:
    entry = explained("log(x) * 0", x=[0.0, 1.0])["inputs"]["x"]
    assert [finding["verdict"] for finding in entry["findings"]] == ["singular"]
