"""A `torch.autograd.Function` in a program gives PyTorch's values and derivatives, right or wrong as its backward is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.errors import PullbackError
from tests.engine.asking import arrays, ask

X = [[0.5, -1.25, 2.0], [1.5, 0.25, -0.75]]
CLASS = """
import torch
from torch.autograd import Function

class Own(Function):
    @staticmethod
    def forward(ctx, {arguments}):
        {forward}

    @staticmethod
    def backward(ctx, {cotangents}):
        {backward}

{call}
"""


def _program(forward: str, backward: str, call: str, arguments: str = "x", cotangents: str = "grad_output") -> str:
    lines = {"forward": forward, "backward": backward}
    indented = {name: text.replace("\n", "\n        ") for name, text in lines.items()}
    return CLASS.format(arguments=arguments, cotangents=cotangents, call=call, **indented).strip()


SAVED = "ctx.save_for_backward(x)\nreturn {}"
# What people write, and one call of it that ends in a number.
PROGRAMS = {
    "relu": _program(
        SAVED.format("x.clamp(min=0)"),
        "x, = ctx.saved_tensors\ngrad_input = grad_output.clone()\ngrad_input[x < 0] = 0\nreturn grad_input",
        "(Own.apply(x) ** 2).sum()",
    ),
    "output saved": _program(
        "y = x.exp()\nctx.save_for_backward(y)\nreturn y",
        "(y,) = ctx.saved_tensors\nreturn grad_output * y",
        "f = Own.apply\nf(x).sum()",
    ),
    "intermediate saved": _program(
        "s = torch.sigmoid(x)\nctx.save_for_backward(x, s)\nreturn x * s",
        "x, s = ctx.saved_tensors\nreturn grad_output * (s + x * s * (1 - s))",
        "Own.apply(x).sum()",
    ),
    "number and None": _program(
        "ctx.save_for_backward(x)\nctx.n = n\nreturn x ** n",
        "x, = ctx.saved_tensors\nreturn ctx.n * x ** (ctx.n - 1) * grad_output, None",
        "Own.apply(x, 3).mean()",
        "x, n",
    ),
    "linear": _program(
        "ctx.save_for_backward(x, w)\nreturn x @ w.t() + b",
        "x, w = ctx.saved_tensors\ngx = gw = gb = None\nif ctx.needs_input_grad[0]:\n    gx = grad_output @ w\n"
        "if ctx.needs_input_grad[1]:\n    gw = grad_output.t() @ x\nif ctx.needs_input_grad[2]:\n    gb = grad_output.sum(0)\n"
        "return gx, gw, gb",
        "w = torch.arange(6.0).reshape(2, 3) / 4\n(Own.apply(x, w, x.sum() * torch.ones(2)) ** 2).sum()",
        "x, w, b",
    ),
    "two outputs": _program(
        "ctx.save_for_backward(x)\nreturn x.sin(), x.cos()",
        "x, = ctx.saved_tensors\nreturn a * x.cos() - b * x.sin()",
        "s, c = Own.apply(x)\n(s * 2 + c ** 2).sum()",
        cotangents="a, b",
    ),
    "straight through": _program("return x.round()", "return grad_output", "(Own.apply(x * 3) * x).sum()"),
    "reversed gradient": _program(
        "ctx.alpha = alpha\nreturn x.view_as(x)", "return grad_output.neg() * ctx.alpha, None", "Own.apply(x, 0.5).pow(2).sum()", "x, alpha"
    ),
    "input given back": _program("return x", "return grad_output * 3", "Own.apply(x).sum()"),
    "clipped gradient": _program("return x.clone()", "return grad_output.clamp(-1, 1)", "(Own.apply(x) ** 3).sum()"),
    "broadcast": _program("return x + y", "return grad_output, grad_output", "Own.apply(x, x[0] ** 2).sum()", "x, y"),
    "wrong factor": _program(
        SAVED.format("x ** 3"), "x, = ctx.saved_tensors\nreturn grad_output * 2 * x ** 2", "Own.apply(x).sum()"
    ),
    "inside a module": _program(
        SAVED.format("x.tanh()"),
        "x, = ctx.saved_tensors\nreturn grad_output * (1 - x.tanh() ** 2)",
        "class Net(torch.nn.Module):\n    def forward(self, x):\n        return Own.apply(x * 2)\nnet = Net()\nnet(x).sum()",
    ),
    "derived inside": _program(
        "ctx.save_for_backward(x)\nreturn x ** 2 * x.sin()",
        "x, = ctx.saved_tensors\nwith torch.enable_grad():\n    t = x.detach().requires_grad_()\n    y = t ** 2 * t.sin()\n"
        "    g, = torch.autograd.grad(y, t, grad_output)\nreturn g",
        "Own.apply(x).sum()",
    ),
    "context apart": """
class Own(torch.autograd.Function):
    @staticmethod
    def forward(x, k):
        return x ** 2 * k

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, k = inputs
        ctx.save_for_backward(x)
        ctx.k = k

    @staticmethod
    def backward(ctx, grad):
        x, = ctx.saved_tensors
        return 2 * ctx.k * x * grad, None

