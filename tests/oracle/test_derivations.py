"""Derivations by hand: right ones in every precision agree, wrong ones do not, at kinks and at ill-conditioned points too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.engine.building import checked, normal

MP = mpmath.MPContext()
MP.dps = 50


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As a worker has it: two threads take ten times as long over 18 numbers where other tests run beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def wide(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def exactly(derivative: Any, points: list[float]) -> Tensor:
    """A derivative in 50 digits, rounded to float64."""
    return wide([float(derivative(MP.mpf(point))) for point in points])


X, W, B, Y = normal(6, 4), normal(4, 3, seed=1), normal(3, seed=2), normal(6, 3, seed=3)
K = torch.tensor([0, 2, 1, 0, 2, 1])
H = X @ W + B
P = torch.softmax(H, 1)
A = normal(4, 4, seed=4)
SPD = A @ A.T + 4 * torch.eye(4, dtype=torch.float64)
V = normal(4, seed=5)
ONES = torch.ones(4, dtype=torch.float64)
NORM = float(V.norm())
CENTRED = V - V.mean()
SIGMA = float((CENTRED.square().mean() + 1e-5).sqrt())
XHAT = CENTRED / SIGMA


def layer_norm_vjp(g: Tensor) -> Tensor:
    return (g - g.mean() - XHAT * (g * XHAT).mean()) / SIGMA


# Program, inputs, by what, its derivative in closed form.
CLOSED: dict[str, tuple[str, dict[str, Any], str, Tensor]] = {
    "linear layer, weights": ("((x @ w + b - y) ** 2).mean()", {"x": X, "w": W, "b": B, "y": Y}, "w", X.T @ (H - Y) * 2 / 18),
    "linear layer, bias": ("((x @ w + b - y) ** 2).mean()", {"x": X, "w": W, "b": B, "y": Y}, "b", (H - Y).sum(0) * 2 / 18),
    "linear layer, data": ("((x @ w + b - y) ** 2).sum()", {"x": X, "w": W, "b": B, "y": Y}, "x", 2 * (H - Y) @ W.T),
    "cross entropy": (
        "F.cross_entropy(x @ w + b, k)", {"x": X, "w": W, "b": B, "k": K}, "w",
        X.T @ (P - torch.eye(3, dtype=torch.float64)[K]) / 6,
    ),
    "tanh layer": ("tanh(x @ w + b).sum()", {"x": X, "w": W, "b": B}, "w", X.T @ (1 - torch.tanh(H) ** 2)),
    "sigmoid layer": (
        "sigmoid(x @ w + b).sum()", {"x": X, "w": W, "b": B}, "b", (torch.sigmoid(H) * (1 - torch.sigmoid(H))).sum(0),
    ),
    "logsumexp": ("logsumexp(v, 0)", {"v": V}, "v", torch.softmax(V, 0)),
    "norm": ("v.norm()", {"v": V}, "v", V / NORM),
    "quadratic form": ("v @ a @ v", {"v": V, "a": A}, "v", (A + A.T) @ V),
    "log det": ("logdet(a)", {"a": SPD}, "a", torch.linalg.inv(SPD).T),
    "det": ("det(a)", {"a": A}, "a", torch.linalg.det(A) * torch.linalg.inv(A).T),
    "trace of the inverse": ("trace(inverse(a))", {"a": SPD}, "a", -(torch.linalg.inv(SPD) @ torch.linalg.inv(SPD)).T),
    "frobenius": ("(a @ b).square().sum()", {"a": A, "b": SPD}, "a", 2 * A @ SPD @ SPD.T),
    "layer norm": ("(F.layer_norm(v, (4,)) * c).sum()", {"v": V, "c": B.new_tensor([1.0, -2.0, 0.5, 3.0])}, "v",
        layer_norm_vjp(wide([1.0, -2.0, 0.5, 3.0]))),
    "softmax vjp": ("(softmax(v, 0) * c).sum()", {"v": V, "c": wide([1.0, -2.0, 0.5, 3.0])}, "v",
        torch.softmax(V, 0) * (wide([1.0, -2.0, 0.5, 3.0]) - (torch.softmax(V, 0) * wide([1.0, -2.0, 0.5, 3.0])).sum())),
    "variance": ("v.var()", {"v": V}, "v", 2 * CENTRED / 3),
    "cosine similarity": ("(u @ v) / (u.norm() * v.norm())", {"u": V, "v": A[0]}, "u",
        A[0] / (V.norm() * A[0].norm()) - (V @ A[0]) * V / (V.norm() ** 3 * A[0].norm())),
    "gaussian log density": ("(-0.5 * ((v - m) / s) ** 2 - log(s)).sum()", {"v": V, "m": 0.3, "s": 1.7}, "s",
        (((V - 0.3) ** 2) / 1.7**3 - 1 / 1.7).sum()),
    "power": ("(abs(v) ** 2.5).sum()", {"v": V}, "v", 2.5 * V.abs() ** 1.5 * V.sign()),
    "product": ("v.prod()", {"v": V}, "v", V.prod() / V),
    "cumulative sum": ("(v.cumsum(0) ** 2).sum()", {"v": V}, "v", 2 * V.cumsum(0).flip(0).cumsum(0).flip(0)),
    "rosenbrock": ("(100 * (v[1:] - v[:-1] ** 2) ** 2 + (1 - v[:-1]) ** 2).sum()", {"v": V}, "v",
        torch.cat([wide([0.0]), 200 * (V[1:] - V[:-1] ** 2)])
        + torch.cat([-400 * V[:-1] * (V[1:] - V[:-1] ** 2) - 2 * (1 - V[:-1]), wide([0.0])])),
    "convolution": ("(F.conv1d(x, k) * c).sum()", {"x": V.reshape(1, 1, 4), "k": wide([[[1.0, -2.0]]]), "c": wide([[[1.0, 3.0, -1.0]]])},
        "x", wide([[[1.0, 1.0, -7.0, 2.0]]])),
}  # fmt: skip
PRECISIONS: dict[str, Any] = {
    "as it is": lambda d: d,
    "in float32": lambda d: d.float(),
    "in float32, as plain numbers": lambda d: d.float().double(),
    "as float32 prints it": lambda d: wide(np.array([float(str(np.float32(v))) for v in d.reshape(-1).tolist()])).reshape(
        d.shape
    ),
    "in bfloat16": lambda d: d.bfloat16(),
    "with four digits": lambda d: wide([float(f"{v:.4g}") for v in d.reshape(-1).tolist()]).reshape(d.shape),
    "with five decimals": lambda d: (d * 1e5).round() / 1e5,
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CLOSED)
@pytest.mark.share(6, of="case")
def test_a_right_derivation_agrees_in_every_precision(case: str, precision: str) -> None:
    text, inputs, name, derivative = CLOSED[case]
    verdict = checked(text, {name: PRECISIONS[precision](wide(derivative))}, **inputs)[name]
    assert verdict["agrees"] is True, verdict
    assert "likely" not in verdict


@pytest.mark.parametrize("precision", ["as it is", "in float32", "in float32, as plain numbers", "with five decimals"])
@pytest.mark.parametrize("case", CLOSED)
@pytest.mark.share(4, of="case")
def test_a_thousandth_off_is_wrong_in_every_precision(case: str, precision: str) -> None:
    text, inputs, name, derivative = CLOSED[case]
    wrong = 1.0009 * wide(derivative)
    verdict = checked(text, {name: PRECISIONS[precision](wrong)}, **inputs)[name]
    assert verdict["agrees"] is False, verdict


@pytest.mark.parametrize("case", CLOSED)
def test_a_wrong_sign_of_the_smallest_element_is_seen(case: str) -> None:
    text, inputs, name, derivative = CLOSED[case]
    wrong = wide(derivative).contiguous().clone()
    smallest = int(torch.where(wrong == 0, torch.inf, wrong.abs()).reshape(-1).argmin())
    wrong.reshape(-1)[smallest] *= -1
    verdict = checked(text, {name: wrong}, **inputs)[name]
    assert verdict["agrees"] is False, verdict


@pytest.mark.parametrize("case", CLOSED)
def test_numbers_from_finite_differences_agree(case: str) -> None:
    """Central differences with a step of 1e-6, in float64, as people make them."""
    text, inputs, name, derivative = CLOSED[case]
    noise = (
        2e-10
        * (1 + wide(derivative).abs().max())
        * normal(64, seed=9)[: wide(derivative).numel()].reshape(wide(derivative).shape)
    )
    assert checked(text, {name: derivative + noise}, **inputs)[name]["agrees"] is True


# Program, point, every derivative that is right there, and some that are not.
KINKS: dict[str, tuple[str, list[Any], list[Any], list[Any]]] = {
    "abs": ("abs(x).sum()", [0.0], [[0.0], [1.0], [-1.0], [0.5]], [[1.1], [-2.0]]),
    "abs beside others": ("abs(x).sum()", [0.0, 2.0, -1.0], [[0.0, 1, -1], [1.0, 1, -1], [-0.3, 1, -1]], [[1.0, 1, 1], [1.5, 1, -1]]),
    "relu": ("relu(x).sum()", [0.0, 0.0, 1.0], [[0.0, 0, 1], [1.0, 0, 1], [1.0, 1, 1], [0.5, 0.2, 1]], [[2.0, 0, 1], [0.0, -1, 1]]),
    "leaky relu": ("F.leaky_relu(x, 0.1).sum()", [0.0], [[0.1], [1.0], [0.55]], [[0.0], [-0.1]]),
    "tied maxima": ("amax(x, 0)", [1.0, 1.0], [[0.5, 0.5], [1.0, 0], [0.0, 1], [0.3, 0.7]], [[1.0, 1], [0.0, 0], [0.7, 0.7], [-1.0, 2]]),
    "three tied maxima": (
        "x.max()", [2.0, 2.0, 0.0, 2.0], [[1 / 3, 1 / 3, 0, 1 / 3], [1.0, 0, 0, 0], [0.0, 0.5, 0, 0.5]], [[1.0, 1, 0, 1], [0.5, 0, 0, 0]],
    ),
    "tied minima": ("x.min()", [1.0, 3.0, 1.0], [[1.0, 0, 0], [0.5, 0, 0.5]], [[0.0, 1, 0], [1.0, 0, 1]]),
    "hinge": ("relu(1 - x * y).sum()", [0.5, 2.0], [[-2.0, 0], [0.0, 0], [-1.0, 0]], [[2.0, 0], [-2.0, 1]]),
    "clamp": ("clamp(x, -1, 1).sum()", [1.0, -1.0, 0.5], [[1.0, 1, 1], [0.0, 0, 1], [0.5, 1, 1]], [[-1.0, 1, 1], [1.0, 1, 0]]),
    "maximum with a number": ("maximum(x, x * 0).sum()", [0.0, 1.0], [[0.0, 1], [1.0, 1], [0.5, 1]], [[-0.5, 1]]),
    "norm at zero": ("x.norm()", [0.0, 0.0], [[0.0, 0.0], [0.6, 0.6], [1.0, 0.0]], [[1.0, 1.0], [0.0, 2.0]]),
    "absolute error": ("(x - y).abs().sum()", [2.0, 1.0], [[0.0, 1], [1.0, 1], [-1.0, 1]], [[0.0, -1]]),
    "median of two medians": ("sort(x)[0][0]", [1.0, 1.0, 4.0], [[1.0, 0, 0], [0.0, 1, 0], [0.5, 0.5, 0]], [[1.0, 1, 0]]),
    "weighted kinks": ("3 * abs(x[0]) + abs(x[1])", [0.0, 0.0], [[3.0, 1], [-3.0, 0.5], [0.0, 0]], [[0.0, 2], [4.0, 0]]),
    "crossed kinks": ("abs(x[0] + x[1]) + abs(x[0] - x[1])", [0.0, 0.0], [[0.0, 0], [2.0, 0], [0.0, -2], [1.0, 1]], [[2.0, 2], [1.5, 1.5]]),
}  # fmt: skip
OTHER: dict[str, dict[str, Any]] = {"hinge": {"y": [2.0, 1.0]}, "absolute error": {"y": [2.0, 0.0]}}


@pytest.mark.parametrize(("case", "number"), [(case, number) for case in KINKS for number in range(len(KINKS[case][2]))])
def test_every_subgradient_agrees(case: str, number: int) -> None:
    text, point, right, _ = KINKS[case]
    verdict = checked(text, {"x": right[number]}, x=point, **OTHER.get(case, {}))["x"]
    assert verdict["agrees"] is True, verdict
    assert verdict["kinks"]
    assert "every value between them" in verdict["note"]


@pytest.mark.parametrize(("case", "number"), [(case, number) for case in KINKS for number in range(len(KINKS[case][3]))])
@pytest.mark.share(4, of="case")
def test_what_is_no_subgradient_is_wrong(case: str, number: int) -> None:
    text, point, _, wrong = KINKS[case]
    verdict = checked(text, {"x": wrong[number]}, x=point, **OTHER.get(case, {}))["x"]
    assert verdict["agrees"] is False, verdict


# Program and point where differences in float64 lose themselves, and the derivative in closed form.
HARD: dict[str, tuple[str, list[float], Any]] = {
    "cos at 1e8": ("cos(x).sum()", [1e8], lambda x: -MP.sin(x)),
    "cos at 1e8 and 1": ("cos(x).sum()", [1e8, 1.0], lambda x: -MP.sin(x)),
    "sin at 1e12": ("sin(x).sum()", [1e12, -3e11], MP.cos),
    "fast oscillation": ("sin(1e8 * x).sum()", [1.0, 0.3], lambda x: MP.mpf(1e8) * MP.cos(MP.mpf(1e8) * x)),
    "tan at 1e6": ("tan(x).sum()", [1e6], lambda x: MP.sec(x) ** 2),
    "cancellation": ("((x + 1e10) - 1e10).sum()", [1.0, 2.0], lambda x: 1),
    "nearly saturated": ("tanh(x).sum()", [17.0, 15.0], lambda x: MP.sech(x) ** 2),
    "sigmoid far out": ("sigmoid(x).sum()", [-300.0, 30.0], lambda x: 1 / (2 + MP.exp(x) + MP.exp(-x))),
    "beside a huge constant": ("(exp(x) + 1e16).sum()", [1.0, -2.0], MP.exp),
    "exp far out": ("exp(x).sum()", [-200.0, 200.0], MP.exp),
    "log at tiny": ("log(x).sum()", [1e-200, 1e200], lambda x: 1 / x),
    "erf in its tail": ("erf(x).sum()", [5.0, -6.0], lambda x: 2 * MP.exp(-x * x) / MP.sqrt(MP.pi)),
    "cube of tiny": ("(x ** 3).sum()", [1e-40, -2e-90], lambda x: 3 * x**2),
    "reciprocal of tiny": ("(1 / x).sum()", [1e-100, 3.0], lambda x: -1 / x**2),
    "sqrt at the edge": ("sqrt(x).sum()", [1e-300, 1.0], lambda x: 1 / (2 * MP.sqrt(x))),
    "acos near 1": ("acos(x).sum()", [1 - 1e-12], lambda x: -1 / MP.sqrt(1 - x * x)),
    "lgamma": ("lgamma(x).sum()", [1e8, 0.01], MP.digamma),
}  # fmt: skip


@pytest.mark.parametrize("case", HARD)
def test_a_right_derivation_is_not_blamed_where_differences_fail(case: str) -> None:
    text, point, function = HARD[case]
    verdict = checked(text, {"x": exactly(function, point)}, x=point)["x"]
    assert verdict["agrees"] is True, verdict


@pytest.mark.parametrize("case", HARD)
def test_a_wrong_one_is_wrong_there_too(case: str) -> None:
    text, point, function = HARD[case]
    wrong = exactly(function, point)
    wrong[-1] *= -1
    assert checked(text, {"x": wrong}, x=point)["x"]["agrees"] is False


@pytest.mark.parametrize("ratio", [1e3, 1e7, 1e12, 1e15])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_wrong_sign_beside_a_large_element_is_seen(ratio: float, dtype: torch.dtype) -> None:
    x, a = wide([1.0, 1.5, -0.7]), wide([ratio, 1.0, 1.0])
    right = 2 * a * x
    wrong = right * wide([1.0, 1.0, -1.0])
    assert checked("(a * x * x).sum()", {"x": right.to(dtype)}, x=x.to(dtype), a=a.to(dtype))["x"]["agrees"] is True
    verdict = checked("(a * x * x).sum()", {"x": wrong.to(dtype)}, x=x.to(dtype), a=a.to(dtype))["x"]
    assert verdict["agrees"] is False, verdict
    assert verdict["worst"][0]["index"] == [2]
    assert verdict["max_error"] > verdict["tolerance"]


def test_two_digits_prove_nothing() -> None:
    verdict = checked("log(x).sum()", {"x": [0.33, 0.14]}, x=[3.0, 7.0])["x"]
    assert verdict["agrees"] is None
    assert "two digits" in verdict["reason"]
    assert checked("log(x).sum()", {"x": [0.34, 0.14]}, x=[3.0, 7.0])["x"]["agrees"] is False


def test_what_nothing_can_decide_is_not_decided() -> None:
    """Numbers of 60 digits are real here, and a float64 at 1e14 cannot be moved by less than its last bit."""
    verdict = checked("cos(z).real.sum()", z=torch.tensor([1e14 + 0.5j], dtype=torch.complex128))["z"]
    assert verdict["agrees"] is None
    assert "do not settle" in verdict["reason"]


def test_where_pytorch_is_wrong_the_client_may_be_right() -> None:
    for value, agrees in ((1.0, True), (0.0, False)):
        verdict = checked("(relu(x) - relu(-x)).sum()", {"x": [value, 1.0]}, x=[0.0, 2.0])["x"]
        assert verdict["agrees"] is agrees, verdict
    assert checked("(relu(x) - relu(-x)).sum()", x=[0.0, 2.0])["x"]["agrees"] is False


@pytest.mark.parametrize("size", [50, 200])
def test_many_kinks_at_once(size: int) -> None:
    zeros, ones = torch.zeros(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64)
    for value, agrees in ((1.0, True), (0.3, True), (1.5, False), (-0.1, False)):
        assert checked("relu(x).sum()", {"x": value * ones}, x=zeros)["x"]["agrees"] is agrees
    winner = zeros.clone()
    winner[size // 3] = 1.0
    assert checked("amax(x, 0)", {"x": winner}, x=ones)["x"]["agrees"] is True
    assert checked("amax(x, 0)", {"x": ones}, x=ones)["x"]["agrees"] is not True


# Where PyTorch's derivative is NaN though the function has one: (program, point, the derivative).
FINITE: dict[str, tuple[str, list[float], list[float]]] = {
    "sinc": ("where(x == 0, 1.0, sin(x) / x).sum()", [0.0, 1.0], [0.0, math.cos(1.0) - math.sin(1.0)]),
    "a root that is masked": ("where(x > 0, sqrt(x), 0 * x).sum()", [4.0, -1.0], [0.25, 0.0]),
}


@pytest.mark.parametrize("case", FINITE)
def test_a_finite_derivative_is_right_though_pytorch_has_none(case: str) -> None:
    text, point, derivative = FINITE[case]
    assert checked(text, {"x": derivative}, x=point)["x"]["agrees"] is True
    assert checked(text, {"x": [derivative[0] + 0.5, derivative[1] + 0.5]}, x=point)["x"]["agrees"] is False


def test_a_hessian() -> None:
    hessian = torch.diag(12 * V**2) + 2
    text = "(v ** 4).sum() + v.sum() ** 2"
    assert checked(text, {"v": hessian}, kind="hessian", v=V)["v"]["agrees"] is True
    assert checked(text, {"v": hessian * 1.001}, kind="hessian", v=V)["v"]["agrees"] is False
    assert checked(text, kind="hessian", v=V)["v"]["agrees"] is True


def test_a_jacobian_too_large_for_its_rows_is_compared_all_the_same() -> None:
    x = normal(600)
    right = torch.diag(x.cos())
    assert checked("sin(x)", {"x": right}, kind="jacobian", x=x)["x"]["agrees"] is True
    assert checked("sin(x)", {"x": right.T.roll(1, 0)}, kind="jacobian", x=x)["x"]["agrees"] is False


def test_a_printed_number_is_held_to_its_digits() -> None:
    right = math.pi**2
    assert checked("x ** 3 / 3", {"x": round(right, 3)}, x=math.pi)["x"]["agrees"] is True
    assert checked("x ** 3 / 3", {"x": round(right, 3) + 0.002}, x=math.pi)["x"]["agrees"] is False
