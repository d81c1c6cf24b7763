"""A derivative past a write in place is refused exactly where PyTorch refuses it, with the line of the write."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.errors import PullbackError
from tests.engine.asking import arrays, ask

X = [0.5, 1.25, 2.0]
PROGRAMS = [
    "y = x.exp()\ny += 1\ny.sum()", "y = x * 2\ny += 1\ny.sum()", "y = x.exp()\nz = y * y\ny.mul_(2)\n(z + y).sum()",
    "y = x ** 2\ny[0] = 0\ny.sum()", "y = x.sigmoid()\nr = y[0:2]\nr.zero_()\ny.sum()",
    "y = x * 1\nz = y ** 2\ny.add_(1)\nz.sum()", "y = x * 1\nz = y + 2\ny.add_(1)\nz.sum()",
    "y = torch.relu(x)\ny *= 2\ny.sum()", "y = F.relu(x * 2, inplace=True)\ny.sum()", "y = x.clone()\ny.relu_()\ny.sum()",
    "y = x.tanh().mul_(2)\ny.sum()", "y = x.clone()\ny *= x\ny *= x\ny.sum()", "a = x.sqrt()\na.clamp_(max=1)\na.sum()",
    "y = x.softmax(0)\ny[y > 0.5] = 0\ny.sum()", "y = x.exp()\ny += 1\n(x * 2).sum()",
    "w = torch.ones(3)\ny = x * w\nw += 1\ny.sum()", "w = torch.ones(3)\ny = x + w\nw += 1\ny.sum()",
    "y = x / x.norm()\ny /= y.norm()\ny.sum()", "y = x.clone()\ny /= y.norm()\ny.sum()",
    "y = torch.zeros(3)\ny[0] = x[0]\ny[1] = y[0] * x[1]\ny[2] = y[1] * x[2]\ny.sum()",
    "y = torch.zeros(3)\ny[0] = x[0]\ny[1] = y[0].clone() * x[1]\ny.sum()",
    "y = x.view(1, 3).expand(2, 3).clone()\nz = y @ y.T\ny[0] = 0\nz.sum()",
    "y = x.clone()\ny[1:] *= x[:-1]\ny[0] **= 3\ny[:] /= x\n(y * y).sum()",
    "y = x.clone()\nv = y[1:]\ny[None] *= x\ny[1:][1:] *= y[0].clone()\n(v * v).sum()",
    "y = x * 2\ny[0] *= y[1]\ny.sum()",
    "a = x.clone()\nheld = [a, a]\nheld[0] *= x\nheld[1] += 1\n(a * x).sum()",
    "a = x.clone()\nheld = {'k': a}\nheld['k'] -= 0.1 * x**2\n(a * a).sum()",
    "y = x.clone()\ny[[0, 2]] *= x[:2]\ny[x > 1] *= 3\n(y * y).sum()",
    "y = x * x\ny[1:] **= x[:-1]\ny.sum()", "y = x * x\ny[1:] **= 2\n(y * y).sum()", "y = x * x\ny **= x\ny.sum()",
    "y = x * x\nv = y[1:]\nv **= x[1:]\ny[0] *= x[0]\ny.sum()",
    "y = x * 2\na, b = y.tensor_split(2)\na *= 3\nb[0] *= x[0]\n(y * y).sum()",
    "y = x.view(1, 3) * 2\na, b = torch.hsplit(y, [1])\nb.mul_(x[0])\n(y * y).sum()",
]  # fmt: skip


def _by_pytorch(text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    """The gradient, or None where PyTorch refuses."""
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    names = {"torch": torch, "F": torch.nn.functional, "x": x * 1}
    *lines, last = text.split("\n")
    try:
        exec("\n".join(lines), names)  # noqa: S102 (a text of this file)
        return np.asarray(torch.autograd.grad(eval(last, names), x)[0].numpy())  # noqa: S307 (the same)
    except RuntimeError:  # one of the variables needed for gradient computation has been modified by an inplace operation
        return None
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("text", PROGRAMS)
def test_is_refused_where_pytorch_refuses(text: str) -> None:
    wanted = _by_pytorch(text)
    outputs = ask(program=text, inputs={"x": X}, want=["outputs"]).results["outputs"]
    assert np.isfinite(arrays(outputs)["output"]).all()
    if wanted is not None:
        gradient = arrays(ask(program=text, inputs={"x": X}, want=["gradient"]).results["gradient"])["x"]
        np.testing.assert_allclose(gradient, wanted, rtol=1e-12)
        return
    with pytest.raises(PullbackError) as caught:
        ask(program=text, inputs={"x": X}, want=["gradient"])
    assert caught.value.code == "operation_failed"
    line = int(str(caught.value.at).split(":")[0])
    assert text.split("\n")[line - 1] in caught.value.detail


def test_a_step_of_training_after_the_loss_spoils_nothing() -> None:
    text = "w = torch.zeros(3, requires_grad=True)\nloss = ((w - x) ** 2).sum()\nloss.backward()\nwith torch.no_grad():\n    w -= 0.1 * w.grad\nloss"
    gradient = arrays(ask(program=text, inputs={"x": X}, want=["gradient"]).results["gradient"])
    np.testing.assert_allclose(gradient["x"], 2 * np.array(X), rtol=1e-12)


def test_the_advice_is_accepted() -> None:
    answer = ask(program="y = x.exp()\ny = y + 1\ny.sum()", inputs={"x": X}, want=["gradient"])
    np.testing.assert_allclose(arrays(answer.results["gradient"])["x"], np.exp(X), rtol=1e-12)
