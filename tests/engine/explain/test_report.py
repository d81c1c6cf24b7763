"""explain's verdicts at points where it is known on paper what the function does there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from app.engine.check.report import check
from app.engine.explain.evidence import evidence_at
from app.engine.explain.report import explain
from app.engine.stepwise.point import Point, Points
from tests.engine.building import explained, explained_operation, program, tensors

TIED = [3.0, 1.0, 3.0, 2.0]
AT_ZERO = [-1.0, 0.0, 2.0]
EYE = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
RANK_1 = [[1.0, 2.0], [2.0, 4.0]]

# Program in x, x, elements, the subgradient that PyTorch takes there.
KINKS: dict[str, tuple[str, Any, list[list[int]], list[float] | None]] = {
    "relu": ("relu(x)", AT_ZERO, [[1]], [0.0]),
    "abs": ("abs(x)", AT_ZERO, [[1]], [0.0]),
    "clamp": ("clamp(x, -1, 1)", [-1.0, 0.3, 2.0], [[0]], [1.0]),
    "prelu": ("F.prelu(x, tensor([0.25]))", AT_ZERO, [[1]], [0.25]),
    "leaky_relu": ("F.leaky_relu(x, 0.1)", AT_ZERO, [[1]], [0.1]),
    "hardtanh": ("F.hardtanh(x)", [-1.0, 0.3, 1.0], [[0], [2]], [0.0, 0.0]),
    "relu6": ("F.relu6(x)", [6.0, 0.3, 0.0], [[0], [2]], [0.0, 0.0]),
    "max": ("max(x)", TIED, [[0], [2]], [0.5, 0.5]),
    "max_dim": ("max(x, 0)[0]", TIED, [[0], [2]], [1.0, 0.0]),
    "min": ("x.min()", [1.0, 3.0, 1.0], [[0], [2]], [0.5, 0.5]),
    "amax": ("amax(x, 0)", TIED, [[0], [2]], [0.5, 0.5]),
    "sort": ("sort(x)[0]", TIED, [[0], [2]], [1.0, 1.0]),
    "topk": ("topk(x, 1)[0]", TIED, [[0], [2]], [1.0, 0.0]),
    "median": ("median(x)", [1.0, 2.0, 2.0, 2.0, 3.0], [[1], [2], [3]], None),
    "max_pool": ("F.max_pool1d(x, 4)", [TIED], [[0, 0], [0, 2]], [1.0, 0.0]),
    "max_pool of nine zeros": (
        "F.max_pool2d(x, 3)",
        torch.zeros(1, 1, 3, 3),
        [[0, 0, i, j] for i in range(3) for j in range(3)],
        None,
    ),
    "norm at 0": ("linalg.norm(x)", [0.0, 0.0], [[0], [1]], [0.0, 0.0]),
    "maximum": ("maximum(x, tensor([0.0, 0.0, 0.0]))", AT_ZERO, [[1]], [0.5]),
    "where": ("where(x > 0, x, 0 * x)", AT_ZERO, [[1]], [0.0]),
    "mask": ("x * (x > 0)", AT_ZERO, [[1]], [0.0]),
    "l1_loss": ("F.l1_loss(x, zeros_like(x))", AT_ZERO, [[1]], [0.0]),
    "hinge": ("clamp(1 - x, min=0).sum()", [1.0, 2.0, 0.5], [[0]], [-1.0]),
    "eigvalsh repeated": ("linalg.eigvalsh(x)", EYE, [[i, j] for i in range(3) for j in range(3)], None),
    "svdvals repeated": ("linalg.svdvals(x)", EYE, [[i, j] for i in range(3) for j in range(3)], None),
    "deep": ("h = relu(x * 3)\ny = tanh(h)\ny.sum()", AT_ZERO, [[1]], [0.0]),
    "complex abs": ("abs(x).sum()", torch.tensor([0j, 1 + 1j]), [[0]], None),
}

SINGULAR: dict[str, tuple[str, Any, list[list[int]] | None]] = {
    "sqrt": ("sqrt(x)", [0.0, 1.0], [[0]]),
    "acos": ("acos(x)", [0.0, 1.0], [[1]]),
    "asin": ("asin(x)", [-1.0, 0.5], [[0]]),
    "log at 0": ("log(x)", [0.0, 1.0], [[0]]),
    "log of a negative": ("log(x)", [-1.0, 1.0], [[0]]),
    "xlogy": ("xlogy(x, x)", [0.0, 1.0], [[0]]),
    "power below one": ("x ** 0.5", [0.0, 1.0], [[0]]),
    "sqrt of abs": ("sqrt(abs(x))", AT_ZERO, [[1]]),
    "1/0": ("1 / x", [0.0, 1.0], [[0]]),
    "0/0": ("x / x", [0.0, 1.0], [[0]]),
    "log det of a singular matrix": ("linalg.slogdet(x)[1]", RANK_1, None),
    "where with NaN behind it": ("where(x > 0, sqrt(x), 0 * x)", [0.0, 1.0], [[0]]),
    "remainder": ("remainder(x, 1.0)", [0.5, 2.0], [[1]]),
    "frac": ("frac(x)", [0.5, 2.0], [[1]]),
    "where with a jump": ("where(x > 0, x + 1, x)", [0.0, 1.0], [[0]]),
    "pinv at a rank change": ("linalg.pinv(x)", RANK_1, None),
    "eigenvectors of a repeated eigenvalue": ("linalg.eigh(x)[1]", EYE, None),
    "atan2 at the origin": ("atan2(x, x * 2)", [0.0, 1.0], [[0]]),
    "norm under a square root": ("sqrt((x ** 2).sum())", [0.0, 0.0], [[0], [1]]),
}

DIFFERENTIABLE: dict[str, tuple[str, Any]] = {
    "relu away": ("relu(x)", [-1.0, 0.5, 2.0]),
    "relu near": ("relu(x)", [-1e-9, 1e-12, 2.0]),
    "exp": ("exp(x)", AT_ZERO),
    "softmax": ("softmax(x, 0)", AT_ZERO),
    "gelu": ("F.gelu(x)", AT_ZERO),
    "elu": ("F.elu(x)", AT_ZERO),
    "smooth l1": ("F.smooth_l1_loss(x, zeros_like(x))", AT_ZERO),
    "x|x|": ("x * abs(x)", AT_ZERO),
    "relu squared": ("relu(x) ** 2", AT_ZERO),
    "largest and smallest": ("maximum(x, tensor(0.0)) + minimum(x, tensor(0.0))", AT_ZERO),
    "square": ("x ** 2", AT_ZERO),
    "cube of tiny": ("x ** 3", [-1e-12, 0.0, 2e-12]),
    "sqrt of huge": ("sqrt(x)", [1e12, 3e14]),
    "det of rank 1": ("det(x)", RANK_1),
    "sin(1e4 x)": ("sin(10000.0 * x)", AT_ZERO),
    "sin(1e8 x)": ("log1p(cos(sin(100000000.0 * x)))", [1.0, 2.0]),
    "quantile": ("quantile(x, 0.3)", [0.3, 0.1, 0.7, 0.2]),
    "max without ties": ("max(x)", [0.3, 0.1, 0.7, 0.2]),
    "topk with a tie beyond": ("topk(x, 2)[0]", [3.0, 1.0, 1.0, 3.5]),
    "permute": ("x.permute(1, 0)", RANK_1),
    "pinv of full rank": ("linalg.pinv(x)", [[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]]),
    "eigvalsh apart": ("linalg.eigvalsh(x)", [[1.0, 0.2], [0.2, 3.0]]),
    "masked by data": ("where(tensor([True, False, True]), x, 0.0)", AT_ZERO),
    "-inf before softmax": ("softmax(x.masked_fill(tensor([True, False, False]), -inf), 0)", AT_ZERO),
    "straight through": ("x + (round(x) - x).detach()", AT_ZERO),
    "where smooth": ("where(x > 0, x * x, x * x * x)", AT_ZERO),
    "double where": ("safe = where(x > 0, x, 1.0)\nwhere(x > 0.5, sqrt(safe), 0.0)", [-1.0, 0.0, 2.0]),
    "layer norm": ("F.layer_norm(x, (2,))", [[1.0, 2.0], [3.0, 5.0]]),
    "variance at equal values": ("var(x)", [1.0, 1.0, 1.0]),
    "dead relu": ("relu(x)", [-3.0, -2.0, -1.0]),
    "complex": ("(x * x.conj()).real.sum()", torch.tensor([1 + 2j, 0j])),
    "float32": ("tanh(x).sum()", torch.tensor(AT_ZERO)),
}

FLAT: dict[str, tuple[str, Any, list[list[int]]]] = {
    "round": ("round(x)", [0.3, 1.0], []),
    "round on a jump": ("round(x)", [0.5, 1.0], [[0]]),
    "floor": ("floor(x).sum()", [0.5, 1.0], [[1]]),
    "ceil": ("x.ceil()", [0.5, 1.5], []),
    "trunc": ("trunc(x * 2)", [0.3, 1.2], []),
    "sign": ("sign(x)", AT_ZERO, [[1]]),
    "behind smooth steps": ("y = exp(x)\nz = round(y)\n(z ** 2).sum()", [0.3, 1.0], []),
}


@pytest.mark.parametrize("case", KINKS)
def test_kinks(case: str) -> None:
    text, x, elements, subgradient = KINKS[case]
    report = explained(text, x=x)
    entry = report["inputs"]["x"]
    assert entry["verdict"] == "kink"
    assert sorted(entry["elements"]) == sorted(elements)
    if subgradient is not None:
        assert entry["subgradient"] == pytest.approx(subgradient)
    assert {out["verdict"] for out in report["outputs"].values()} == {"kink"}


@pytest.mark.parametrize("case", SINGULAR)
def test_singular_points(case: str) -> None:
    text, x, elements = SINGULAR[case]
    report = explained(text, x=x)
    entry = report["inputs"]["x"]
    assert entry["verdict"] == "singular"
    assert entry["because"]["reason"]
    assert elements is None or sorted(entry["elements"]) == sorted(elements)
    assert {out["verdict"] for out in report["outputs"].values()} == {"singular"}


@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_smooth_points_are_left_alone(case: str) -> None:
    text, x = DIFFERENTIABLE[case]
    report = explained(text, x=x)
    assert report["inputs"]["x"]["verdict"] == "differentiable", report["inputs"]["x"]
    assert report["inputs"]["x"]["elements"] == []
    assert {out["verdict"] for out in report["outputs"].values()} == {"differentiable"}


@pytest.mark.parametrize("case", FLAT)
def test_piecewise_constant(case: str) -> None:
    text, x, elements = FLAT[case]
    report = explained(text, x=x)
    entry = report["inputs"]["x"]
    assert entry["verdict"] == "piecewise_constant"
    assert entry["elements"] == elements
    assert entry["instead"]
    assert {out["verdict"] for out in report["outputs"].values()} == {"piecewise_constant"}


def test_the_step_that_bends_is_named() -> None:
    report = explained("h = x * 2\ny = relu(h)\nz = y.sum()\nz * 3", x=AT_ZERO)
    because = report["inputs"]["x"]["because"]
    assert (because["line"], because["text"]) == (2, "y = relu(h)")
    assert because["operation"].endswith("relu")
    assert "`nn.functional.softplus(h)`" in report["inputs"]["x"]["instead"]


def test_the_first_step_of_the_backward_pass_that_is_not_finite_is_named() -> None:
    report = explained("a = x * 1\nb = sqrt(a)\nc = b * 2\nlog(c + 1).sum()", x=[0.0, 1.0])
    because = report["inputs"]["x"]["because"]
    assert (because["line"], because["operation"]) == (2, "sqrt")
    assert "infinite at a = 0" in because["reason"]
    assert report["inputs"]["x"]["instead"] == "Keep away from zero: `torch.sqrt(a + eps)`."


def test_nan_behind_where_is_explained_by_zero_times_infinity() -> None:
    entry = explained("where(x > 0, sqrt(x), 0 * x)", x=[0.0, 1.0])["inputs"]["x"]
    assert "0 · ∞ is NaN" in entry["because"]["reason"]
    assert "safe = where(x > 0, x, 1.0)" in entry["instead"]


def test_a_kink_and_a_singular_point_in_one_input_are_both_told() -> None:
    entry = explained("relu(x[0]) + sqrt(x[1])", x=[0.0, 0.0])["inputs"]["x"]
    assert entry["verdict"] == "singular"
    assert [f["verdict"] for f in entry["findings"]] == ["singular", "kink"]
    assert [f["elements"] for f in entry["findings"]] == [[[1]], [[0]]]


def test_inputs_are_told_apart() -> None:
    report = explained("relu(x @ w).sum() + 0 * b.sum()", x=[[0.0, 0.0]], w=[[1.0, -2.0], [3.0, 0.5]], b=[1.0])["inputs"]
    assert {name: entry["verdict"] for name, entry in report.items()} == {
        "x": "kink",
        "w": "differentiable",
        "b": "differentiable",
    }


def test_a_value_that_is_not_finite_names_the_step_that_made_it() -> None:
    report = explained("y = x - 1\nz = log(y)\nz * 2", x=[0.5, 3.0])
    assert report["outputs"]["output"]["because"]["line"] == 2
    assert report["outputs"]["output"]["elements"] == [[0]]


def test_an_input_that_holds_nan_is_said_to() -> None:
    entry = explained("x * 2", x=[float("nan"), 1.0])["outputs"]["output"]
    assert entry["verdict"] == "singular"
    assert "`x` itself holds NaN" in entry["because"]["reason"]


def test_random_steps_draw_the_same_numbers_in_every_probe() -> None:
    x = torch.linspace(0.5, 1.5, 30, dtype=torch.float64)
    report = explained("F.dropout(x, 0.5, True).sum()", seed=3, x=x)
    assert report["inputs"]["x"]["verdict"] == "differentiable"


def test_many_forwards_are_not_spent() -> None:
    leaves = tensors({"x": torch.randn(40, 30, dtype=torch.float64), "w": torch.randn(30, 20, dtype=torch.float64)})
    text = "h = relu(x @ w)\nfor i in range(10):\n    h = tanh(h) + F.gelu(h)\nh.sum()"
    function = program(text, leaves)
    assert evidence_at(Point(function, leaves, None)).trace.point.forwards < 40
    zero = {**leaves, "x": torch.zeros(40, 30, dtype=torch.float64)}
    assert evidence_at(Point(function, zero, None)).trace.point.forwards < 100


def test_the_point_keeps_its_dtypes_where_a_step_insists() -> None:
    leaves = {"x": torch.tensor([[1.0, 2.0]], dtype=torch.float32)}
    report = explain(Points(program("x.to(float32) @ tensor([[1.0], [2.0]], dtype=float32)", leaves), leaves), None)
    assert report["inputs"]["x"]["verdict"] == "differentiable"


@pytest.mark.parametrize(
    ("name", "parameters", "verdict"),
    [
        ("nn.functional.relu", {}, "kink"),
        ("argmax", {}, "disconnected"),
        ("exp", {}, "differentiable"),
        ("round", {}, "piecewise_constant"),
    ],
)
def test_operations(name: str, parameters: dict[str, Any], verdict: str) -> None:
    report = explained_operation(name, parameters, input=AT_ZERO)
    assert report["inputs"]["input"]["verdict"] == verdict


def test_formulas_of_the_steps() -> None:
    steps = explained("p = softmax(x @ w, dim=1)\np[0]", x=[[1.0, 2.0]], w=[[1.0, 0.0], [0.0, 1.0]])["steps"]
    assert [(s["line"], s["operation"]) for s in steps] == [(1, "@"), (1, "softmax"), (2, "[]")]
    assert "_softmax_backward_data(grad, result, dim" in steps[1]["formula"]
    assert "mm_mat1_backward" in steps[0]["formula"]
    assert "select_backward" in steps[2]["formula"]


def test_formula_of_a_composite_tells_its_parts() -> None:
    (step,) = explained("F.cross_entropy(x, tensor([1]))", x=[[1.0, 2.0]])["steps"][-1:]
    assert "NllLoss" in step["formula"]
    assert "LogSoftmax" in step["formula"]


def test_what_is_seen_around_a_point_is_looked_for_once_by_explain_and_check() -> None:
    leaves = tensors({"x": [0.0, 1.0, -2.0], "w": [0.0, 2.0, 1.0]})
    text = "y = x.detach() * w\n(tanh(x) + abs(w) + y).sum()"
    apart, shared = Points(program(text, leaves), leaves), Points(program(text, leaves), leaves)
    report, verdict = explain(apart, None), check(Points(apart.function, leaves), ("x", "w"), None, {}, None, "gradient")
    assert explain(shared, None) == report
    looked = shared.wide.forwards
    assert check(shared, ("x", "w"), None, {}, None, "gradient") == verdict
    assert verdict["x"]["likely"]["code"] == "cut_path"
    alone = Points(apart.function, leaves)
    check(alone, ("x", "w"), None, {}, None, "gradient")
    assert shared.wide.forwards - looked < alone.wide.forwards


@pytest.mark.parametrize(
    ("text", "x", "dtype"),
    [
        ("softmax(x, -1)", [0.09130859375, 1.390625, -0.6875, -0.50390625, 0.1923828125, 0.71484375], torch.bfloat16),
        (
            "F.layer_norm(x, (8,))",
            [1.2646484375, 0.0910034, 0.49609375, 0.35058594, -0.48413086, 1.0996094, 0.5234375, -0.3776855],
            torch.float16,
        ),
        ("F.layer_norm(x, (64,))", torch.randn(16, 64, generator=torch.Generator().manual_seed(0)).tolist(), torch.bfloat16),
    ],
)
def test_what_is_smooth_has_no_kink_in_half_precision(text: str, x: Any, dtype: torch.dtype) -> None:
    """Elements whose gradient cancels are off by more than 5 % in these dtypes, and it changes by as much over some roundings."""
    report = explained(text, x=torch.tensor(x, dtype=dtype))
    assert (report["inputs"]["x"]["verdict"], report["outputs"]["output"]["verdict"]) == ("differentiable", "differentiable")


def test_a_product_that_cancels_beside_a_kink_is_not_on_it() -> None:
    """`relu` takes the same branch in bfloat16 as in float64 there."""
    numbers = torch.Generator().manual_seed(0)
    x, w, v = (torch.randn(*shape, generator=numbers).bfloat16() for shape in ((8, 8), (8, 8), (8, 3)))
    assert explained("(relu(x @ w) @ v).sum()", x=x, w=w, v=v)["inputs"]["x"]["verdict"] == "differentiable"


@pytest.mark.parametrize("text", ["x * (x > 0.1)", "where(x > 0.1, x, -x)", "relu(x - 0.1)"])
def test_a_kink_within_half_precision(text: str) -> None:
    assert explained(text, x=torch.tensor([0.1, 0.5]).bfloat16())["inputs"]["x"]["verdict"] == "kink"
