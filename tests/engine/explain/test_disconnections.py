"""explain on paths that end: which step cuts them, why, and what to write instead; and its agreement with the gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.explain.report import explain
from app.engine.stepwise.point import Points
from tests.engine.building import explained, program, tensors

X = [0.3, 1.2, -0.7]

# Program in x (and y), line of the cut, its operation, words of the reason, words of the way out.
CUTS: dict[str, tuple[str, int, str, str, str]] = {
    "argmax": ("k = argmax(x)\nk * y.sum()", 1, "argmax", "whole numbers (int64)", "softmax(x / temperature"),
    "argmin": ("argmin(x) * y.sum()", 1, "argmin", "whole numbers", "softmax(-x"),
    "max indices": ("a = x * 2\nk = max(a, 0)[1]\nk * y", 2, "max", "The second result of `max`", "gumbel_softmax(a"),
    "comparison": ("hit = x > 0.5\nhit.double().mean() * y", 1, ">", "truth values (bool)", "sigmoid((x - threshold)"),
    "equality": ("(x == 0.3).double() * y", 1, "==", "truth values", "sigmoid"),
    "integer cast": ("x.long() * y", 1, "to", "whole numbers", "floating"),
    "computed index": ("y[x.abs().long()]", 1, "to", "whole numbers", "floating"),
    "detach": ("h = x.exp()\nh.detach() * y", 2, "detach", "on purpose", "Leave out `detach`"),
    "stop_gradient": ("stop_gradient(x) * y", 1, "detach", "on purpose", "Leave out"),
    "sort order": ("argsort(x) * y", 1, "argsort", "whole numbers", "sorted values"),
    "count": ("count_nonzero(x) * y", 1, "count_nonzero", "whole numbers", "soft mask"),
    "heaviside": ("heaviside(x, tensor(0.5)) * y", 1, "heaviside", "no derivative formula", "soft step"),
    "floor division": ("(x // 0.5) * y", 1, "//", "no derivative formula", "floor(q)"),
    "shape only": ("zeros_like(x) + y", 1, "zeros_like", "only the shape", "only the shape"),
}


@pytest.mark.parametrize("case", CUTS)
def test_the_step_that_cuts(case: str) -> None:
    text, line, operation, reason, instead = CUTS[case]
    report = explained(text, x=X, y=[1.0, 2.0, 3.0])
    entry = report["inputs"]["x"]
    assert entry["verdict"] == "disconnected"
    assert (entry["because"]["line"], entry["because"]["operation"]) == (line, operation)
    assert reason in entry["because"]["reason"]
    assert instead in entry["instead"]
    assert report["inputs"]["y"]["verdict"] == "differentiable"


def test_the_example_of_the_contract() -> None:
    report = explained(
        "h = x @ w\np = softmax(h, dim=1)\nlabel = p.max(1)[1]\nlabel", x=[[1.0, 2.0]], w=[[0.1, 0.2], [0.3, 0.4]]
    )
    entry = report["inputs"]["w"]
    assert entry["verdict"] == "disconnected"
    assert entry["because"] | {"reason": ""} == {"line": 3, "text": "label = p.max(1)[1]", "operation": "max", "reason": ""}
    assert "softmax(p / temperature, dim=1)" in entry["instead"]
    assert entry["elements"] == []
    assert report["outputs"]["output"]["verdict"] == "not_differentiable"
    assert [s["text"] for s in report["steps"]] == ["h = x @ w", "p = softmax(h, dim=1)", "label = p.max(1)[1]"]


def test_an_unused_input_is_said_to_be_unused() -> None:
    report = explained("y * 2", x=X, y=X)
    assert report["inputs"]["x"]["verdict"] == "disconnected"
    assert report["inputs"]["x"]["because"] == {"reason": "No value of `x` is used, at most its shape."}


def test_an_input_whose_result_is_dropped_is_said_so() -> None:
    report = explained("z = exp(x)\ny * 2", x=X, y=X)
    assert "reaches an output" in report["inputs"]["x"]["because"]["reason"]


def test_integer_inputs_are_not_differentiable() -> None:
    report = explained("x[k]", x=X, k=torch.tensor([0, 2]))
    assert report["inputs"]["k"]["verdict"] == "not_differentiable"
    assert report["inputs"]["x"]["verdict"] == "differentiable"


def test_an_argument_that_pytorch_has_no_derivative_for() -> None:
    report = explained("special.gammainc(x, y).sum()", x=[0.5, 1.5], y=[1.0, 2.0])
    assert report["inputs"]["x"]["verdict"] == "disconnected"
    assert "no derivative with respect to this argument" in report["inputs"]["x"]["because"]["reason"]
    assert report["inputs"]["y"]["verdict"] == "differentiable"


def test_a_step_that_refuses_an_argument_that_requires_grad() -> None:
    report = explained("F.soft_margin_loss(x, t)", x=[0.5, -1.5], t=[1.0, -1.0])
    assert report["inputs"]["x"]["verdict"] == "differentiable"
    assert report["inputs"]["t"]["verdict"] == "disconnected"


def test_a_zero_that_is_a_choice() -> None:
    entry = explained("normal(x, y).sum()", seed=1, x=[0.5, 1.5], y=[1.0, 2.0])["inputs"]["x"]
    assert entry["verdict"] == "piecewise_constant"
    assert "passes a derivative of zero" in entry["because"]["reason"]
    assert "randn_like" in entry["instead"]


def test_a_cut_beside_a_path_that_leads_on_is_a_finding_only() -> None:
    report = explained("k = x.max(0)[1]\ny = softmax(x, 0)\n(y * k).sum()", x=X)
    assert report["inputs"]["x"]["verdict"] == "differentiable"
    (finding,) = report["inputs"]["x"]["findings"]
    assert finding["because"]["line"] == 1


def test_an_output_without_floating_inputs_and_a_float_output_behind_a_cut() -> None:
    report = explained('return {"k": argmax(x), "c": (x > 0).double().sum(), "s": x.sum(), "o": ones(2)}', x=X)
    verdicts = {name: entry["verdict"] for name, entry in report["outputs"].items()}
    assert verdicts == {"k": "not_differentiable", "c": "disconnected", "s": "differentiable", "o": "disconnected"}


def test_a_multi_output_step_passes_through_the_used_output_only() -> None:
    report = explained("a, b = meshgrid(x, y, indexing='ij')\na.sum()", x=X, y=X)
    assert report["inputs"]["x"]["verdict"] == "differentiable"
    assert report["inputs"]["y"]["verdict"] == "disconnected"


# Programs made at random: a chain of statements over what is already there.
_UNARY = (
    "{a}.exp() * 0.1", "tanh({a})", "relu({a})", "round({a})", "sign({a})", "{a}.detach()", "({a} > 0.1).double()", "{a}.long().double()",
    "sort({a})[0]", "sort({a})[1].double()", "max({a}, 0)[0] + {a}", "{a} * argmax({a})", "zeros_like({a})", "sqrt({a} ** 2 + 1)", "{a}.flip(0)",
    "floor({a}) + 0.5", "softmax({a}, 0)", "abs({a})", "clamp({a}, -0.5, 0.5)", "log({a} ** 2 + 0.1)",
)  # fmt: skip
_BINARY = (
    "{a} + {b}", "{a} * {b}", "where({a} > {b}, {a}, {b})", "maximum({a}, {b})", "{a} - {b}.detach()",
    "where({a} > 0, {b}, 0 * {b})",
)  # fmt: skip


@st.composite
def programs(draw: Any) -> str:
    names = ["x", "y", "z"]
    lines = []
    for k in range(draw(st.integers(1, 7))):
        a, b = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        form = draw(st.sampled_from(_UNARY + _BINARY))
        lines.append(f"v{k} = {form.format(a=a, b=b)}")
        names.append(f"v{k}")
    outputs = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2))
    return "\n".join([*lines, "(" + " + ".join(outputs) + ").sum()"])


@settings(max_examples=120, deadline=None, derandomize=True)
@given(programs(), st.lists(st.floats(-2, 2).map(lambda v: round(v, 3)), min_size=9, max_size=9))
def test_explain_and_the_gradient_agree(text: str, numbers: list[float]) -> None:
    leaves = tensors({"x": numbers[:3], "y": numbers[3:6], "z": numbers[6:]})
    function = program(text, leaves)
    report = explain(Points(function, leaves), None)["inputs"]
    live = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
    (output,) = function.call(*(live[name] for name in function.leaves))
    gradients: dict[str, Any] = dict.fromkeys(live)
    if output.requires_grad:
        gradients = dict(zip(live, torch.autograd.grad(output, list(live.values()), allow_unused=True), strict=True))
    for name, gradient in gradients.items():
        verdict = report[name]["verdict"]
        assert (gradient is None) == (verdict == "disconnected"), (text, name, report[name])
        if verdict == "piecewise_constant":
            assert not bool(gradient.any()), (text, name)
        if gradient is not None:
            assert bool(gradient.isfinite().all()) or verdict == "singular", (text, name)
