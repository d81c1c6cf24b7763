"""Why is my gradient None, or zero? Programs as people paste them, the line that cuts the path, and the reason."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.asking import ask

X, W = [0.3, -1.2, 2.4], [0.5, 1.5, -0.7]
# Program in x and w; the verdict on x, the line that is named, the operation there, a word of the reason, a word of the way out.
WHY: dict[str, tuple[str, str, int, str, str, str]] = {
    "detach": ("h = x * 2\ny = h.detach() * w\ny.sum().backward()", "disconnected", 2, "detach", "on purpose", "`detach`"),
    "detach in place": ("y = x * 2\ny.detach_()\n(y * w).sum()", "disconnected", 2, "detach", "on purpose", "`detach`"),
    "data": ("h = x.data * 2\n(h * w).sum()", "disconnected", 1, "data", "on purpose", ".data"),
    "no_grad": ("with torch.no_grad():\n    h = x * 2\nloss = (h * w).sum()", "disconnected", 2, "no_grad", "on purpose", "no_grad"),
    "a decorator": ("@torch.no_grad()\ndef f(a):\n    return a * 2\n(f(x) * w).sum()", "disconnected", 3, "no_grad", "on purpose", "no_grad"),
    "inference_mode": ("with torch.inference_mode():\n    h = x * 2\n(h * w).sum()", "disconnected", 2, "no_grad", "on purpose", "no_grad"),
    "numpy": ("y = x.detach().numpy()\n(torch.from_numpy(y) * w).sum()", "disconnected", 1, "detach", "on purpose", "numpy"),
    "long": ("y = x.long()\n(y * w).sum()", "disconnected", 1, "to", "whole numbers", "floating"),
    "int and back": ("h = x * w\ny = h.int().float()\ny.sum()", "disconnected", 2, "to", "whole numbers", "floating"),
    "argmax": ("p = softmax(x, 0)\nk = p.argmax()\n(k - 1.0) ** 2 * w.sum()", "disconnected", 2, "argmax", "whole numbers", "softmax(p"),
    "an index": ("i = x.floor().long()\nw[i].sum()", "disconnected", 1, "to", "whole numbers", "straight through"),
    "sorted places": ("v, i = torch.sort(x)\n(i.float() * w).sum()", "disconnected", 1, "sort", "second result", ".values"),
    "a comparison": ("m = (x > 0).float()\n(m * w).sum()", "disconnected", 1, ">", "truth values", "sigmoid"),
    "isnan": ("n = x.isnan().sum()\nn * w.sum()", "disconnected", 1, "isnan", "truth values", ""),
    "item": ("t = x.sum()\nz = t * 2\ns = t.item()\n(w * s).sum()", "disconnected", 3, "item", "plain number", "Keep the tensor"),
    "float": ("s = float(x.sum())\n(w * s).sum()", "disconnected", 1, "item", "plain number", "Keep the tensor"),
    "int": ("(w * int(x[2])).sum()", "disconnected", 1, "item", "plain number", "Keep the tensor"),
    "tolist": ("t = x.tolist()\ntorch.tensor(t).sum() * w.sum()", "disconnected", 1, "tolist", "plain numbers", "Keep the tensor"),
    "fill_": ("y = x.clone()\ny.fill_(1.0)\n(y * w).sum()", "disconnected", 2, "fill_", "overwrites", "zeros_like"),
    "zeros_like": ("y = torch.zeros_like(x)\n(y * w).sum()", "disconnected", 1, "zeros_like", "only the shape", "only the shape"),
    "round": ("y = x.round()\n((y - w) ** 2).sum()", "piecewise_constant", 1, "round", "constant between", "detach()"),
    "sign in a function": ("def f(a):\n    b = a.sign()\n    return b\n(f(x) * w).sum()", "piecewise_constant", 2, "sign", "constant", "tanh"),
    "a copy": ("h = x * 2\nt = torch.tensor(h)\n(t * w).sum()", "disconnected", 2, "tensor", "copies the numbers", "`clone(h)`"),
    "a tensor of tensors": ("t = torch.tensor([x[0], 2 * x[1]])\n(t * w[0]).sum()", "disconnected", 1, "tensor", "copies", "`stack([x[0]"),
    "new_tensor": ("t = x.new_tensor(x)\n(t * w).sum()", "disconnected", 1, "tensor", "copies the numbers", "`clone(x)`"),
    "a gradient": ("y = (x ** 2 * w).sum()\ny.backward()\nx.grad", "disconnected", 3, "grad", "create_graph=True", "create_graph"),
    "//": ("y = x // 1\n(y * w).sum()", "disconnected", 1, "//", "no derivative formula", "Divide"),
}  # fmt: skip
PASSES = (
    "x.permute(0) * w", "y = x * w\ny[1] = 0.0\ny", "y = torch.zeros(3)\ny[0] = x[0] * w[0]\ny", "torch.Tensor(x) * w", "torch.as_tensor(x) * w",
    "x + (x.round() - x).detach() + w", "torch.where(x > 0, x, 2 * x) * w", "x.clone() * w", "x.float() * w", "x.to(torch.float32) * w",
)  # fmt: skip


@pytest.mark.parametrize("case", WHY)
def test_the_line_and_the_reason(case: str) -> None:
    text, verdict, line, operation, word, way_out = WHY[case]
    report = ask(program=text, inputs={"x": np.array(X), "w": np.array(W)}, want=["explain"]).results["explain"]
    entry = report["inputs"]["x"]
    assert entry["verdict"] == verdict, entry
    because = entry["because"]
    assert (because["line"], because["operation"]) == (line, operation), because
    assert because["text"].strip() == text.splitlines()[line - 1].strip()
    assert word in because["reason"]
    assert way_out in (entry["instead"] or "")


@pytest.mark.parametrize("text", PASSES)
def test_what_does_pass(text: str) -> None:
    report = ask(program=text, inputs={"x": np.array(X), "w": np.array(W)}, want=["explain"]).results["explain"]
    assert report["inputs"]["x"]["verdict"] == "differentiable", report["inputs"]["x"]


@pytest.mark.parametrize("text", ["x * sign(y)", "copysign(x, y)"])
def test_a_bend_by_another_input_is_that_input_s(text: str) -> None:
    report = ask(program=text, inputs={"x": np.array(X), "y": np.array([0.0, 1.0, -1.0])}, want=["explain"]).results["explain"]
    assert report["inputs"]["x"]["verdict"] == "differentiable", report["inputs"]["x"]
    assert not report["inputs"]["x"]["findings"]
    assert report["inputs"]["y"]["elements"] == [[0]]
