"""What is written to a place twice: only what is written last has a derivative, in both modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.func import grad

from app.catalogue.better.overwriting import lasting
from tests.engine.asking import results

# Program in x of three numbers, and the element of x that each place of the result comes from; None: none.
WRITTEN: dict[str, list[int | None]] = {
    "scatter(zeros(3), 0, tensor([0, 0, 1]), x)": [1, 2, None],
    "zeros(3).scatter(0, tensor([0, 0, 1]), x)": [1, 2, None],
    "scatter(zeros(3), 0, tensor([2, 2]), x)": [None, None, 1],
    "scatter(zeros(2, 2), 1, tensor([[0, 0]]), x[None])[0]": [1, None],
    "index_put(zeros(3), (tensor([0, -3, 1]),), x)": [1, 2, None],
    "index_put(zeros(3), (tensor([0, 0, 2]),), x[:1])": [0, None, 0],
    "index_copy(zeros(3), 0, tensor([2, 1, 2]), x)": [None, 1, 2],
    "index_copy(zeros(1, 3), -1, tensor([2, 1, 2]), x[None])[0]": [None, 1, 2],
    "put(zeros(3), tensor([0, -3, 1]), x)": [1, 2, None],
    "y = zeros(3)\ny[[0, 0, 1]] = x\ny": [1, 2, None],
    "y = zeros(2, 3)\ny[:, tensor([1, 1, 0])] = x\ny[1]": [2, 1, None],
    "y = zeros(3)\ny[1:] = x[1:]\ny": [None, 1, 2],
    "y = zeros(3)\ny.scatter_(0, tensor([0, 0, 1]), x)\ny": [1, 2, None],
    "y = zeros(3)\ny.index_put_((tensor([0, 0, 1]),), x)\ny": [1, 2, None],
}


@pytest.mark.parametrize("text", WRITTEN)
def test_what_is_overwritten_has_no_derivative(text: str) -> None:
    x = np.array([1.5, -2.0, 4.0])
    right = np.zeros((len(WRITTEN[text]), 3))
    for place, element in enumerate(WRITTEN[text]):
        if element is not None:
            right[place, element] = 1.0
    cotangent, tangent = np.arange(1.0, 1 + len(right)), np.array([0.3, -1.0, 2.0])
    answer = results(
        program=text, inputs={"x": x}, cotangent={"output": cotangent}, tangent={"x": tangent}, want=["outputs", "vjp", "jvp", "jacobian"]
    )  # fmt: skip
    assert (answer["outputs"]["output"] == right @ x).all()
    assert (answer["vjp"]["x"] == cotangent @ right).all()
    assert (answer["jvp"]["output"] == right @ tangent).all()
    assert (answer["jacobian"]["output"]["x"] == right).all()


@pytest.mark.parametrize("text", ["x.scatter(0, i, 2.0)", "x.index_put((i,), x, accumulate=True)", "x.put(i, x, True)"])
def test_what_adds_or_writes_a_number_is_as_in_pytorch(text: str) -> None:
    x, i = torch.tensor([1.5, -2.0, 4.0], dtype=torch.float64), torch.tensor([0, 0, 1])
    functions: dict[str, Any] = {
        "x.scatter(0, i, 2.0)": lambda x: x.scatter(0, i, 2.0),
        "x.index_put((i,), x, accumulate=True)": lambda x: x.index_put((i,), x, accumulate=True),
        "x.put(i, x, True)": lambda x: x.put(i, x, True),
    }
    answer = results(program=text, inputs={"x": x.numpy(), "i": i.numpy()}, want=["vjp"], wrt=("x",))
    assert answer["vjp"]["x"].tolist() == grad(lambda x: functions[text](x).sum())(x).tolist()


def test_pytorch_gives_the_cotangent_to_all() -> None:
    """Where it has mended that, these functions can go."""
    x, i = torch.ones(3, requires_grad=True), torch.tensor([0, 0, 1])
    for written in (
        torch.zeros(3).scatter(0, i, x), torch.zeros(3).index_put((i,), x), torch.zeros(3).index_copy(0, i, x), torch.zeros(3).put(i, x),
    ):  # fmt: skip
        assert torch.autograd.grad(written.sum(), x)[0].tolist() == [1.0, 1.0, 1.0]


def test_the_last_of_several_stays() -> None:
    source = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(lasting(source, torch.tensor([1, 0, 1, 1]), 2).sum(), source)
    assert gradient.tolist() == [0.0, 1.0, 0.0, 1.0]
