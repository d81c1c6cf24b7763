"""What a program prints of gradients, and where PyTorch keeps none: leaves, computed tensors, copies of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.errors import PullbackError
from app.query import Answer
from tests.engine.asking import arrays, ask

LEAF = "x = torch.tensor([1.0, 2.0], requires_grad=True)\n"
BACK = "y = (x ** 2).sum()\ny.backward()\n"


def said(answer: Answer, code: str) -> str:
    return " ".join(note.message for note in answer.notes if note.code == code)


def asked(program: str, **fields: Any) -> Answer:
    return ask(program="import torch\n" + program, **fields)


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        (LEAF + BACK + "print(x.grad)", "Line 5 prints `x.grad`: tensor([2., 4.])."),
        (LEAF + BACK + "print('x', x.grad, y)", "`x.grad`: tensor([2., 4.])."),
        (LEAF + BACK + "print(f'grad {x.grad}')", "`x.grad`: tensor([2., 4.])."),
        (LEAF + BACK + "print(x.grad[0].item())", "`x.grad`: tensor([2., 4.])."),
        (LEAF + BACK + "y2 = x.sum()\ny2.backward()\nprint(x.grad)", "`x.grad`: tensor([3., 5.])."),
        (LEAF + BACK + "print(x.grad)\nx.grad.zero_()", "`x.grad`: tensor([2., 4.])."),
        (LEAF + "print(x.grad)\n" + BACK, "`x.grad`: None, for no `backward()`"),
        (LEAF + "z = torch.ones(2, requires_grad=True)\n" + BACK + "print(z.grad)", "`z.grad`: None"),
        ("def main():\n    x = torch.ones(2, requires_grad=True)\n    (x ** 3).sum().backward()\n    print(x.grad)\nmain()", "tensor([3., 3.])"),
        ("lin = torch.nn.Linear(2, 1)\nloss = lin(torch.ones(1, 2)).sum()\nloss.backward()\nprint(lin.weight.grad)", "tensor([[1., 1.]])"),
        (LEAF + "noise = torch.randn(2)\ny = (x * noise).sum()\ny.backward()\nprint(x.grad)", "tensor("),
    ],
)  # fmt: skip
def test_printed_gradients_are_told(program: str, shown: str) -> None:
    answer = asked(program, seed=0)
    assert shown in said(answer, "printed"), answer.notes


def test_what_is_printed_of_random_numbers_is_the_gradient_that_is_answered() -> None:
    answer = asked(LEAF + "n = torch.randn(2)\ny = (x * n).sum()\ny.backward()\nprint(x.grad)", seed=3, want=("gradient",))
    printed = said(answer, "printed")
    numbers = [float(word) for word in printed[printed.index("[") + 1 : printed.index("]")].split(",")]
    assert np.allclose(arrays(answer.results)["gradient"]["x"], numbers, atol=1e-4)
    assert "In full" not in printed


def test_what_a_loop_prints_is_not_told() -> None:
    assert (
        said(asked(LEAF + "for i in range(3):\n    y = (x ** 2).sum()\n    y.backward()\n    print(x.grad)"), "printed") == ""
    )


def test_the_output_stays_the_loss() -> None:
    answer = asked(LEAF + BACK + "print(x.grad)", want=("outputs", "gradient"))
    tree = arrays(answer.results)
    assert tree["outputs"]["output"] == 5
    assert tree["gradient"]["x"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (LEAF + "h = x * 2\ny = (h ** 2).sum()\ny.backward()\nh.grad", "only leaves"),
        (LEAF + "h = x * 2\ny = (h ** 2).sum()\ny.backward()\nprint(h.grad)", "None in PyTorch"),
        (LEAF + "x = x * 2\n" + BACK + "x.grad", "only leaves"),
        ("w = torch.zeros(2, requires_grad=True) + 1\ny = w.sum()\ny.backward()\nw.grad", "only leaves"),
        ("x = torch.tensor([1.0, 2.0])\n" + BACK + "x.grad", "requires_grad=True"),
        ("x = torch.tensor([1.0, 2.0])\n" + BACK + "print(x.grad)", "requires_grad=True"),
    ],
)
def test_a_gradient_that_pytorch_does_not_keep_is_noted(program: str, reason: str) -> None:
    assert reason in said(asked(program), "leaf")


@pytest.mark.parametrize(
    "program",
    [
        LEAF + BACK + "x.grad",
        LEAF + "h = x * 2\nh.retain_grad()\ny = (h ** 2).sum()\ny.backward()\nh.grad",
        "x = torch.tensor([1.0, 2.0])\nx.requires_grad_()\n" + BACK + "x.grad",
        "x = torch.tensor([1.0, 2.0])\nx.requires_grad = True\n" + BACK + "x.grad",
        LEAF + "x = (x * 2).detach().requires_grad_()\n" + BACK + "x.grad",
        LEAF + BACK + "with torch.no_grad():\n    x -= 0.1 * x.grad\nx.grad",
        "p = torch.nn.Parameter(torch.ones(2))\ny = p.sum()\ny.backward()\np.grad",
    ],
)
def test_a_leaf_is_not(program: str) -> None:
    assert said(asked(program), "leaf") == ""


def test_an_input_is_a_leaf() -> None:
    assert said(asked("x = x.double()\n" + BACK + "x.grad", inputs={"x": [1.0, 2.0]}), "leaf") == ""


@pytest.mark.parametrize(
    "copy", ["torch.tensor(h)", "torch.tensor([h[0], h[1]])", "torch.Tensor([h[0], 1.0])", "h.new_tensor(h)"]
)
def test_a_copy_of_numbers_passes_no_derivative(copy: str) -> None:
    program = LEAF + f"h = x * 2\nt = {copy}\n(t ** 2).sum()"
    with pytest.raises(PullbackError, match="not_differentiable"):
        asked(program, want=("gradient",))
    entry = asked(program, want=("explain",)).results["explain"]["inputs"]["x"]
    assert entry["verdict"] == "disconnected"
    assert entry["because"]["line"] == 4
    assert "copies the numbers" in entry["because"]["reason"]


@pytest.mark.parametrize("copy", ["torch.as_tensor(h)", "torch.asarray(h)", "h.clone()"])
def test_a_tensor_that_is_handed_on_passes_it(copy: str) -> None:
    gradient = arrays(asked(LEAF + f"h = x * 2\nt = {copy}\n(t ** 2).sum()", want=("gradient",)).results)["gradient"]["x"]
    assert gradient.tolist() == [8, 16]


def test_a_copy_is_a_memory_of_its_own() -> None:
    output = arrays(asked("t = torch.tensor(x)\nt += 1\nreturn x", inputs={"x": [1.0, 2.0]}).results)["outputs"]["output"]
    assert output.tolist() == [1, 2]


def test_whole_numbers_cannot_require_grad() -> None:
    with pytest.raises(PullbackError) as caught:
        asked("x = torch.tensor([1, 2], requires_grad=True)\n" + BACK)
    assert caught.value.at == "2:5"
    assert "with a point" in str(caught.value.fix)


def test_where_values_come_from_is_told() -> None:
    assert said(asked(LEAF + BACK), "initialised") == "Not sent, so with the values that the program gives: x."
    text = "net = torch.nn.Linear(2, 1)\nb = torch.zeros(1, requires_grad=True)\nloss = (net(torch.ones(2)) + b).sum()"
    sentences = said(asked(text, seed=0), "initialised")
    assert "initialised as PyTorch does: net.weight, net.bias." in sentences
    assert "the program gives: b." in sentences
