"""Why a gradient is zero in every element: the step, and what makes it zero there; what is overwritten is cut off."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.engine.building import explained

F64, F32 = torch.float64, torch.float32
XW: dict[str, Any] = {"x": [0.3, -1.2, 2.4], "w": [0.5, 1.5, -0.7]}
# Program, the point (None: XW), the line that is named, words of the reason.
ZERO: list[tuple[str, dict[str, Any] | None, int | None, str]] = [
    ("y = x * 2\nrelu(y - 10) @ w", None, 2, "slope of `nn.functional.relu` is 0"),
    ("clamp(x, 5, 6) @ w", None, 1, "slope of `clamp` is 0"),
    ("y = x * 0\n(y * w).sum()", None, 1, "multiplies x by zero"),
    ("x @ zeros(3)", None, 1, "by zero"),
    ("F.linear(x, zeros(2, 3)).sum()", None, 1, "by zero"),
    ("((x - x) * w).sum()", None, 1, "takes x from itself"),
    ("x.sum() - x.sum() + w.sum()", None, None, "cancel each other"),
    ("softmax(x, 0).sum()", None, 1, "tied to each other"),
    ("y = tanh(x * 1000)\ny @ w", None, 1, "slope of `tanh` is 0, or too small"),
    ("exp(x - 1000) @ w", None, 1, "slope of `exp`"),
    ("cos(x).sum()", {"x": [0.0, 0.0]}, 1, "slope of `cos` is 0"),
    ("(x ** 2).sum()", {"x": [0.0, 0.0]}, 1, "slope of `**` is 0"),
    ("x.prod()", {"x": [0.0, 0.0, 2.0]}, 1, "slope of `prod` is 0"),
    ("x.where(x > 9, w).sum()", None, 1, "takes nothing"),
    ("x[x > 9].sum()", None, 1, "takes nothing"),
    ("y = x.clone()\ny[0] = 1.0\ny[1] = 2.0\ny[2] = 3.0\n(y * w).sum()", None, 2, "takes nothing"),
    ("y = x * 1\ny.masked_fill_(x < 9, 2.0)\n(y * w).sum()", None, 2, "takes nothing"),
]
# Program in float64 or float32, its point, words of the reason.
REASONS: list[tuple[str, torch.dtype, dict[str, Any], str]] = [
    (
        "F.linear(x, w, b).sum()",
        F64,
        {"x": [[0.3, 0.4]], "w": [[1.0, 2.0], [-1.0, -2.0]], "b": [0.0, 0.0]},
        "tied to each other",
    ),
    ("F.linear(x, w, b).sum()", F64, {"x": [[0.3, 0.4]], "w": [[0.0, 0.0]], "b": [1.0]}, "multiplies x by zero"),
    ("relu(x @ w) @ v", F64, {"x": [1.0, 2.0], "w": [[1.0, -1.0], [1.0, -1.0]], "v": [0.0, 3.0]}, "nothing passes"),
    ("tril(triu(x, 1)).sum()", F64, {"x": [[1.0, 2.0], [1.0, -1.0]]}, "reaches `triu` nothing passes to x"),
    ("F.cosine_similarity(x, y, 0)", F64, {"x": [1.0, 2.0], "y": [2.0, 4.0]}, "nothing passes to x"),
    ("(x * w)[1]", F64, {"x": [1.0, 2.0], "w": [1.0, 0.0]}, "nothing passes to x"),
    ("(x * 0 + sin(x) - sin(x)).sum()", F64, {"x": [1.0, 2.0]}, "the paths to the output cancel"),
    ("(x * 1e-200 * 1e-200).sum()", F64, {"x": [1.0, 2.0]}, "element: the gradient that reaches `*` is so small"),
    ("(x * 1e-30 * 1e-30).sum()", F32, {"x": [1.0, 2.0]}, "in float32: the gradient that reaches `*` is so small"),
    ("sigmoid(x).sum()", F32, {"x": [30.0, 50.0]}, "in float32: the slope of `sigmoid` is 0, or too small for its dtype"),
    ("sigmoid(x).sum()", F32, {"x": [120.0, -120.0]}, "in float32: the slope of `sigmoid` is 0, or too small for its dtype"),
]
OVERWRITTEN = {
    "y = x.clone()\ny[:] = 5.0\n(y * w).sum()": 2,
    "y = x.clone()\ny[...] = w\n(y * w).sum()": 2,
    "y = x * 1\ny.copy_(w)\n(y * w).sum()": 2,
    "y = x.clone()\ny.index_fill_(0, tensor([0, 1, 2]), 0.0)\n(y * w).sum()": 2,
    "y = x.masked_fill(tensor([True, True, True]), 2.0)\n(y * w).sum()": 1,
}
OWN = """class F1(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        ctx.save_for_backward(a)
        return a ** 2
    @staticmethod
    def backward(ctx, g):
        a, = ctx.saved_tensors
        return {}
"""


@pytest.mark.parametrize(("text", "inputs", "line", "words"), ZERO, ids=[case[0] for case in ZERO])
def test_why_it_is_zero(text: str, inputs: dict[str, Any] | None, line: int | None, words: str) -> None:
    entry = explained(text, **(inputs or XW))["inputs"]["x"]
    assert entry["verdict"] == "differentiable"
    assert "zero in every element" in entry["because"]["reason"]
    assert words in entry["because"]["reason"]
    assert entry["because"].get("line") == line


@pytest.mark.parametrize(("text", "dtype", "inputs", "words"), REASONS)
def test_the_reason_is_true_of_the_cotangent_and_the_dtype(
    text: str, dtype: torch.dtype, inputs: dict[str, Any], words: str
) -> None:
    leaves: dict[str, Any] = {name: torch.tensor(value, dtype=dtype) for name, value in inputs.items()}
    entry = explained(text, None, **leaves)["inputs"]["x"]
    assert entry["verdict"] == "differentiable"
    assert words in entry["because"]["reason"]


@pytest.mark.parametrize("text", ["x @ w", "(x - x.mean()) @ w", "softmax(x, 0) @ w", "relu(x) @ w", "x[0] * w.sum()"])
def test_nothing_is_said_where_an_element_is_not_zero(text: str) -> None:
    assert explained(text, **XW)["inputs"]["x"]["findings"] == []


@pytest.mark.parametrize("text", OVERWRITTEN)
def test_what_is_overwritten_is_disconnected(text: str) -> None:
    entry = explained(text, **XW)["inputs"]["x"]
    assert (entry["verdict"], entry["because"]["line"]) == ("disconnected", OVERWRITTEN[text])
    assert "overwrites" in entry["because"]["reason"]


def test_an_own_backward_that_ignores_its_gradient_is_right_for_a_cotangent_of_ones() -> None:
    entry = explained(OWN.format("2 * a") + "F1.apply(x).sum()", **XW)["inputs"]["x"]
    assert entry["verdict"] == "differentiable"
    assert "does not grow with the gradient" in entry["because"]["reason"]
    for wrong in ("2 * a", "g * a"):
        text = OWN.format(wrong) + "(F1.apply(x) * w).sum()"
        assert explained(text, **XW)["inputs"]["x"]["verdict"] == "singular"
    assert explained(OWN.format("g * 2 * a") + "(F1.apply(x) * w).sum()", **XW)["inputs"]["x"]["findings"] == []


def test_what_is_written_behind_autograd_is_wrong_where_it_is_written() -> None:
    entry = explained("y = x.clone()\ny.data[0] = 5.0\n(y * w).sum()", **XW)["inputs"]["x"]
    assert (entry["verdict"], entry["elements"]) == ("singular", [[0]])


def test_a_row_of_nothing_but_minus_infinity_has_no_softmax() -> None:
    report = explained("softmax(where(x > 9, x, -inf), 0)", **XW)
    assert report["outputs"]["output"]["verdict"] == "singular"
    assert "`softmax` is NaN" in report["outputs"]["output"]["because"]["reason"]
