"""Distances by the largest difference have a subgradient where several differences are the largest, in both modes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, jvp

from app.catalogue.better.largest_distances import cdist, pdist

# Forward mode compiles decompositions by it.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
TIED = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [4.5, 5.0, 0.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
OURS: dict[str, Callable[[Tensor], Tensor]] = {
    "cdist": lambda x: cdist(x[:1], x[1:], math.inf), "pdist": lambda x: pdist(x, math.inf),
}  # fmt: skip
PYTORCHS: dict[str, Callable[[Tensor], Tensor]] = {
    "cdist": lambda x: torch.cdist(x[:1], x[1:], math.inf), "pdist": lambda x: torch.nn.functional.pdist(x, math.inf),
}  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_the_derivative_is_that_along_what_moves_the_largest_alike(name: str) -> None:
    leaf = TIED.clone().requires_grad_()
    assert torch.equal(OURS[name](leaf), PYTORCHS[name](TIED))
    assert torch.equal(OURS[name](TIED), PYTORCHS[name](TIED))
    along = torch.zeros_like(TIED)
    along[1] = 1.0  # all three differences between the first row and the second grow alike, and with them the distance
    slope = grad(lambda x: OURS[name](x).reshape(-1)[0])(TIED)
    torch.testing.assert_close(slope[1], torch.full((3,), 1 / 3, dtype=torch.float64))
    assert jvp(OURS[name], (TIED,), (along,))[1].reshape(-1)[0].item() == pytest.approx(1.0)
    assert grad(lambda x: PYTORCHS[name](x).reshape(-1)[0])(TIED)[1].sum().item() == 3.0, "PyTorch has mended it"


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_other_distances_are_pytorchs(p: float) -> None:
    for own, other in (
        (cdist(TIED, TIED[:2], p), torch.cdist(TIED, TIED[:2], p)),
        (pdist(TIED, p), torch.nn.functional.pdist(TIED, p)),
    ):
        assert torch.equal(own, other)


def test_nothing_to_measure() -> None:
    empty = torch.zeros(2, 0, requires_grad=True)
    assert cdist(empty, empty, math.inf).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert pdist(torch.zeros(1, 3, requires_grad=True), math.inf).shape == (0,)
