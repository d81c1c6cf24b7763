"""Functions that choose between equal arguments: both modes choose alike, and bounds that cross have a derivative."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import jvp, vjp

from app.catalogue.better.ties import clamp
from tests.engine.asking import arrays, ask

POINTS = ([0.0, 2.0, 0.0], [1.0, 2.0, 3.0], [-1.0, 1.0, 1.0])
CHOICES = (
    "fmax(x, zeros(3))", "fmin(x, zeros(3))", "fmax(zeros(3), x)", "fmax(x, tensor([nan, 0.0, 1.0]))", "fmin(x, 2 * x)",
    "nn.functional.prelu(x, zeros(1))", "x.prelu(x[:1])", "nn.functional.prelu(x[None, :, None], x)", "nn.functional.prelu(zeros(2, 3), x)",
    "clamp(zeros(3), x, x)", "clamp(x, x, x)", "clamp(x, zeros(3), x)", "clamp(x, x, ones(3))", "x.clamp(0, 0)",
    "clamp(x, tensor(2.0), tensor(1.0))", "clamp(x, zeros(3), ones(3))", "clamp(x, min=x)", "clip(x, zeros(3), 2 * x)",
)  # fmt: skip


@pytest.mark.parametrize("text", CHOICES)
@pytest.mark.parametrize("x", POINTS, ids=str)
def test_both_modes_choose_alike(text: str, x: list[float]) -> None:
    shape = arrays(ask(program=text, inputs={"x": np.array(x)}).results)["outputs"]["output"].shape
    c, t = np.linspace(0.5, 1.7, int(np.prod(shape))).reshape(shape), np.array([0.7, -1.1, 1.3])
    answer = ask(program=text, inputs={"x": np.array(x)}, cotangent={"output": c}, tangent={"x": t}, want=["vjp", "jvp"])
    tree = arrays(answer.results)
    assert (c * tree["jvp"]["output"]).sum() == pytest.approx((tree["vjp"]["x"] * t).sum(), abs=1e-12)
    assert not any(note.code == "modes_disagree" for note in answer.notes)


def test_between_bounds_that_are_equal_the_value_is_the_upper_one() -> None:
    x, c = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.25, 2.0])
    low = ask(program="clamp(zeros(3), low, high)", inputs={"low": x, "high": x}, cotangent={"output": c}, want=["vjp"])
    tree = arrays(low.results)["vjp"]
    assert tree["low"].tolist() == [0.0, 0.0, 0.0]
    assert tree["high"].tolist() == c.tolist()


def test_values_are_those_of_pytorch() -> None:
    numbers = [float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 2.0]
    x, y = (t.reshape(-1) for t in torch.meshgrid(torch.tensor(numbers), torch.tensor(numbers), indexing="ij"))
    for text, own in (
        ("fmax(x, y)", torch.fmax(x, y)), ("fmin(x, y)", torch.fmin(x, y)), ("clamp(x, y, ones_like(x))", torch.clamp(x, y, torch.ones_like(x))),
        ("clamp(0 * y, x, y)", torch.clamp(0 * y, x, y)), ("F.prelu(x, y[3:4])", torch.nn.functional.prelu(x, y[3:4])),
    ):  # fmt: skip
        answer = ask(program=text, inputs={"x": x.numpy(), "y": y.numpy()}, want=["outputs", "vjp"])
        np.testing.assert_array_equal(arrays(answer.results)["outputs"]["output"], own.numpy())


def test_a_clamp_to_one_value_is_constant() -> None:
    x = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    for low, high in ((0, 0), (2.0, 1.0)):
        y = clamp(x, low, high)
        assert torch.equal(y.detach(), torch.clamp(x.detach(), low, high))
        assert not torch.autograd.grad(y.sum(), x)[0].any()
    assert torch.autograd.grad(clamp(x, -1, 2).sum(), x)[0].tolist() == [1.0, 1.0, 1.0]


def test_pytorch_chooses_differently() -> None:
    """Where it has mended that, these functions can go."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for of in (lambda x: torch.fmax(x, zero), lambda x: torch.nn.functional.prelu(x, 0.5 * one)):
        assert jvp(of, (zero,), (one,))[1].item() != vjp(of, zero)[1](one)[0].item()
    assert vjp(lambda x: torch.clamp(zero, x, x), one)[1](one)[0].item() == 0.0
