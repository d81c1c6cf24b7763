"""Rules that leave out a part of a step's own are named wherever they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.engine.building import checked, normal

X: Final = normal(4, 6, seed=1)
V: Final = normal(5, seed=2)
VAR: Final = normal(6, seed=3).square() + 0.5
TARGET: Final = torch.tensor([1, 0, 5, 2])


def _gates(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return torch.cat([b.sigmoid(), a], 1)


def _weighted(x: Tensor) -> Tensor:
    own = VAR[TARGET].unsqueeze(1)
    return (x.softmax(1) - functional.one_hot(TARGET, 6)) * own / 4


# Program of x → the rule, and what the first explanation says.
MISTAKES: Final[dict[str, tuple[Callable[[Tensor], Tensor], str]]] = {
    "F.glu(x, 1).sum()": (_gates, "the gate's sigmoid is missing"),
    "F.batch_norm(x, zeros(6), v).sum()": (lambda x: (VAR + 1e-5).reciprocal().expand_as(x), "divided by σ² where σ"),
    "F.batch_norm(x, zeros(6), 2 * v).sum()": (torch.ones_like, "is not divided by σ"),
    "F.cosine_similarity(x, v, dim=1).sum()": (
        lambda x: VAR / VAR.norm() / x.norm(dim=1, keepdim=True), "the lengths that",
    ),
    "cdist(x, v[None]).sum()": (lambda x: 2 * (x - VAR), "that of its square"),
    "F.cross_entropy(x, k, weight=v)": (_weighted, "divided by the number of samples"),
    "relu(sin(relu(x))).sum()": (lambda x: x.relu().cos().relu(), "masked by its own sign"),
    "-(v * F.log_softmax(x, 1)).sum()": (lambda x: x.softmax(1).softmax(1) * VAR.sum() - VAR, "taken twice"),
    "-(v * log(softmax(x, 1))).sum()": (lambda x: x.softmax(0) * VAR.sum() - VAR, "along another axis"),
    "-(v * softmax(x, 1).log()).sum()": (lambda x: x.softmax(1).softmax(1) * VAR.sum() - VAR, "taken twice"),
}  # fmt: skip


@pytest.mark.parametrize("text", MISTAKES)
def test_the_wrong_rule_is_named(text: str) -> None:
    rule, words = MISTAKES[text]
    inputs: dict[str, Any] = {name: value for name, value in {"v": VAR, "k": TARGET}.items() if name in text}
    verdict = checked(text, {"x": rule(X)}, wrt=("x",), x=X, **inputs)["x"]
    assert verdict["agrees"] is False
    assert words in verdict["likely"]["message"]


def test_batch_statistics_are_no_mistake_in_evaluation() -> None:
    """There mean and spread are constants: nothing may say that they are not."""
    centred = X - X.mean(0)
    h = centred / (centred.square().mean(0) + 1e-5).sqrt()
    verdict = checked("(F.batch_norm(x, zeros(6), v) * x).sum()", {"x": h}, wrt=("x",), x=X, v=VAR)["x"]
    assert "depend on the input too" not in str(verdict)
