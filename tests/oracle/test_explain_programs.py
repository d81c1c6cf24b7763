"""explain on programs whose derivative is known on paper: bends that cancel or stay, constants between far jumps, steep and ill-conditioned ones."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest
import torch

from tests.engine.building import explained, program, tensors

# Smooth at the point; the derivative there. PyTorch's own number may be right or wrong: the verdict follows from that.
CANCEL: Final[list[tuple[str, float, float]]] = [
    ("relu(x) - relu(-x)", 0.0, 1.0),
    ("relu(-x) - relu(x)", 0.0, -1.0),
    ("2 * relu(x) - 2 * relu(-x)", 0.0, 2.0),
    ("relu(3 * x) - relu(-3 * x)", 0.0, 3.0),
    ("relu(x - 1) - relu(1 - x)", 1.0, 1.0),
    ("abs(x) * sign(x)", 0.0, 1.0),
    ("sign(x) * abs(x) + x", 0.0, 2.0),
    ("sign(x) * relu(x) + sign(x) * relu(-x)", 0.0, 1.0),
    ("abs(x) - 2 * relu(x)", 0.0, -1.0),
    ("abs(x) - 2 * relu(-x)", 0.0, 1.0),
    ("abs(x) - relu(x) - relu(-x) + x", 0.0, 1.0),
    ("(x + abs(x)) / 2 - (abs(x) - x) / 2", 0.0, 1.0),
    ("clamp(x, min=0) + clamp(x, max=0)", 0.0, 1.0),
    ("clamp(x, min=1) + clamp(x, max=1)", 1.0, 1.0),
    ("maximum(x, tensor(0.0)) + minimum(x, tensor(0.0))", 0.0, 1.0),
    ("maximum(x, -x) * sign(x)", 0.0, 1.0),
    ("maximum(x, 2 * x) + minimum(x, 2 * x)", 0.0, 3.0),
    ("maximum(x, 3 * x) - 2 * relu(x)", 0.0, 1.0),
    ("F.leaky_relu(x, 0.5) - 0.5 * relu(x)", 0.0, 0.5),
    ("F.leaky_relu(x, 0.25) + 0.75 * relu(-x) * -1", 0.0, 1.0),
    ("F.elu(x, 2.0) - relu(x) + relu(-x)", 0.0, math.nan),
    ("F.hardtanh(x) + relu(x - 1)", 1.0, 1.0),
    ("F.relu6(x) - relu(x)", 0.0, 0.0),
    ("F.softshrink(x) - relu(x - 0.5)", 0.5, 0.0),
    ("x * relu(x)", 0.0, 0.0),
    ("x * abs(x)", 0.0, 0.0),
    ("x * x * sign(x)", 0.0, 0.0),
    ("relu(x) ** 2", 0.0, 0.0),
    ("relu(x) ** 3 - relu(-x) ** 3", 0.0, 0.0),
    ("abs(x) ** 2", 0.0, 0.0),
    ("abs(x) * sin(x)", 0.0, 0.0),
    ("relu(x) * relu(-x)", 0.0, 0.0),
    ("cos(abs(x))", 0.0, 0.0),
    ("cosh(abs(x)) + x", 0.0, 1.0),
    ("exp(-abs(x)) + abs(x)", 0.0, 0.0),
    ("log1p(relu(x)) - relu(x)", 0.0, 0.0),
    ("tanh(abs(x)) - abs(x)", 0.0, 0.0),
    ("where(x > 0, sin(x), x)", 0.0, 1.0),
    ("where(x >= 0, exp(x), 1 + x)", 0.0, 1.0),
    ("where(x > 1, 2 * x - 1, x ** 2)", 1.0, 2.0),
    ("where(x > 0, x, 0.0) + where(x > 0, 0.0, x)", 0.0, 1.0),
    ("where(x > 0, x ** 2, -(x ** 2))", 0.0, 0.0),
    ("frac(x) + trunc(x)", 2.0, 1.0),
    ("remainder(x, 1.0) + floor(x)", 3.0, 1.0),
    ("x - floor(x) + floor(x)", 1.0, 1.0),
    ("h = relu(x)\ng = relu(-x)\nh - g", 0.0, 1.0),
    ("h = sin(x)\nrelu(h) - relu(-h)", 0.0, 1.0),
    ("stack([relu(x), -relu(-x)]).sum(0)", 0.0, 1.0),
    ("relu(x ** 3)", 0.0, 0.0),
    ("exp(relu(x) - relu(-x))", 0.0, 1.0),
]
# A bend of the whole at the point, from one slope to another.
KINKS: Final[list[tuple[str, float]]] = [
    ("abs(x) + relu(x)", 0.0), ("sqrt(abs(x) + 1e-12)", 0.0), ("sqrt(abs(x) + 1e-20)", 0.0), ("x * sign(x)", 0.0), ("x + 1e-3 * abs(x)", 0.0),
    ("relu(x) + tanh(1e3 * x)", 0.0), ("log(abs(x) + 1e-9)", 0.0), ("exp(abs(x))", 0.0), ("abs(sin(x))", 0.0), ("where(x > 0, x, 2 * x)", 0.0),
    ("where(x > 1, x, x ** 2)", 1.0), ("maximum(x, x ** 2)", 1.0),
    ("relu(relu(x))", 0.0), ("abs(x - 1) + abs(x + 1)", 1.0), ("1 / (1 + abs(x))", 0.0),
    ("relu(x) - 0.5 * relu(-x)", 0.0), ("clamp(2 * x, -1, 1)", 0.5), ("(x * (x > 0)).sum()", 0.0), ("F.elu(x, 0.5)", 0.0), ("F.hardswish(x)", 3.0),
]  # fmt: skip
CONSTANT: Final[list[str]] = [
    "sign(x)", "sign(x).sum()", "round(x)", "floor(x)", "ceil(x)", "trunc(x)", "round(x * 1e-6)", "floor(x / 1e9)", "ceil(x * 1e-4) * 3",
    "trunc(x * 1e-3) * 5", "sign(x - 1e6)", "sign(x + 1e5)", "sign(x) ** 2 + sign(x)", "relu(sign(x))", "exp(round(x))", "sin(floor(x) * 2)",
    "x - frac(x)", "x - x % 1", "x - remainder(x, 1.0)", "x - fmod(x, 1.0)", "round(x, decimals=1)", "round(exp(x))", "floor(x * x)", "sign(sin(x))",
    "sign(x) * floor(x)", "round(x) + ceil(x)", "floor(x + 0.25) - floor(x)", "round(tanh(x) * 4)", "h = exp(x)\nk = round(h)\n(k ** 2).sum()",
    "sgn(x)", "x.round()", "x.sign() + 1", "floor(abs(x))", "trunc(x ** 3)", "round(log(x))", "sign(x - 7.5)", "floor(1e-8 * x) + 1", "round(x / 3)",
    "copysign(tensor(2.0), x)", "cat([sign(x), floor(x)])",
]  # fmt: skip
# No bend, however it looks from afar; the numbers agree, or cannot be told.
DIFFERENTIABLE: Final[list[tuple[str, Any]]] = [
    ("tanh(1e9 * x)", [0.0]), ("tanh(1e9 * x)", [1.0]), ("sigmoid(1e12 * x)", [0.0]), ("sigmoid(-1e6 * x)", [1e-6]), ("exp(700 * x)", [1.0]),
    ("exp(-1e5 * x ** 2)", [1e-3]), ("x + 1e-12 * sin(1e12 * x)", [1.0]), ("x + 1e-20 * sin(1e20 * x)", [1.0]), ("sin(1e15 * x)", [1.0]),
    ("cos(x)", [1e8]), ("tan(x)", [1e8]), ("sin(1 / x)", [1e-6]), ("(x + 1e10) - 1e10", [1.0]), ("(x + 1e20) - 1e20", [1.0]),
    ("(1 + x) ** 2 - 1 - 2 * x", [1e-9]), ("sqrt(x ** 2 + 1e-30)", [0.0]), ("sqrt(x ** 2 + 1e-30)", [1e-20]), ("sqrt(abs(x) + 1e-12)", [1e-3]),
    ("sqrt(abs(x) + 1e-12)", [1e-15]), ("atan(1e15 * x)", [0.0]), ("erf(1e14 * x)", [1e-14]), ("x ** 100", [1.5]), ("prod(x)", [1e-3, 1e3, 2.0]),
    ("cumsum(x, 0)", [1e10, 1e-10]), ("x.sum()", [1e10, 1e-5]), ("logsumexp(1e6 * x, 0)", [1.0, 1.0]), ("softmax(1e3 * x, 0)", [1.0, 2.0]),
    ("inv(x)", [[1.0, 2.0], [2.0, 4.0001]]),
    ("linalg.solve(x, tensor([1.0, 2.0]))", [[1.0, 2.0], [2.0, 4.0000001]]), ("det(x)", [[1.0, 2.0], [2.0, 4.0]]),
    ("1 / (x - 1)", [1 + 1e-9]), ("log(x)", [1e-300]), ("sqrt(x)", [1e-300]), ("exp(x)", [709.0]), ("asin(x)", [1 - 1e-9]), ("asin(x)", [1 - 2e-16]),
    ("acos(x)", [-1 + 1e-12]), ("acosh(x)", [1 + 1e-12]), ("atanh(x)", [1 - 1e-12]),
    ("atan2(x, tensor(-1.0))", [1e-9]), ("atan2(x, tensor(-1.0))", [-1e-300]),
    ("atan2(x, tensor(1.0))", [0.0]), ("relu(x)", [1e-300]), ("abs(x)", [-1e-300]),
    ("relu(x - 1)", [1 + 1e-15]), ("maximum(x, tensor(1.0))", [1 - 1e-12]),
    ("log_softmax(x, 0)", [1e4, -1e4]), ("tanh(x).sum()", torch.tensor([0.5, 8.0], dtype=torch.float16)),
    ("exp(x)", torch.tensor([3.0], dtype=torch.bfloat16)),
    ("(x ** 2).mean().sqrt()", torch.tensor([300.0, 400.0], dtype=torch.float16)), ("x.var()", [1e8, 1e8 + 1]), ("x.std()", [1.0, 1.0 + 1e-12]),
]  # fmt: skip


def _gradient(text: str, x: Any) -> torch.Tensor:
    leaf = tensors({"x": x})["x"]
    (output,) = program(text, {"x": leaf}).call(leaf.requires_grad_())
    return torch.autograd.grad(output.sum(), leaf)[0]


@pytest.mark.parametrize(("text", "x", "derivative"), CANCEL)
def test_bends_that_cancel(text: str, x: float, derivative: float) -> None:
    ours = float(_gradient(text, [x]))
    for point in ([x], [x, x + 0.4, x - 0.3]):
        report = explained(text, x=point)
        entry = report["inputs"]["x"]
        if math.isnan(derivative):
            assert entry["verdict"] == "kink"  # the control: it bends
        elif abs(ours - derivative) < 1e-9:
            assert entry["verdict"] == report["outputs"]["output"]["verdict"] == "differentiable", entry
        else:
            assert entry["verdict"] == report["outputs"]["output"]["verdict"] == "kink", entry
            assert entry["elements"] == [[0]]
            assert entry["subgradient"] == pytest.approx([ours])
            assert entry["derivative"] == pytest.approx([derivative], rel=1e-6)


@pytest.mark.parametrize(("text", "x"), KINKS)
def test_bends_that_stay(text: str, x: float) -> None:
    for point in ([x], [x, x + 0.4, x - 0.3]):
        report = explained(text, x=point)
        assert report["inputs"]["x"]["verdict"] == report["outputs"]["output"]["verdict"] == "kink", report
        assert report["inputs"]["x"]["elements"] == [[0]]


@pytest.mark.parametrize("text", CONSTANT)
def test_constant_between_jumps(text: str) -> None:
    for point in ([1.3], [1.3, 2.4, 5.2]):
        report = explained(text, x=point)
        assert report["inputs"]["x"]["verdict"] == report["outputs"]["output"]["verdict"] == "piecewise_constant", report
        assert "NaN" not in str(report)


@pytest.mark.parametrize(("text", "x"), DIFFERENTIABLE)
def test_no_false_alarm(text: str, x: Any) -> None:
    report = explained(text, x=x)
    assert report["inputs"]["x"]["verdict"] == report["outputs"]["output"]["verdict"] == "differentiable", report
    assert report["inputs"]["x"]["elements"] == []
