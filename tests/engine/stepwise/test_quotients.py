"""Difference quotients from both sides: where they settle, what they prove and what they leave open, on functions known on paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from app.engine.stepwise.quotients import (
    SAME,
    SHRINK,
    OneSided,
    Quotients,
    Rise,
    Sides,
    confirms,
    quotients,
    sides,
    steps_between,
)

EPS = 2.0**-53
STEPS = steps_between(2.0**-6, 2.0**-48)


def rise_of(function: Callable[[float], float], at: float) -> Rise:
    """`function(at + t) - function(at)`; NaN outside of the function's domain."""
    here = function(at)

    def rise(t: float) -> float:
        try:
            return function(at + t) - here
        except ValueError:
            return math.nan

    return rise


def seen(function: Callable[[float], float], at: float) -> Sides:
    return sides(rise_of(function, at), EPS * max(abs(function(at)), 1.0), STEPS)


def test_steps_go_from_one_end_to_the_other() -> None:
    steps = steps_between(2.0**-6, 2.0**-46)
    assert steps[0] == 2.0**-6
    assert steps[-1] == 2.0**-46
    assert all(a == SHRINK * b for a, b in pairwise(steps))


def test_there_are_three_steps_at_least() -> None:
    assert len(steps_between(1.0, 0.5)) == 3


@pytest.mark.parametrize(
    ("function", "at", "derivative"),
    [
        (math.sin, 0.7, math.cos(0.7)),
        (math.exp, 1.0, math.e),
        (math.log, 2.0, 0.5),
        (math.sqrt, 4.0, 0.25),
        (math.atan, -3.0, 0.1),
        (lambda x: x**3, 2.0, 12.0),
        (lambda x: 5 * x - 2, 1.0, 5.0),
    ],
)
def test_of_a_smooth_function_both_sides_settle_at_the_derivative(
    function: Callable[[float], float], at: float, derivative: float
) -> None:
    both = seen(function, at)
    assert both.settled
    assert both.differentiable
    assert both.agree(derivative) is True
    assert both.value == pytest.approx(derivative, rel=SAME)
    for wrong in (2 * derivative, -derivative, derivative + 0.01, 0.0):
        assert both.agree(wrong) is False


@pytest.mark.parametrize(
    ("function", "left", "right"),
    [
        (abs, -1.0, 1.0),
        (lambda x: max(x, 0.0), 0.0, 1.0),
        (lambda x: max(x, 0.2 * x), 0.2, 1.0),
        (lambda x: abs(math.sin(x)) + 3 * x, 2.0, 4.0),
    ],
)
def test_of_a_kink_each_side_has_its_own_and_what_lies_between_is_a_subgradient(
    function: Callable[[float], float], left: float, right: float
) -> None:
    both = seen(function, 0.0)
    assert both.settled
    assert not both.differentiable
    assert both.left.value == pytest.approx(left, abs=1e-6)
    assert both.right.value == pytest.approx(right, abs=1e-6)
    assert both.between((left + right) / 2)
    assert both.between(left)
    assert both.between(right)
    assert not both.between(right + 0.1)
    assert not both.between(left - 0.1)
    assert both.agree(left - 1.0) is False


def test_a_function_at_rest_has_the_derivative_zero() -> None:
    both = seen(lambda x: x * x, 0.0)
    assert both.differentiable
    assert both.value == pytest.approx(0.0, abs=1e-12)
    assert both.agree(0.5) is False


def test_a_slope_that_runs_away_is_no_derivative() -> None:
    both = seen(lambda x: math.copysign(math.sqrt(abs(x)), x), 0.0)
    assert both.agree(1.0) is not True
    assert not both.left.steady
    assert not both.right.steady


def test_a_side_outside_the_domain_does_not_settle() -> None:
    both = seen(math.sqrt, 0.0)
    assert math.isnan(both.left.value)
    assert both.left.doubt == math.inf
    assert not both.settled
    assert not both.differentiable


def test_a_plateau_of_coarse_steps_alone_proves_nothing() -> None:
    """x + sin(1e10 x) / 1e10 has the slope 1 from afar and 2 at the point."""
    both = seen(lambda x: x + math.sin(1e10 * x) / 1e10, 0.0)
    assert both.agree(1.0) is not True


@pytest.mark.parametrize("other", [0.999, 1.001, -1.0, 0.0, 1e9])
def test_what_is_surely_another_number(other: float) -> None:
    one = OneSided(1.0, 1e-9, True)
    assert one.is_not(other)
    assert not one.is_(other)


@pytest.mark.parametrize("other", [1.0, 1.0 + 5e-6, 1.0 - 5e-6])
def test_what_is_the_same_number(other: float) -> None:
    one = OneSided(1.0, 1e-9, True)
    assert one.is_(other)
    assert not one.is_not(other)