Own.apply(x, 1.5).sum()
""".strip(),
}  # fmt: skip


def _by_pytorch(text: str) -> tuple[float, torch.Tensor, torch.Tensor | None]:
    """The value, the gradient, and the gradient of its square sum: None where PyTorch cuts it off."""
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    names = {"torch": torch, "x": x}
    *lines, last = text.split("\n")
    try:
        exec("\n".join(lines), names)  # noqa: S102 (a text of this file)
        value = eval(last, names)  # noqa: S307 (the same)
        gradient = torch.autograd.grad(value, x, create_graph=True)[0]
        total = (gradient**2).sum()
        again = torch.autograd.grad(total, x, allow_unused=True)[0] if total.requires_grad else None
        return value.item(), gradient.detach(), again
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("name", PROGRAMS)
def test_gives_what_pytorch_gives(name: str) -> None:
    value, gradient, again = _by_pytorch(PROGRAMS[name])
    want = ["outputs", "gradient", "hessian"]
    results = arrays(ask(program=PROGRAMS[name], inputs={"x": X}, want=want).results)
    np.testing.assert_allclose(results["outputs"]["output"], value, rtol=1e-12)
    np.testing.assert_allclose(results["gradient"]["x"], gradient, rtol=1e-12)
    if again is not None and name != "clipped gradient":  # whose second derivative is no product with a Hessian
        hessian = results["hessian"]["x"]["x"].reshape(6, 6)
        np.testing.assert_allclose(2 * hessian.T @ gradient.numpy().reshape(6), again.reshape(6), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["relu", "output saved", "linear", "two outputs", "straight through", "wrong factor"])
def test_forward_mode_is_the_transpose_of_the_backward(name: str) -> None:
    tangent = [[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]
    results = arrays(ask(program=PROGRAMS[name], inputs={"x": X}, want=["gradient", "jvp"], tangent={"x": tangent}).results)
    np.testing.assert_allclose(results["jvp"]["output"], (results["gradient"]["x"] * np.array(tangent)).sum(), rtol=1e-10)


def test_each_sample_alone() -> None:
    whole = arrays(ask(program=PROGRAMS["relu"], inputs={"x": X}, want=["gradient"]).results)["gradient"]["x"]
    alone = arrays(ask(program=PROGRAMS["relu"], inputs={"x": X}, batched=("x",), want=["gradient"]).results)["gradient"]["x"]
    np.testing.assert_allclose(alone, whole, rtol=1e-12)


@pytest.mark.parametrize("name", ["output saved", "straight through"])
def test_a_sparse_jacobian_has_every_entry_of_the_dense_one(name: str) -> None:
    text = PROGRAMS[name].replace("f(x).sum()", "f(x)").replace("(Own.apply(x * 3) * x).sum()", "Own.apply(x * 3)")
    dense, auto = (
        arrays(ask(program=text, inputs={"x": X[0]}, want=["jacobian"], format=form).results)["jacobian"]["output"]["x"]
        for form in ("dense", "auto")
    )
    np.testing.assert_allclose(auto, dense, rtol=1e-12)


def test_check_says_that_a_backward_is_right() -> None:
    report = ask(program=PROGRAMS["intermediate saved"], inputs={"x": X}, want=["check"]).results["check"]
    assert report["x"]["agrees"] is True


def test_check_says_that_a_backward_is_wrong() -> None:
    report = ask(program=PROGRAMS["wrong factor"], inputs={"x": X}, want=["check"]).results["check"]
    assert report["x"]["agrees"] is False


def test_a_mask_that_is_drawn_serves_both_ways() -> None:
    text = _program(
        "mask = (torch.rand_like(x) > 0.5).to(x.dtype)\nctx.save_for_backward(mask)\nreturn x * mask * 2",
        "mask, = ctx.saved_tensors\nreturn grad_output * mask * 2",
        "Own.apply(x)",
    )
    results = arrays(ask(program=text, inputs={"x": X}, want=["outputs", "vjp"], seed=3).results)
    np.testing.assert_allclose(results["outputs"]["output"], results["vjp"]["x"] * np.array(X), rtol=1e-12)
    assert set(results["vjp"]["x"].reshape(-1)) == {0.0, 2.0}


def test_a_class_alone_is_called_on_the_inputs() -> None:
    text = PROGRAMS["output saved"].replace("f = Own.apply\nf(x).sum()", "")
    results = arrays(ask(program=text, inputs={"x": X}, want=["outputs", "vjp"]).results)
    np.testing.assert_allclose(results["vjp"]["x"], np.exp(X), rtol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("return grad_output * y", "return grad_output * y, None, 1", "gives 3 gradients"),
        ("return grad_output * y", "return (grad_output * y).sum()", "the shape []"),
        ("y = x.exp()", "y = x.exp_()", "writes into its input"),
        ("y = x.exp()", "y = x.exp()\n        ctx.mark_dirty(x)", "writes into its input"),
        ("f(x).sum()", "f(x=x).sum()", "no keyword arguments"),
        ("ctx.saved_tensors", "ctx.saved_tensor", "saved_tensors"),
    ],
)
def test_what_does_not_fit_is_refused(old: str, new: str, words: str) -> None:
    with pytest.raises(PullbackError) as caught:
        ask(program=PROGRAMS["output saved"].replace(old, new), inputs={"x": X}, want=["gradient"])
    assert words in f"{caught.value.detail} {caught.value.fix}"


def test_forward_mode_within_forward_mode_is_refused() -> None:
    """PyTorch's functions of one's own give zeros there, without a word."""
    text = PROGRAMS["output saved"].rstrip()
    definition, _, last = text.rpartition("\n")
    call = f"return torch.func.jvp(lambda v: torch.func.jvp(lambda x: {last.removeprefix('return ')}, (v,), (x,))[1], (x,), (x,))[1]"
    with pytest.raises(PullbackError, match="forward mode within forward mode"):
        ask(program=f"{definition}\n{call}", inputs={"x": X})


def test_explain_says_that_a_backward_is_wrong() -> None:
    finding = ask(program=PROGRAMS["wrong factor"], inputs={"x": X}, want=["explain"]).results["explain"]["inputs"]["x"]
    assert "the `backward` of `Own`, which is not the derivative of its `forward`" in finding["because"]["reason"]
    assert PROGRAMS["wrong factor"].split("\n")[finding["because"]["line"] - 1] == "Own.apply(x).sum()"
