"""check at tied order statistics: no subgradient is called wrong, however many are tied, and what is wrong elsewhere is."""

from __future__ import annotations

from typing import Any, Final

import pytest
import torch
from torch import Tensor

from tests.engine.building import checked

# Programs of x, of whose elements one is the value.
ORDER: Final = ("torch.median(x)", "sort(x).values[{k}]", "kthvalue(x, {k} + 1).values")


def _agrees(text: str, x: Tensor, believed: Tensor | None = None) -> Any:
    return checked(text, None if believed is None else {"x": believed}, x=x)["x"]["agrees"]


def _ones(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.float64)


def _mixtures(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The mean, one element alone, and any other mixture."""
    weights = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    return _ones(count) / count, torch.eye(count, dtype=torch.float64)[count // 3], weights / weights.sum()


@pytest.mark.parametrize(("text", "count"), [*((text, 9) for text in ORDER), (ORDER[0], 41)])
def test_no_subgradient_is_called_wrong(text: str, count: int) -> None:
    x, program = _ones(count), text.format(k=count // 5)
    for believed in (None, *_mixtures(count)):
        assert _agrees(program, x, believed) is not False


def test_no_subgradient_of_hundreds_of_ties_is_called_wrong() -> None:
    assert _agrees(ORDER[0], _ones(301), _mixtures(301)[0]) is not False


@pytest.mark.parametrize(("text", "count"), [*((text, 9) for text in (*ORDER, "amax(x, 0)")), (ORDER[0], 41)])
@pytest.mark.share(3)
def test_derivatives_of_ties_that_do_not_add_up_are_wrong(text: str, count: int) -> None:
    """Whichever of the tied elements is the value, the derivatives add up to 1."""
    mean, one, other = _mixtures(count)
    program, changed = text.format(k=count // 5), mean.clone()
    changed[1] += 0.4
    for wrong in (0 * mean, changed, other / 2, one + mean):
        assert _agrees(program, _ones(count), wrong) is False


@pytest.mark.parametrize("count", [9, 41])
def test_what_is_wrong_elsewhere_is_told_from_the_tie(count: int) -> None:
    text, x = f"torch.median(x[:{count}]) + x[{count}] ** 2", _ones(count + 1)
    for mixture, value, wrong in zip(_mixtures(count), (2.0, 2.01, -57.123456), (False, True, True), strict=True):
        agrees = _agrees(text, x, torch.cat([mixture, torch.tensor([value], dtype=torch.float64)]))
        assert (agrees is False) is wrong, (value, agrees)


@pytest.mark.parametrize("count", [9, 41])
def test_a_number_beyond_the_range_of_its_tie_is_wrong(count: int) -> None:
    mean, *_ = _mixtures(count)
    mean[1] = 57.1
    assert _agrees("torch.median(x)", _ones(count), mean) is False


@pytest.mark.parametrize(("beside", "count"), [("sin(x[{k}].detach())", 41), ("relu(x[{k}] - 1) - relu(1 - x[{k}])", 25)])
def test_a_fault_of_pytorch_beside_many_ties_is_still_named(beside: str, count: int) -> None:
    text = "torch.median(x[:{k}]) + x[{k}] ** 2 + x[{k}].detach() ** 2 + " + beside
    assert _agrees(text.format(k=count), _ones(count + 1)) is False


def test_the_rows_of_a_sorted_tie() -> None:
    x = _ones(12)
    assert checked("sort(x).values", x=x, kind="jacobian")["x"]["agrees"] is not False


@pytest.mark.parametrize("count", range(3, 10))
@pytest.mark.share(3)
def test_every_order_of_the_weights_of_a_sorted_tie_agrees(count: int) -> None:
    w = torch.arange(count, dtype=torch.float64)
    for believed in (w.flip(0), w.roll(-1), w.roll(2)):
        assert checked("(x.sort().values * w).sum()", {"x": believed}, x=_ones(count), w=w)["x"]["agrees"] is True
    too_far = w.clone()
    too_far[[0, -1]] += torch.tensor([-1.0, 1.0], dtype=torch.float64)
    assert checked("(x.sort().values * w).sum()", {"x": too_far}, x=_ones(count), w=w)["x"]["agrees"] is False


@pytest.mark.parametrize("count", [5, 6, 7])
def test_corners_of_which_some_were_not_seen_prove_nothing_wrong(count: int) -> None:
    """Elements that cannot change places: each has a slope of its own, and their orders are too many to be seen."""
    w, c = torch.arange(count, dtype=torch.float64), 1 + torch.arange(count, dtype=torch.float64) / 10
    for order in (w.flip(0), w.roll(1), w.roll(2)):
        verdict = checked("((c * x).sort().values * w).sum()", {"x": c * order}, x=0 * w, w=w, c=c)
        assert verdict["x"]["agrees"] is not False


@pytest.mark.parametrize("signs", [1.0, -1.0])
@pytest.mark.parametrize("count", [4, 9])
def test_weighted_ties_under_a_second_kink(count: int, signs: float) -> None:
    """All elements must be on one side before anything moves: chance alone shows it once in 2 ** count."""
    w = torch.arange(1.0, count + 1, dtype=torch.float64) * signs ** torch.arange(count)
    x, one = torch.zeros(count, dtype=torch.float64), torch.eye(count, dtype=torch.float64)[0]
    of_one = [(-w * one, True)] if signs > 0 else []  # one element alone does not show on which sides the others must lie
    for believed, agrees in ((-w / count / 2, True), *of_one, (-w, False), (w / count, False)):
        report = checked("relu(-(w * x).max())", {"x": believed}, x=x, w=w, wrt=("x",))
        assert report["x"]["agrees"] is agrees


@pytest.mark.parametrize(
    ("text", "side"), [("sqrt(1 - cos(x))", 0.5**0.5), ("sqrt(exp(x) - 1 - x)", 0.5**0.5), ("sqrt(x * x)", 1.0)]
)
def test_a_lone_zero_under_a_root_has_the_interval_of_its_sides(text: str, side: float) -> None:
    """PyTorch gives NaN there; the two sides are known exactly."""
    for factor, agrees in ((0.9, True), (0.0, True), (-0.9, True), (1.2, False)):
        assert _agrees(f"({text}).sum()", torch.zeros(1, dtype=torch.float64), torch.tensor([factor * side]).double()) is agrees