def test_where_the_doubt_is_large_neither_is_told() -> None:
    one = OneSided(1.0, 0.5, True)
    assert not one.is_(1.0)
    assert not one.is_not(1.2)


def test_what_is_not_steady_contradicts_nothing() -> None:
    assert not OneSided(1.0, 1e-9, False).is_not(5.0)


def test_the_value_is_the_most_certain_one_and_zero_where_it_cannot_be_told_from_it() -> None:
    worst, best = OneSided(2.0, 1e-1, True), OneSided(1.0, 1e-9, True)
    assert Sides(worst, best, worst).value == 1.0
    nothing = OneSided(1e-12, 1e-9, True)
    assert Sides(worst, nothing, worst).value == 0.0


@pytest.mark.parametrize(("function", "at", "derivative"), [(math.sin, 0.7, math.cos(0.7)), (math.exp, 1.0, math.e)])
def test_two_pairs_of_points_confirm_a_derivative(function: Callable[[float], float], at: float, derivative: float) -> None:
    rise = rise_of(function, at)
    assert confirms(rise, derivative, EPS * abs(function(at)), 2.0**-18)
    assert not confirms(rise, 1.001 * derivative, EPS * abs(function(at)), 2.0**-18)
    assert not confirms(rise, 0.0, EPS * abs(function(at)), 2.0**-18)


@pytest.mark.parametrize("slope", [-1.0, 0.5, 1.0])
def test_two_pairs_of_points_confirm_nothing_at_a_kink(slope: float) -> None:
    assert not confirms(rise_of(lambda x: max(x, 0.0) + x, 0.0), slope, EPS, 2.0**-18)


def test_zero_is_confirmed_only_where_nothing_moves() -> None:
    assert confirms(lambda _: 0.0, 0.0, EPS, 2.0**-18)
    assert not confirms(lambda t: 1e-9 * t, 0.0, 0.0, 2.0**-18)


def test_what_drowns_in_rounding_is_not_confirmed() -> None:
    assert not confirms(rise_of(math.sin, 0.7), math.cos(0.7), 1e-3, 2.0**-18)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: math.sqrt(abs(x)),
        lambda x: math.copysign(math.sqrt(abs(x)), x),
        lambda x: abs(x) ** 0.2,
        lambda x: float(x > 0),
    ],
)
def test_quotients_that_run_away_are_no_derivative_of_zero(function: Callable[[float], float]) -> None:
    assert seen(function, 0.0).agree(0.0) is not True


@pytest.mark.parametrize("function", [lambda x: x * x, lambda x: x**3, lambda x: abs(x) ** 1.5, lambda x: 0.0, math.cos])
def test_what_tends_to_zero_is_a_derivative_of_zero(function: Callable[[float], float]) -> None:
    assert seen(function, 0.0).agree(0.0) is True


def line(function: Callable[[Tensor], Tensor], at: float, steps: list[float]) -> Quotients | None:
    """Rows of `function` around a point; steps are rounded as its numbers are, and refused below zero."""

    def move(t: float) -> tuple[Tensor, float] | None:
        moved = torch.tensor(at, dtype=torch.float64) + t
        return None if moved < 0 else (function(moved), float(moved) - at)

    return quotients(move, function(torch.tensor(at, dtype=torch.float64)), steps)


def test_rows_settle_each_by_itself_from_both_sides() -> None:
    steps = steps_between(2.0**-6, 2.0**-40)
    rows = line(lambda x: torch.stack([x**3, (x - 2).abs(), 5 * x]), 2.0, steps)
    assert rows is not None
    assert rows.steps.tolist() == steps
    left, right, central = (value.tolist() for value, _, _ in rows.settled(torch.full((3,), 1e-14, dtype=torch.float64)))
    assert left == pytest.approx([12, -1, 5], rel=SAME)
    assert right == pytest.approx([12, 1, 5], rel=SAME)
    assert central == pytest.approx([12, 0, 5], rel=SAME, abs=SAME)


def test_a_step_is_as_long_as_the_number_really_moved() -> None:
    rows = line(lambda x: 2 * x[None], 1e8, [1e-6])  # rounded to the numbers near 1e8, 1.5e-8 apart
    assert rows is not None
    assert rows.up.tolist() != [1e-6]
    assert rows.central.tolist() == [[2.0]]


def test_steps_that_are_refused_are_left_out() -> None:
    rows = line(lambda x: x[None] ** 2, 0.5, [1.0, 0.25])
    assert rows is not None
    assert rows.steps.tolist() == [0.25]
    assert line(lambda x: x[None] ** 2, 0.5, [1.0, 2.0]) is None
