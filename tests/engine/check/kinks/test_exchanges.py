"""Large ties: every mixture of the derivatives around agrees, and what no mixture is does not."""

from __future__ import annotations

from typing import Any, Final

import pytest
import torch
from torch import Tensor

from tests.engine.building import checked

SIZE: Final = 100  # more than any number that is looked at one by one
X: Final = torch.cat([torch.ones(SIZE, dtype=torch.float64), torch.tensor([5.0, 7.0], dtype=torch.float64)])
# Program, and its derivatives by the tied elements in falling order, by the two others.
TIES: Final[dict[str, tuple[str, list[float], tuple[float, float]]]] = {
    "median": ("median(x)", [1.0], (0.0, 0.0)),
    "mode": ("mode(x).values", [1.0], (0.0, 0.0)),
    "largest four": ("topk(x, 4).values.sum()", [1.0, 1.0], (1.0, 1.0)),
    "the lower half": (f"x.sort().values[: {SIZE // 2}].mean()", [2 / SIZE] * (SIZE // 2), (0.0, 0.0)),
    "between two": (f"quantile(x[:{SIZE}], 0.3)", [0.7, 0.3], (0.0, 0.0)),
}


def _tied(case: str, places: Tensor) -> Tensor:
    _, falling, others = TIES[case]
    derivative = torch.zeros(SIZE, dtype=torch.float64)
    derivative[places[: len(falling)]] = torch.tensor(falling, dtype=torch.float64)
    return torch.cat([derivative, torch.tensor(others, dtype=torch.float64)])


def _verdict(case: str, believed: Tensor | None) -> Any:
    return checked(TIES[case][0], None if believed is None else {"x": believed}, x=X)["x"]["agrees"]


@pytest.mark.parametrize("case", TIES)
@pytest.mark.share(3)
def test_every_mixture_agrees(case: str) -> None:
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(1))
    one, other = _tied(case, order), _tied(case, order.flip(0))
    assert _verdict(case, None) is True
    for believed in (one, (0.3 * one + 0.7 * other).float().double()):
        assert _verdict(case, believed) is True


@pytest.mark.parametrize("case", TIES)
@pytest.mark.share(3)
def test_what_no_mixture_is_does_not(case: str) -> None:
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(2))
    right = _tied(case, order)
    too_much, at_once = right.clone(), right.clone()
    too_much[:SIZE] *= 1.5
    at_once[order[0]] += 1.0
    at_once[order[1]] -= 1.0
    assert _verdict(case, too_much) is False
    assert _verdict(case, at_once) is False


def test_elements_that_cannot_change_places_are_not_taken_for_such() -> None:
    c = torch.linspace(-1, 1, 40, dtype=torch.float64)
    zeros = torch.zeros(40, dtype=torch.float64)
    assert checked("(c * relu(x)).sum()", {"x": 0.5 * c}, x=zeros, c=c)["x"]["agrees"] is True
    assert checked("(c * relu(x)).sum()", {"x": 0.5 * c.flip(0)}, x=zeros, c=c)["x"]["agrees"] is False


# Program, the value of all tied elements, and the sum of the derivatives of one that is right.
OUTER: Final = (
    ("relu(-x.max())", 0.0, -1.0),
    ("relu(1 - x.max())", 1.0, -1.0),
    ("relu(x.min())", 0.0, 1.0),
    ("x.min().clamp(min=0)", 0.0, 1.0),
    ("x.max().abs()", 0.0, -1.0),
    ("(median(x) - 2).abs()", 2.0, 1.0),
    ("1e-9 * relu(-x.max())", 0.0, -1e-9),
)


# Up to eight every corner of the hull is seen, of more it is not: one size of each sort, the extremes and their neighbours in turn.
SIZES: Final = ((4, 9), (8, 20))


@pytest.mark.parametrize(
    ("text", "value", "total", "size"), [(*outer, size) for k, outer in enumerate(OUTER) for size in SIZES[k % 2]]
)
@pytest.mark.share(4, of="text")
def test_both_sides_of_a_kink_of_the_ties_own_order_statistic_are_seen(
    text: str, value: float, total: float, size: int
) -> None:
    x = torch.full((size,), value, dtype=torch.float64)
    one, mean = torch.zeros_like(x), torch.full_like(x, total / size)
    one[2] = total
    for believed in (one, mean, 0.4 * one + 0.3 * mean):
        assert checked(text, {"x": believed}, x=x)["x"]["agrees"] is True
    for wrong in (3 * one, 1.5 * total * torch.eye(size, dtype=torch.float64)[0]):
        assert checked(text, {"x": wrong}, x=x)["x"]["agrees"] is False


def test_another_tie_beside_the_largest_leaves_its_own_derivatives_free() -> None:
    x = torch.cat([torch.ones(9, dtype=torch.float64), torch.full((8,), 2.0, dtype=torch.float64)])
    believed = torch.zeros_like(x)
    believed[[3, 14]] = 1.0
    assert checked("x[:9].max() + x[9:].max()", {"x": believed}, x=x)["x"]["agrees"] is not False
