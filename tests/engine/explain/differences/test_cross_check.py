"""explain beside differences of the whole program: bends that cancel, numbers that are wrong, and what cannot be told."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.engine.building import explained

# Program in x at 0, PyTorch's number there, the derivative.
WRONG: dict[str, tuple[str, float, float]] = {
    "two rectifiers": ("relu(x) - relu(-x)", 0.0, 1.0),
    "magnitude and sign": ("abs(x) * sign(x)", 0.0, 1.0),
    "magnitude and rectifier": ("abs(x) - 2 * relu(x)", 0.0, -1.0),
    "two clamps": ("clamp(x, min=0) + clamp(x, max=0)", 2.0, 1.0),
    "a tie": ("maximum(x, 2 * x) - relu(x)", 1.5, 1.0),
    "behind smooth steps": ("h = 3 * sin(x)\n(relu(h) - relu(-h)).sum()", 0.0, 3.0),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("x", [[0.0], [1.5, 0.0, -2.0]])
def test_a_wrong_number_beside_the_right_one(case: str, x: list[float]) -> None:
    text, ours, right = WRONG[case]
    report = explained(text, x=x)
    entry = report["inputs"]["x"]
    assert entry["verdict"] == "kink"
    assert entry["elements"] == [[x.index(0.0)]]
    assert entry["subgradient"] == pytest.approx([ours])
    assert entry["derivative"] == pytest.approx([right], rel=1e-6)
    assert "wrong" in entry["because"]["reason"]
    assert report["outputs"]["output"]["verdict"] == "kink"


@pytest.mark.parametrize(
    "text",
    [
        "x * relu(x)",
        "maximum(x, tensor(0.0)) + minimum(x, tensor(0.0))",
        "where(x > 0, sin(x), x)",
        "floor(x) * 0 + x",
        "leaky_relu(x, 0.1) - 0.9 * relu(x)",
    ],
)
def test_a_right_number_where_bends_cancel_is_said_to_be_right(text: str) -> None:
    report = explained(text, x=[0.0, 1.0])
    entry = report["inputs"]["x"]
    assert (entry["verdict"], report["outputs"]["output"]["verdict"]) == ("differentiable", "differentiable")
    assert "the one that PyTorch gives" in entry["because"]["reason"]


@pytest.mark.parametrize(
    ("text", "x", "words"),
    [
        ("sqrt(x ** 2) ** 2", [0.0], "its derivative is 0"),
        ("sqrt(x ** 2) * x.sign()", [0.0], "its derivative is 1"),
        ("sqrt(x ** 2)", [0.0], "from a slope of -1 to one of 1"),
        ("where(x > 0, sqrt(x), 0 * x)", [0.0], "from a slope of 0 to one that grows without bound"),
        ("sqrt(x ** 2)", 0.0, "continuous at this point"),
    ],
)
def test_a_nan_on_the_way_does_not_hide_the_function(text: str, x: Any, words: str) -> None:
    entry = explained(text, x=x)["inputs"]["x"]
    assert entry["verdict"] == "singular"
    assert words in entry["because"]["reason"]


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("x + 1e-20 * sin(1e20 * x)", [1.0]),
        ("(x + 1e20) - 1e20", [1.0]),
        ("sin(1e15 * x)", [1.0]),
        ("sqrt(x)", [5e-324]),
        ("tan(x).sum()", [0.3, math.pi / 2]),
        ("1 / (x - 1)", [1 + 1e-14]),
        ("x ** 2 * 1e300", [1e-170]),
    ],
)
def test_what_differences_cannot_follow_is_neither_blamed_nor_confirmed(text: str, x: list[float]) -> None:
    entry = explained(text, alone=True, x=x)["inputs"]["x"]
    assert entry["verdict"] == "differentiable"
    assert "cannot tell" in entry["because"]["reason"]
    entry = explained(text, x=x)["inputs"]["x"]  # numbers of 60 digits follow it
    assert (entry["verdict"], entry["findings"]) == ("differentiable", [])


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("tanh(1e9 * x)", [0.0]),
        ("sigmoid(1e12 * x)", [0.0]),
        ("(x + 1e10) - 1e10", [1.0]),
        ("x.sum()", [1e10, 1e-5]),
        ("sqrt(x ** 2 + 1e-30)", [0.0]),
        ("sqrt(abs(x) + 1e-12)", [1e-15]),
        ("softmax(x, 0).sum()", [0.3, 1.2]),
        ("x ** 2", [1e-160]),
        ("x * relu(x)", [1e-160, 3.0]),
        ("reciprocal(x)", [1e300, -1e300]),
        ("x + (round(x) - x).detach()", [0.3]),
        ("x * x.detach()", [3.0]),
        ("linalg.cholesky(x @ x.mT + eye(2))", [[1.0, 2.0], [3.0, 4.0]]),
    ],
)
def test_steep_ill_conditioned_and_detached_functions_raise_no_alarm(text: str, x: Any) -> None:
    report = explained(text, x=x)
    assert report["inputs"]["x"]["verdict"] == report["outputs"]["output"]["verdict"] == "differentiable"
    reasons = [finding["because"]["reason"] for finding in report["inputs"]["x"]["findings"]]
    assert all("zero in every element" in reason for reason in reasons) or "detach" in text


def test_a_bend_that_looks_like_a_square_root_from_afar() -> None:
    report = explained("sqrt(abs(x) + 1e-12)", x=[0.0, 1.0])
    assert report["inputs"]["x"]["verdict"] == report["outputs"]["output"]["verdict"] == "kink"
    assert report["inputs"]["x"]["elements"] == [[0]]


def test_one_wrong_element_among_thousands() -> None:
    x = torch.linspace(-1.0, 1.0, 4001, dtype=torch.float64)
    x[2000] = 0.0
    entry = explained("(relu(x) - relu(-x)).sum()", x=x)["inputs"]["x"]
    assert (entry["verdict"], entry["elements"]) == ("kink", [[2000]])


@pytest.mark.parametrize("text", ["round(x * 1e-6)", "x - x % 1", "x - frac(x)", "sign(x - 1e6)", "ceil(x * 1e-4) * 3"])
@pytest.mark.parametrize("x", [[1.3], [1.3, 2.4, 5.5]])
def test_constant_between_jumps_far_away(text: str, x: list[float]) -> None:
    report = explained(text, x=x)
    assert report["inputs"]["x"]["verdict"] == report["outputs"]["output"]["verdict"] == "piecewise_constant"


@pytest.mark.parametrize(
    ("text", "x"),
    [("clamp(x, -1, 1)", 100.0), ("relu(x)", -3.0), ("sigmoid(1e9 * x)", 2.0), ("hardsigmoid(x)", 10.0), ("x ** 2", 0.0)],
)
def test_a_function_at_rest_is_not_constant(text: str, x: float) -> None:
    assert explained(text, x=[x])["inputs"]["x"]["verdict"] == "differentiable"


@pytest.mark.parametrize("text", ["round(sqrt(x))", "sign(log(x))", "floor(1 / x)"])
def test_a_nan_before_a_constant_step_is_no_zero(text: str) -> None:
    report = explained(text, x=[0.0, 1.0])["inputs"]["x"]
    assert [finding["verdict"] for finding in report["findings"]] == ["singular", "piecewise_constant"]
    assert "gives zero" not in str(report)


@pytest.mark.parametrize("x", [-1.0, 1.0])
def test_the_angle_is_not_constant(x: float) -> None:
    report = explained("atan2(y, x)", x=[x], y=[0.0])
    assert report["inputs"]["x"]["verdict"] == "differentiable"
    assert report["inputs"]["y"]["verdict"] == ("differentiable" if x > 0 else "singular")


@pytest.mark.parametrize(
    ("text", "x"), [("asin(x)", 1 - 1e-12), ("acos(x)", -1 + 1e-9), ("acosh(x)", 1 + 1e-12), ("atanh(x)", 1 - 1e-13)]
)
def test_near_the_end_of_a_domain_is_not_its_end(text: str, x: float) -> None:
    assert explained(text, x=[x])["inputs"]["x"]["verdict"] == "differentiable"


def test_each_output_is_told_apart() -> None:
    report = explained('return {"a": relu(x) - relu(-x), "b": x ** 2}', x=[0.0])
    assert {name: entry["verdict"] for name, entry in report["outputs"].items()} == {"a": "kink", "b": "differentiable"}


@pytest.mark.parametrize("x", [[1e-300, 1e300], [1e-308, 1e308]])
def test_elements_further_apart_than_a_float64_can_say(x: list[float]) -> None:
    assert explained("(1 / x).sum()", x=x)["inputs"]["x"]["verdict"] == "singular"
    assert explained("relu(x).sum()", x=x)["inputs"]["x"]["verdict"] == "differentiable"


@pytest.mark.parametrize(
    "outputs",
    [
        "sigmoid(x), 1 - sigmoid(x)",
        "x, 1 - x",
        "sin(x), -sin(x)",
        "(x ** 2).sum(), -(x ** 2).sum()",
        "x, x * 1, -2 * x",
        "x - x % 1, x",
    ],
)
def test_outputs_that_cancel_in_their_sum_are_not_constant(outputs: str) -> None:
    report = explained(f"return {outputs}", x=[0.3, -0.6])
    assert (report["inputs"]["x"]["verdict"], report["inputs"]["x"]["findings"]) == ("differentiable", [])
    constant = [name for name, entry in report["outputs"].items() if entry["verdict"] == "piecewise_constant"]
    assert len(constant) == outputs.startswith("x - x % 1")
    assert sum(entry["verdict"] == "differentiable" for entry in report["outputs"].values()) + len(constant) == len(
        report["outputs"]
    )


@pytest.mark.parametrize("matrix", ["covariance_matrix=a", "precision_matrix=a", "None, a", "scale_tril=linalg.cholesky(a)"])
def test_the_rule_of_a_distribution_of_a_covariance_is_not_blamed(matrix: str) -> None:
    mean = "h = m * 1.0\nh.register_hook(lambda g: 2 * g)\n"
    text = f"{mean}torch.distributions.MultivariateNormal(h, {matrix}).log_prob(tensor([1.0, 0.5]))"
    inputs = explained(text, a=[[2.0, 0.5], [0.5, 1.0]], m=[0.1, 0.2])["inputs"]
    assert inputs["a"]["verdict"] == "differentiable"
    assert inputs["m"]["verdict"] == "singular"  # what is no matrix is looked at as ever


@pytest.mark.parametrize("hook", ["g * 2", "g * 1.0001", "g + 2", "g * x", "g.clamp(-2, 2)"])
def test_what_to_do_about_a_hook(hook: str) -> None:
    entry = explained(f"y = x * x\ny.register_hook(lambda g: {hook})\n(3 * y).sum()", x=[0.3, 1.2])["inputs"]["x"]
    assert entry["verdict"] == "singular"
    assert entry["because"]["reason"].startswith("The hook ")
    assert "Leave the hook out" in entry["instead"]


def test_a_hook_that_rounds_is_right_for_a_cotangent_that_it_can_hold() -> None:
    """The gradient that passes `y` is 3, in bfloat16 too."""
    entry = explained("y = x * x\ny.register_hook(lambda g: g.bfloat16().to(g.dtype))\n(3 * y).sum()", x=[0.3, 1.2])["inputs"][
        "x"
    ]
    assert entry["verdict"] == "differentiable"
    assert "for a cotangent of ones" in entry["because"]["reason"]


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("F.cross_entropy(x, torch.tensor([1]))", [[0.0, 200.0]]),
        ("F.cross_entropy(x, torch.tensor([1]))", [[0.0, 50.0]]),
        ("F.tanhshrink(x)", [0.0, 1e-8]),
        ("F.tanhshrink(x)", [0.5, 1e-9]),
    ],
)
def test_what_a_step_rounds_inside_is_no_other_derivative(text: str, x: Any) -> None:
    """The loss of a sure score is 0, and its derivative 2e-22: differences of what has lost it show nothing else."""
    entry = explained(text, x=x)["inputs"]["x"]
    assert (entry["verdict"], entry["findings"]) == ("differentiable", [])


def test_a_wrong_backward_of_several_steps_is_seen_beside_what_it_rounds() -> None:
    text = (
        "class S(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        ctx.save_for_backward(x)\n"
        "        return x - torch.tanh(x)\n    @staticmethod\n    def backward(ctx, g):\n        x, = ctx.saved_tensors\n"
        "        return 2 * g * torch.tanh(x) ** 2\nS.apply(x).sum()"
    )
    assert explained(text, x=[0.5, 1e-3])["inputs"]["x"]["verdict"] == "singular"


@pytest.mark.parametrize(("text", "verdict"), [("* m", "differentiable"), ("* 2", "disconnected")])
def test_a_sample_is_drawn_outside_the_graph_on_purpose(text: str, verdict: str) -> None:
    entry = explained(f"torch.distributions.Normal(m, 1.0).sample() {text}", seed=0, m=[0.5])["inputs"]["m"]
    assert entry["verdict"] == verdict
    assert "rsample" in entry["findings"][0]["instead"]
