"""check on right derivations: it agrees, whatever the dtype, the size and the shape; and on wrong ones: it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from app.engine.check.reasons import Reason
from tests.engine.building import checked, normal, program

# Programs whose derivative PyTorch has right, at points where it exists.
RIGHT: dict[str, tuple[str, dict[str, Any]]] = {
    "mean of squares": ("((x - y) ** 2).mean()", {"x": normal(8, 3), "y": normal(8, 3, seed=1)}),
    "tanh layer": ("tanh(x @ w).sum()", {"x": normal(6, 4), "w": normal(4, 5, seed=1)}),
    "log det": ("logdet(x @ x.T)", {"x": normal(4, 4)}),
    "singular values": ("linalg.svdvals(x).sum()", {"x": normal(4, 3)}),
    "near the edge of sqrt": ("sqrt(x).sum()", {"x": [1e-10, 1.0]}),
    "tiny": ("(x ** 3).sum()", {"x": [1e-9, -2e-9]}),
    "huge": ("log(x).sum()", {"x": [1e15, 1e3]}),
    "far out on a wave": ("(sin(x) * w).sum()", {"x": [1e20, 1e22, 3e24], "w": [1.0, 2.0, 3.0]}),
    "beside one": ("log(cosh(x)).sum()", {"x": [1e-160, -1e-300]}),
    "steep": ("sin(1000.0 * x).sum()", {"x": normal(3)}),
    "zero gradient": ("(x * 0).sum()", {"x": normal(3)}),
    "flat": ("round(x).sum()", {"x": [0.3, 1.8]}),
    "scalar": ("x ** 2", {"x": 3.0}),
    "complex": ("(z * z * z.conj()).real.sum()", {"z": torch.complex(normal(3), normal(3, seed=1))}),
    "no path": ("y.sum()", {"x": normal(3), "y": normal(2)}),
    "convolution": ("F.conv2d(x, w).square().mean()", {"x": normal(1, 2, 5, 5), "w": normal(3, 2, 3, 3, seed=1)}),
    "large": ("tanh(x @ w).sum()", {"x": normal(64, 50), "w": normal(50, 40, seed=1)}),
    "empty": ("x.sum()", {"x": torch.zeros(0, dtype=torch.float64)}),
}


@pytest.mark.parametrize("case", RIGHT)
def test_autodiff_agrees_with_differences(case: str) -> None:
    text, inputs = RIGHT[case]
    for name, report in checked(text, **inputs).items():
        assert report["agrees"] is True, (name, report)
        assert "likely" not in report
        assert report["max_error"] <= max(report["tolerance"], 1e-6)


def test_the_shape_of_the_verdict() -> None:
    report = checked("(x ** 2).sum()", {"x": [2.0, 4.0, 7.0]}, x=[1.0, 2.0, 3.0])["x"]
    assert report["agrees"] is False
    assert report["max_error"] == pytest.approx(1.0)
    assert report["tolerance"] < 1e-3
    assert report["worst"][0]["index"] == [2]
    assert {key: report["worst"][0][key] for key in ("autodiff", "numeric", "expected")} == pytest.approx(
        {"autodiff": 6.0, "numeric": 6.0, "expected": 7.0}
    )
    assert report["checked"] == "all"


def test_waves_that_no_step_can_follow_contradict_nothing() -> None:
    report = checked("sin(x)", x=1e160)["x"]
    assert (report["agrees"], report["reason"]) == (None, Reason.UNSETTLED.value)


def test_at_most_five_elements_are_listed() -> None:
    assert len(checked("(x ** 2).sum()", x=normal(30))["x"]["worst"]) == 5


def test_large_inputs_are_checked_by_directions_and_a_lie_in_one_element_is_seen() -> None:
    x, w = normal(64, 50), normal(50, 40, seed=1)
    right = x.T @ (1 - torch.tanh(x @ w) ** 2)
    assert checked("tanh(x @ w).sum()", {"w": right}, x=x, w=w)["w"]["agrees"]
    wrong = right.clone()
    wrong[17, 23] += 0.1
    report = checked("tanh(x @ w).sum()", {"w": wrong}, x=x, w=w)["w"]
    assert report["agrees"] is False
    assert report["checked"] == "directions"
    assert report["worst"][0]["index"] == [17, 23]
    assert report["worst"][0]["numeric"] == pytest.approx(float(right[17, 23]), rel=1e-6)


def test_a_vjp_with_a_cotangent() -> None:
    x, c = normal(2, 5), normal(2, 5, seed=1)
    p = torch.softmax(x, -1)
    report = checked("softmax(x, -1)", {"x": p * (c - (c * p).sum(-1, keepdim=True))}, kind="vjp", cotangent=c, x=x)
    assert report["x"]["agrees"]


def test_several_cotangents_at_once() -> None:
    x, c = normal(5), normal(3, 5, seed=1)
    report = checked("exp(x)", {"x": c * x.exp()}, kind="vjp", cotangent=c, x=x)
    assert report["x"]["agrees"]
    assert len(report["x"]["worst"][0]["index"]) == 2


def test_a_jacobian() -> None:
    x = normal(2, 4)
    right = torch.func.jacrev(lambda x: torch.softmax(x, -1))(x)
    assert checked("softmax(x, -1)", {"x": right}, kind="jacobian", x=x)["x"]["agrees"]
    report = checked("softmax(x, -1)", {"x": right + 0.01}, kind="jacobian", x=x)["x"]
    assert not report["agrees"]
    assert len(report["worst"][0]["index"]) == 4


def test_a_complex_jacobian_is_the_derivative_by_z() -> None:
    z = torch.complex(normal(3), normal(3, seed=1))
    assert checked("exp(z) * z", {"z": torch.diag(torch.exp(z) * (1 + z))}, kind="jacobian", z=z)["z"]["agrees"]


@pytest.mark.parametrize(("value", "agrees"), [(0.0, True), (0.5, True), (1.0, True), (1.2, False), (-0.5, False)])
def test_at_a_kink_every_subgradient_is_right(value: float, agrees: bool) -> None:
    report = checked("relu(x).sum()", {"x": [0.0, value, 1.0]}, x=[-1.0, 0.0, 2.0])["x"]
    assert report["agrees"] is agrees
    assert report["kinks"] == [[1]]
    assert "one-sided" in report["note"]


def test_curvature_beside_a_large_number_is_no_kink() -> None:
    """The coarse steps, of 1e5, see two slopes; the fine ones, whose rounding is larger, one."""
    report = checked("nn.functional.hardswish(x).sum()", x=[0.0, 1e9, -1e-9])["x"]
    assert report["agrees"] is True
    assert "kinks" not in report
    assert checked("abs(x).sum()", x=[0.0, 1e9])["x"]["kinks"] == [[0]]


def test_a_path_that_autodiff_does_not_follow_is_named() -> None:
    report = checked("h = sin(x)\n(x * x + h.detach()).sum()", x=[0.3, 1.0])["x"]
    assert report["agrees"] is False
    assert report["likely"]["code"] == "cut_path"
    assert "Line 2" in report["likely"]["message"]


def test_a_wrong_sign_is_named_where_autodiff_has_lost_a_path_too() -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    right = 2 * x - torch.special.bessel_j1(x)
    for expected, codes in ((-right, ["sign", "cut_path"]), (right - 4 * x, ["cut_path"])):
        report = checked("(special.bessel_j0(x) + x * x).sum()", {"x": expected}, x=x)["x"]
        assert report["agrees"] is False
        assert [claim["code"] for claim in (report["likely"], *report["also_possible"])] == codes
    assert checked("(special.bessel_j0(x) + x * x).sum()", {"x": right}, x=x)["x"]["agrees"] is True


STRAIGHT: Final = "q = x + (torch.round(x) - x).detach()\n(q ** 2).sum()"
TARGET: Final = "y = torch.tanh(w * x)\nwith torch.no_grad():\n    t = 2 * y\n((y - t) ** 2).sum()"
RATIO: Final = "s = torch.exp(x)\ntorch.log(s / s.detach()).sum()"
BESIDE: Final = "t = (x * 1).detach()\nt.mul_(2)\n(x * t).sum()"


@pytest.mark.parametrize(
    ("text", "right", "through"),
    [(STRAIGHT, [2.0, -6.0], None), (RATIO, [1.0, 1.0], [0.0, 0.0]), (BESIDE, [2.6, -6.4], [5.2, -12.8]), (TARGET, None, None)],
)
def test_what_the_program_detaches_is_a_constant(text: str, right: list[float] | None, through: list[float] | None) -> None:
    inputs: dict[str, Any] = {"x": torch.tensor([1.3, -3.2], dtype=torch.float64)}
    if right is None:
        inputs["w"] = torch.tensor([0.4, -0.2], dtype=torch.float64)
        h = torch.tanh(inputs["w"] * inputs["x"])
        right, through = (-2 * h * (1 - h**2) * inputs["w"]).tolist(), (2 * h * (1 - h**2) * inputs["w"]).tolist()
    report = checked(text, {"x": right}, **inputs)["x"]
    assert report["agrees"] is True
    assert "constant to PyTorch" in report["note"]
    assert checked(text, {"x": [1.1 * r for r in right]}, **inputs)["x"]["agrees"] is False
    if through is not None:
        assert checked(text, {"x": through}, **inputs)["x"]["agrees"] is False


def test_a_derivative_through_what_is_detached_is_named() -> None:
    report = checked(
        "(x * torch.sin(x).detach()).sum()",
        {"x": [0.3 * math.cos(0.3) + math.sin(0.3), 2 * math.cos(2) + math.sin(2)]},
        x=[0.3, 2.0],
    )["x"]
    assert report["agrees"] is False
    assert report["likely"]["code"] == "ignored_detach"
    hessian = checked("(x * x.detach()).sum()", {"x": [[2.0, 0.0], [0.0, 2.0]]}, kind="hessian", x=[1.0, 2.0])["x"]
    assert hessian["likely"]["code"] == "ignored_detach"


def test_a_jump_is_named() -> None:
    report = checked("linalg.pinv(x).sum()", x=[[1.0, 2.0], [2.0, 4.0]])["x"]
    assert report["agrees"] is False
    assert report["likely"]["code"] == "singular"


def test_numbers_printed_with_four_digits_are_no_mistake() -> None:
    x, y = normal(8, 3), normal(8, 3, seed=1)
    right = 2 * (x - y)
    assert checked("((x - y) ** 2).sum()", {"x": (right * 1e4).round() / 1e4}, x=x, y=y)["x"]["agrees"]
    assert not checked("((x - y) ** 2).sum()", {"x": (right * 1e4).round() / 1e4 + 0.01}, x=x, y=y)["x"]["agrees"]


def test_nan_in_the_expected_derivative_is_a_disagreement() -> None:
    report = checked("(x ** 2).sum()", {"x": [2.0, float("nan")]}, x=[1.0, 2.0])["x"]
    assert report["agrees"] is False
    assert report["max_error"] == "Infinity"
    assert report["worst"][0]["expected"] == "NaN"


def test_a_large_input_full_of_kinks_is_no_disagreement() -> None:
    assert checked("relu(x).sum()", x=torch.zeros(100, 50))["x"]["agrees"]


def test_a_matrix_of_which_one_triangle_is_read() -> None:
    report = checked("linalg.eigvalsh(x)[0]", x=[[2.0, 0.5], [0.5, 1.0]])["x"]
    assert report["agrees"]
    assert "one of its triangles" in report["note"]


_MVN = "torch.distributions.MultivariateNormal"


@pytest.mark.parametrize(
    "text",
    [
        f"{_MVN}(tensor([0.1, 0.2]), covariance_matrix=a).log_prob(tensor([1.0, 0.5]))",
        f"{_MVN}(zeros(2), precision_matrix=a).entropy()",
        f"torch.distributions.kl_divergence({_MVN}(zeros(2), a), {_MVN}(ones(2), eye(2)))",
        f"torch.distributions.Independent({_MVN}(zeros(2), None, a), 0).log_prob(ones(2))",
        "torch.distributions.Wishart(tensor(4.0), a).log_prob(eye(2))",
    ],
)
def test_a_distribution_of_a_covariance_reads_one_triangle_of_it(text: str) -> None:
    a = [[2.0, 0.5], [0.5, 1.0]]
    report = checked(text, a=a)["a"]
    assert report["agrees"]
    assert "one of its triangles" in report["note"]


@pytest.mark.parametrize(("times", "agrees"), [(1.0, True), (1.01, False)])
def test_the_textbook_derivative_by_a_covariance_agrees(times: float, agrees: bool) -> None:
    a, x = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)
    inverse = a.inverse()
    right = (inverse @ torch.outer(x, x) @ inverse - inverse) / 2
    text = f"{_MVN}(zeros(2), a).log_prob(x)"
    assert checked(text, {"a": times * right}, a=a, x=x)["a"]["agrees"] is agrees


def test_an_infinite_derivative_is_named() -> None:
    report = checked("sqrt(x).sum()", x=[0.0, 4.0])["x"]
    assert report["agrees"] is False
    assert report["likely"]["code"] == "singular"
    assert report["worst"][0]["autodiff"] == "Infinity"


_FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh(x @ w).sum()": lambda x, w: torch.tanh(x @ w).sum(),
    "((x @ w) ** 2).mean()": lambda x, w: ((x @ w) ** 2).mean(),
    "log_softmax(x @ w, 1)[:, 0].sum()": lambda x, w: torch.log_softmax(x @ w, 1)[:, 0].sum(),
    "(sigmoid(x @ w) * exp(-(w ** 2).sum())).sum()": lambda x, w: (torch.sigmoid(x @ w) * torch.exp(-(w**2).sum())).sum(),
    "F.layer_norm(x @ w, (3,)).square().sum()": lambda x, w: torch.nn.functional.layer_norm(x @ w, (3,)).square().sum(),
    "sqrt((x @ w) ** 2 + 1).sum()": lambda x, w: torch.sqrt((x @ w) ** 2 + 1).sum(),
    "relu(x @ w).sum()": lambda x, w: torch.relu(x @ w).sum(),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(_FUNCTIONS)),
    st.integers(0, 10_000),
    st.sampled_from([0.01, 1.0, 30.0]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_float32_gives_no_false_alarm(text: str, seed: int, scale: float, sent: torch.dtype) -> None:
    """A derivative that is computed in float32 is no mistake, be it sent as float32 or as plain numbers; nor is one that lost all digits."""
    x, w = (normal(4, 2, seed=seed) * scale).float(), normal(2, 3, seed=seed + 1).float()
    live = w.clone().requires_grad_()
    (right,) = torch.autograd.grad(_FUNCTIONS[text](x, live), live)
    report = checked(text, {"w": right.to(sent)}, x=x, w=w)["w"]
    plain = checked(text, x=x, w=w)
    for verdict in (report, *plain.values()):
        assert verdict["agrees"] or verdict.get("reason") == Reason.NO_DIGITS.value, verdict


@pytest.mark.parametrize(
    "text", ["log_softmax(x, 0)[0]", "F.cross_entropy(x[None], zeros(1, dtype=long))", "log_softmax(x, 0).exp().square().sum()"]
)
@pytest.mark.parametrize("gap", [12.0, 20.0, 30.0, 45.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.share(3, of="text")
def test_a_softmax_that_is_nearly_one_leaves_no_digits_and_is_no_false_alarm(text: str, gap: float, dtype: torch.dtype) -> None:
    """1 - p of a p that rounding makes 1: zero, beside a derivative of 1e-9."""
    x = torch.tensor([gap, 0.0, -gap], dtype=dtype, requires_grad=True)
    (value,) = program(text, {"x": x.detach()}).call(x)
    (right,) = torch.autograd.grad(value, x)
    for verdict in (checked(text, {"x": right}, x=x.detach())["x"], checked(text, x=x.detach())["x"]):
        assert verdict["agrees"] is not False, verdict
    assert checked(text, {"x": right + 0.1}, x=x.detach())["x"]["agrees"] is False


def test_a_jump_is_no_kink_at_which_every_number_is_right() -> None:
    text, x = "y = trunc(k * 3) + k\nreturn y.square().sum()", [-1.0, 1.0, 0.3]
    report = checked(text, {"k": [-8.0, -32.0, 0.6]}, k=x)["k"]
    assert report["agrees"] is False
    report = checked(text, {"k": [-8.0, 8.0, 0.6]}, k=x)["k"]
    assert report["agrees"] is None
    assert "jumps" in report["reason"]


@pytest.mark.parametrize("noise", [0.0, 1e-10, 3e-9])
def test_noise_of_differences_for_a_derivative_of_nothing_is_not_called_wrong(noise: float) -> None:
    x = normal(2, 4)
    believed = noise * normal(2, 4, seed=1)
    report = checked("1.7 * softmax(x, 1).sum()", {"x": believed}, x=x)["x"]
    assert report["agrees"] is not False
    assert checked("1.7 * softmax(x, 1).sum()", {"x": believed + 0.1}, x=x)["x"]["agrees"] is False


def test_numbers_rounded_to_whole_ones_prove_nothing() -> None:
    x = normal(5) * 40
    right = 3 * x**2
    report = checked("(x ** 3).sum()", {"x": right.round()}, x=x)["x"]
    assert report["agrees"] is None
    assert "whole" in report["reason"]
    assert checked("(x ** 3).sum()", {"x": right.round() + 2}, x=x)["x"]["agrees"] is False


def test_four_digits_held_in_float32_are_four_digits() -> None:
    x = normal(6)
    printed = torch.tensor([float(f"{value:.4g}") for value in x.cos().tolist()], dtype=torch.float32)
    for expected in (printed, printed.double()):
        assert checked("sin(x).sum()", {"x": expected}, x=x)["x"]["agrees"] is True
        assert checked("sin(x).sum()", {"x": expected * 1.002}, x=x)["x"]["agrees"] is False


def test_exact_arithmetic_does_not_judge_what_it_cannot_follow() -> None:
    """A Fourier transform is complex, and beside exp(1e6) nothing is left of another term."""
    x = torch.tensor([-2.547595645606773, -2.7110206147316926, 2.398702209292714], dtype=torch.float64, requires_grad=True)
    value = (1.7 * torch.tanh(torch.fft.fft(x).abs() ** 2)).sum()
    (right,) = torch.autograd.grad(value, x)
    assert checked("1.7 * tanh(fft.fft(x).abs() ** 2).sum()", {"x": right}, x=x.detach())["x"]["agrees"] is not False
    report = checked("exp(c) + sin(x).sum()", {"x": [math.cos(0.3), math.cos(2.0)]}, x=[0.3, 2.0], c=1e6)["x"]
    assert report["agrees"] is not False


def test_exact_arithmetic_gives_up_numbers_of_a_million_bits() -> None:
    """The cosine of exp(1e6) divides by as many bits of pi, for minutes."""
    assert checked("cos(sinh(m)).sum() + 0 * v.sum()", {"v": [0.0]}, v=[1.0], m=[2e6])["v"]["agrees"] is not True


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("(x + 1e-20 * sin(1e20 * x)).sum()", [1.0]),
        ("(x + 1e-20 * sin(1e20 * x)).sum()", [0.3]),
        ("1e-9 * cos(1e11 * x).sum()", [0.7]),
    ],
)
def test_a_function_that_goes_round_within_a_step_is_no_false_alarm(text: str, x: list[float]) -> None:
    assert checked(text, x=x)["x"]["agrees"] is not False


@pytest.mark.parametrize(
    "text",
    ["(z * z).abs().sum()", "(z.exp() * z.conj()).real.sum()", "fft.fft(z).abs().square().sum()", "(z.angle() ** 2).sum()"],
)
def test_derivatives_by_complex_inputs(text: str) -> None:
    z = torch.complex(normal(3), normal(3, seed=1))
    leaf = z.clone().requires_grad_()
    (value,) = program(text, {"z": z}).call(leaf)
    (right,) = torch.autograd.grad(value, leaf)
    for agrees, expected in (
        (True, right), (True, right.to(torch.complex64)), (False, right.conj()), (False, -right), (False, 1.01 * right), (False, right.real + 0j),
    ):  # fmt: skip
        assert checked(text, {"z": expected}, z=z)["z"]["agrees"] is agrees


def test_a_kink_elsewhere_is_not_to_blame() -> None:
    report = checked("(where(x > 0.2, x ** 3, 0.5 * x) + relu(x)).sum()", {"x": [0.5, 4.0, 28.0]}, x=[0.0, 1.0, 3.0])["x"]
    assert report["agrees"] is True
    report = checked("(where(x > 0.2, x ** 3, 0.5 * x) + relu(x)).sum()", {"x": [0.5, 4.3, 28.0]}, x=[0.0, 1.0, 3.0])["x"]
    assert report["agrees"] is False
    assert report.get("likely", {}).get("code") not in ("kink", "cut_path")


def test_a_loss_of_one_tensor_or_of_a_step_with_several_results_is_explained() -> None:
    for text in ("(F.mse_loss(x, x) + (x ** 2).sum())", "F.mse_loss(sort(x).values, x) + (x ** 2).sum()"):
        assert checked(text, {"x": [2.0, 9.0, 1.0]}, x=[1.0, 4.0, 2.0])["x"]["agrees"] is False


@pytest.mark.parametrize("text", ["xlogy(x, 0.0)", "special.xlog1py(x, -1.0)"])
def test_a_jump_to_infinity_confirms_nothing(text: str) -> None:
    assert checked(f"{text}.sum()", x=[0.0])["x"]["agrees"] is not True


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("relu(x) - relu(-x)", [0.0]),
        ("relu(x) - relu(-x)", [0.0, 1.0]),
        ("F.binary_cross_entropy(x, tensor([0.0, 0.0]), reduction='none')", [0.0, 0.0]),
    ],
)
def test_a_zero_that_differences_contradict_is_wrong(text: str, x: list[float]) -> None:
    assert checked(f"{text}.sum()", x=x)["x"]["agrees"] is False
