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


# Program in x of [3, 2] and i of [2, 3], where memory has other orders than rows → what is written, and where, both row by row.
STRIDED: dict[str, tuple[str, str]] = {
    "put(z, i, x.T)": ("x.T", "i"),
    "put(z, i.T, x)": ("x", "i.T"),
    "put(z, i.T, x.T.T)": ("x", "i.T"),
    "z.put_(i, x.T)\nz": ("x.T", "i"),
    "index_put(z, (i,), x.T)": ("x.T", "i"),
    "index_put(z, (i.T,), x)": ("x", "i.T"),
    "z.index_put_((i,), x.T)\nz": ("x.T", "i"),
    "index_put(z, (i,), x[:, 0])": ("x[:, 0] + 0*i", "i"),
    "index_put(zeros(3, 1, dtype=float64), (i, 0*i), x.T).squeeze(1)": ("x.T", "i"),
    "z[i] = x.T\nz": ("x.T", "i"),
    "z[i.T] = x\nz": ("x", "i.T"),
    "y = zeros(3, 1, dtype=float64)\ny[i, 0] = x.T\ny.squeeze(1)": ("x.T", "i"),
    "y = zeros(1, 3, dtype=float64)\ny[:, i] = x.T[None]\ny[0]": ("x.T", "i"),
    "scatter(z, 0, i.T.flatten(), x.flatten())": ("x", "i.T"),
    "index_copy(z, 0, i.flatten(), x.T.flatten())": ("x.T", "i"),
}


@pytest.mark.parametrize("text", STRIDED)
@pytest.mark.parametrize("places", [[[0, 1, 2], [1, 2, 0]], [[2, 0, 0], [0, 1, 1]]], ids=str)
def test_the_last_of_the_rows_stays_whatever_is_wanted(text: str, places: list[list[int]]) -> None:
    x, i = np.array([[1.5, -2.0], [4.0, 8.0], [16.0, 32.0]]), np.array(places)
    written, where = (np.asarray(eval(part, {"x": x, "i": i})) for part in STRIDED[text])  # noqa: S307  # of the table above
    right = np.zeros(3)
    for place, value in zip(where.ravel(), written.ravel(), strict=True):
        right[place] = value
    query: dict[str, Any] = {"program": f"z = zeros(3, dtype=float64)\n{text}", "inputs": {"x": x, "i": i}, "wrt": ("x",)}
    assert results(want=["outputs"], **query)["outputs"]["output"].tolist() == right.tolist()
    answer = results(want=["outputs", "vjp", "jvp", "jacobian"], cotangent={"output": np.ones(3)}, tangent={"x": x}, **query)
    assert answer["outputs"]["output"].tolist() == right.tolist()
    assert answer["jvp"]["output"].tolist() == right.tolist()
    assert np.tensordot(answer["jacobian"]["output"]["x"], x).tolist() == right.tolist()
    assert (answer["vjp"]["x"] * x).sum() == right.sum()
    for value in (
        results(program=query["program"], inputs={"x": np.stack([x, 2 * x]), "i": i}, wrt=("x",), batched=("x",), want=want)
        for want in (["outputs"], ["outputs", "vjp"])
    ):
        assert value["outputs"]["output"].tolist() == [right.tolist(), (2 * right).tolist()]


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
