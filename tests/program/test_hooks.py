"""Hooks on tensors and modules: what PyTorch makes of a gradient with them, and what cannot be read in them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest

from app.errors import PullbackError
from tests.engine.asking import ask, results

AT: Final[dict[str, Any]] = {"x": [1.0, -2.0, 3.0]}


@pytest.mark.parametrize(
    ("text", "gradient"),
    [
        ("y = x * x\ny.register_hook(lambda g: g * 10)\ny.sum()", [20.0, -40.0, 60.0]),
        ("y = x * x\ny.register_hook(lambda g: g + 1)\ny.register_hook(lambda g: g * 3)\ny.sum()", [12.0, -24.0, 36.0]),
        ("x.register_hook(lambda g: g.clamp(-1, 1))\n(x * x).sum()", [1.0, -1.0, 1.0]),
        ("y = x * x\ny.register_hook(lambda g: print(g))\nloss = y.sum()\nloss.backward()\nloss", [2.0, -4.0, 6.0]),
        ("y = x * x\nmask = y > 2\ny.register_hook(lambda g: g * mask)\ny.sum()", [0.0, -4.0, 6.0]),
        ("y = x * x\nh = y.register_hook(lambda g: g * 10)\nz = y.sum()\nz.backward()\nh.remove()\nz", [20.0, -40.0, 60.0]),
    ],
)
def test_the_gradient_goes_through_the_hook(text: str, gradient: list[float]) -> None:
    np.testing.assert_allclose(results(program=text, inputs=AT, want=("gradient",))["gradient"]["x"], gradient)


def test_what_a_hook_keeps_can_be_read_after_the_backward_pass() -> None:
    text = "kept = {}\ny = x * x\ny.register_hook(lambda g: kept.update(y=g))\n(2 * y).sum().backward()\nkept['y']"
    np.testing.assert_allclose(results(program=text, inputs=AT)["outputs"]["output"], [2.0, 2.0, 2.0])


def test_the_kept_gradient_is_what_the_hook_made_of_it() -> None:
    text = "y = x * x\ny.retain_grad()\ny.register_hook(lambda g: g * 10)\ny.sum().backward()\ny.grad"
    np.testing.assert_allclose(results(program=text, inputs=AT)["outputs"]["output"], [10.0, 10.0, 10.0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("y = x * x\nz = y.sum()\ny.register_hook(lambda g: g * 10)\nz", "was used before"),
        ("y = x * x\ny.register_hook(lambda g: g * 10 if g.sum() > 0 else g)\ny.sum()", "decides by the values"),
        (
            "k = []\ndef f(g):\n    k.append(g)\n    return g * 2\ny = x * x\ny.register_hook(f)\ny.sum()",
            "keeps or prints it as well",
        ),
        ("y = x * x\ny.register_hook(lambda g: g.sum())\ny.sum()", "in the place of a gradient"),
        ("y = torch.ones(3)\ny.register_hook(lambda g: g * 2)\n(x * y).sum()", "does not require grad"),
        ("y = x * x\nh = y.register_hook(lambda g: g * 10)\nh.remove()\ny.sum()", "changes nothing"),
        ("m = nn.ReLU()\nm.register_full_backward_pre_hook(lambda m, o: None)\nm(x).sum()", "register_full_backward_pre_hook"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(PullbackError, match=words) as caught:
        ask(program=text, inputs=AT, want=("gradient",))
    assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("m = nn.ReLU()\nm.register_forward_hook(lambda m, i, o: o * 2)\nm(x)", [2.0, 0.0, 6.0]),
        ("m = nn.ReLU()\nm.register_forward_pre_hook(lambda m, i: (-i[0],))\nm(x)", [0.0, 2.0, 0.0]),
        ("m = nn.ReLU()\nh = m.register_forward_hook(lambda m, i, o: o * 2)\nh.remove()\nm(x)", [1.0, 0.0, 3.0]),
        ("m = nn.ReLU()\nm.register_forward_hook(lambda m, i, o: o * 2)\nm.forward(x)", [1.0, 0.0, 3.0]),
        ("m = nn.ReLU()\nm.register_forward_hook(lambda m, i, o: o * 2)\ncopy.deepcopy(m)(x)", [2.0, 0.0, 6.0]),
        ("k = []\nm = nn.ReLU()\nm.register_forward_hook(lambda m, i, o: k.append(i[0]))\nm(x)\nk[0]", [1.0, -2.0, 3.0]),
    ],
)
def test_a_call_of_a_module_goes_through_its_hooks(text: str, output: list[float]) -> None:
    np.testing.assert_allclose(results(program=text, inputs=AT)["outputs"]["output"], output)


def test_a_backward_that_decides_by_its_gradient_is_refused() -> None:
    text = (
        "class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        return x * 2\n"
        "    @staticmethod\n    def backward(ctx, g):\n        return g * 2 if g.sum() > 0 else g * 3\nF.apply(x)"
    )
    with pytest.raises(PullbackError, match="decides by the values of the gradient"):
        ask(program=text, inputs=AT, want=("vjp",), cotangent={"output": [-1.0, -1.0, -1.0]})
