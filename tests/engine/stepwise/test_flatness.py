"""Constant between jumps, or only at rest at a point: functions of each sort, with derivatives known on paper."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from app.engine.stepwise.flatness import LookAt, is_constant_between_jumps

F64 = torch.float64


def look_at(function: Callable[[Tensor], Tensor]) -> LookAt:
    """The value, and whether autograd's derivative is zero there or there is no path; as the reports look."""

    def look(at: Tensor) -> tuple[Tensor, bool]:
        leaf = at.detach().clone().requires_grad_()
        value = function(leaf)
        if not value.requires_grad:
            return value.detach(), True
        (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True, materialize_grads=True)
        return value.detach(), not bool(gradient.any())

    return look


def is_flat(function: Callable[[Tensor], Tensor], *numbers: float) -> bool:
    return is_constant_between_jumps(look_at(function), torch.tensor(numbers, dtype=F64))


@pytest.mark.parametrize(
    "function",
    [
        torch.floor,
        torch.round,
        torch.trunc,
        torch.sign,
        lambda x: (x > 0.3).to(F64),
        lambda x: torch.floor(x).sum(),
        lambda x: torch.round(x / 1000.0) * 1000.0,  # jumps 500 away from where we stand
        lambda x: torch.floor(x) * 2.0 + torch.sign(x),
    ],
)
@pytest.mark.parametrize("numbers", [(0.7,), (-2.3, 0.4), (1.25, 3.5, -0.75)])
def test_steps_are_constant_between_jumps(function: Callable[[Tensor], Tensor], numbers: tuple[float, ...]) -> None:
    assert is_flat(function, *numbers)


@pytest.mark.parametrize(
    ("function", "number"),
    [
        (lambda x: x * x, 0.0),  # at rest at this point alone
        (torch.cos, 0.0),
        (torch.relu, -1.0),  # flat here, a slope elsewhere
        (lambda x: x.clamp(0.0, 1.0), 3.0),
        (lambda x: torch.sigmoid(100.0 * x), 50.0),  # saturated: the slope is far from here
        (lambda x: torch.nn.functional.hardtanh(x), -4.0),
        (lambda x: torch.floor(x) + torch.relu(x - 2.0), 0.5),  # jumps here, and a slope farther out
    ],
)
def test_flat_ends_and_points_of_rest_are_not(function: Callable[[Tensor], Tensor], number: float) -> None:
    assert not is_flat(function, number)


def test_a_constant_never_jumps() -> None:
    assert not is_flat(lambda x: torch.full_like(x, 3.0), 0.5)


def test_a_slope_at_the_point_is_seen_at_once() -> None:
    looks: list[Tensor] = []
    sine = look_at(torch.sin)

    def look(at: Tensor) -> tuple[Tensor, bool] | None:
        looks.append(at)
        return sine(at)

    assert not is_constant_between_jumps(look, torch.tensor([0.5], dtype=F64))
    assert len(looks) == 1


def test_a_function_that_is_refused_at_the_point_is_not_judged() -> None:
    assert not is_constant_between_jumps(lambda _: None, torch.tensor([0.5], dtype=F64))


def test_places_where_a_function_is_refused_are_left_out() -> None:
    floor = look_at(torch.floor)

    def look(at: Tensor) -> tuple[Tensor, bool] | None:
        return None if float(at.min()) < 0 else floor(at)

    assert is_constant_between_jumps(look, torch.tensor([0.5], dtype=F64))


def test_a_slope_between_two_flat_ends_is_found_by_halving() -> None:
    """A ramp of width 1e-6 at 1234.5 that no other point of ours hits."""
    assert not is_flat(lambda x: ((x - 1234.5) * 1e6).clamp(0.0, 1.0), 0.5)


def test_rounding_is_no_jump() -> None:
    """A value that wavers in its last digits, as a sum in another order does, has not changed."""

    def look(at: Tensor) -> tuple[Tensor, bool]:
        return torch.full_like(at, 1.0 + 1e-15 * float(torch.sin(1e3 * at).sum())), True

    assert not is_constant_between_jumps(look, torch.tensor([0.5], dtype=F64))
