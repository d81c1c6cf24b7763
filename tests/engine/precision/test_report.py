"""`precision` on programs that lose digits, with the step that loses them and the formula that keeps them; and on programs that do not."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest

from app.errors import PullbackError
from tests.engine.asking import ask

# program, dtype, inputs, line and operation of the step that loses, part of the better formula (None: none is known).
LOST: dict[str, tuple[str, str, dict[str, Any], int, str, str | None]] = {
    "log of softmax": ("p = softmax(z, dim=-1)\nreturn log(p)[1]", "float32", {"z": [0.0, -120.0, 5.0]}, 2, "log", "log_softmax(z, dim=-1)"),
    "log of softmax, rows": ("log(softmax(z, 1)).sum()", "float32", {"z": [[0.0, 200.0], [-300.0, 1.0]]}, 1, "log", "log_softmax(z, dim=1)"),
    "log of softmax, float64": ("log(softmax(z, 0)).sum()", "float64", {"z": [30.0, -40.0, 1200.0]}, 1, "log", "log_softmax(z, dim=0)"),
    "log of a sum of exponentials": ("log(exp(z).sum())", "float32", {"z": [100.0, 1.0]}, 1, "log", "logsumexp(z"),
    "log of two exponentials": ("log(exp(a) + exp(b))", "float32", {"a": 100.0, "b": 99.0}, 1, "log", "logaddexp(a, b)"),
    "softplus by hand": ("log(1 + exp(x)).sum()", "float32", {"x": [-30.0, 200.0, 1.0]}, 1, "log", "softplus(x"),
    "log of one plus": ("y = 1 + x\nreturn log(y)", "float32", {"x": 1e-9}, 2, "log", "log1p(x)"),
    "log of one minus": ("log(1 - x)", "float64", {"x": 1e-17}, 1, "log", "log1p(-x)"),
    "exp minus one": ("exp(x) - 1", "float64", {"x": 1e-12}, 1, "-", "expm1(x)"),
    "one minus exp": ("1 - exp(x)", "float32", {"x": 1e-6}, 1, "-", "-expm1(x)"),
    "one minus cos": ("1 - cos(x)", "float64", {"x": 1e-9}, 1, "-", "2 * sin(x / 2) ** 2"),
    "one minus erf": ("1 - erf(x)", "float32", {"x": 5.0}, 1, "-", "erfc(x)"),
    "one minus sigmoid": ("1 - sigmoid(x)", "float32", {"x": 30.0}, 1, "-", "sigmoid(-x)"),
    "log of a sigmoid": ("log(sigmoid(x))", "float32", {"x": -120.0}, 1, "log", "logsigmoid(x)"),
    "log of one minus a sigmoid": ("y = sigmoid(z)\nreturn log(1 - y)", "float32", {"z": 30.0}, 2, "log", "logsigmoid(-z)"),
    "binary cross entropy": (
        "y = sigmoid(z)\nreturn -(t*log(y) + (1-t)*log(1-y)).mean()", "float32", {"z": [30.0, -40.0, 200.0], "t": [0.0, 1.0, 0.0]},
        2, "log", "logsigmoid(-z)",
    ),
    "mean of squares minus square of mean": (
        "(x**2).mean() - x.mean()**2", "float32", {"x": [1e4, 1e4 + 1, 1e4 + 2.5]}, 1, "-", "((x - x.mean()) ** 2).mean()",
    ),
    "the same in three lines": (
        "m = x.mean()\ns = (x * x).mean()\nreturn s - m * m", "float64", {"x": [1e8, 1e8 + 1, 1e8 + 2.5]}, 3, "-",
        "((x - x.mean()) ** 2).mean()",
    ),
    "variance along an axis": (
        "((x**2).mean(1) - x.mean(1)**2).sum()", "float64", {"x": [[1e8, 1e8 + 1], [1.0, 2.0]]}, 1, "-", ".mean(1, keepdim=True)",
    ),
    "difference of squares": ("a**2 - b**2", "float64", {"a": 1e9 + 1, "b": 1e9}, 1, "-", "(a - b) * (a + b)"),
    "difference of roots": ("sqrt(x + 1) - sqrt(x)", "float64", {"x": 1e12}, 1, "-", "/ (sqrt(x + 1) + sqrt(x))"),
    "quadratic root": (
        "(-b + sqrt(b**2 - 4*a*c)) / (2*a)", "float64", {"a": 1.0, "b": 1e9, "c": 1.0}, 1, "/", "2 * c / (-b - sqrt(",
    ),
    "softmax by hand": ("exp(z) / exp(z).sum(-1, keepdim=True)", "float32", {"z": [[100.0, 1.0, 3.0]]}, 1, "/", "softmax(z, dim=-1)"),
    "sigmoid by hand": ("exp(x) / (1 + exp(x))", "float32", {"x": 100.0}, 1, "/", "sigmoid(x)"),
    "tanh by hand": ("(exp(x) - exp(-x)) / (exp(x) + exp(-x))", "float32", {"x": 100.0}, 1, "/", "tanh(x)"),
    "sinh by hand": ("(exp(x) - exp(-x)) / 2", "float64", {"x": 1e-9}, 1, "/", "sinh(x)"),
    "hypotenuse": ("sqrt(x**2 + y**2)", "float32", {"x": 1e25, "y": 1e25}, 1, "sqrt", "hypot(x, y)"),
    "length": ("sqrt((x**2).sum())", "float16", {"x": [300.0, 400.0]}, 1, "sqrt", ".abs().max()"),
    "log of a product": ("log(x.prod())", "float32", {"x": [1e-20, 1e-20, 1e-20]}, 1, "log", "log(x).sum()"),
    "log of cosh": ("log(cosh(x))", "float32", {"x": 100.0}, 1, "log", "logaddexp(x, -x)"),
    "log of a ratio": ("log(a / b)", "float32", {"a": 1e-30, "b": 1e30}, 1, "log", "log(a) - log(b)"),
    "difference of logs": ("log(a) - log(b)", "float64", {"a": 1e8 + 1e-7, "b": 1e8}, 1, "-", "log1p((a - b) / b)"),
    "difference of gammas": ("lgamma(x + 1) - lgamma(x)", "float64", {"x": 1e14}, 1, "-", "log(x)"),
    "bce of a sigmoid": (
        "nn.functional.binary_cross_entropy(sigmoid(z), t)", "float32", {"z": [20.0], "t": [0.0]}, 1,
        "nn.functional.binary_cross_entropy", "binary_cross_entropy_with_logits(z, t)",
    ),
    "log of a softmax by hand": ("log(exp(z) / exp(z).sum())[1]", "float32", {"z": [0.0, -110.0, 5.0]}, 1, "log", "log_softmax(z, dim=0)"),
    "log2 of softmax": ("log2(softmax(z, 0))[1]", "float32", {"z": [0.0, -120.0, 3.0]}, 1, "log2", "log_softmax(z, dim=0) / 0.69"),
    "softplus by log1p": ("log1p(exp(x))", "float32", {"x": 95.0}, 1, "log1p", "softplus(x"),
    "log of a logistic by hand": ("log(1 / (1 + exp(-x)))", "float32", {"x": -100.0}, 1, "log", "logsigmoid(x)"),
    "log of three exponentials": (
        "log(exp(a) + exp(b) + exp(c))", "float32", {"a": 100.0, "b": 99.0, "c": 98.0}, 1, "log", "logaddexp(logaddexp(a, b), c)",
    ),
    "log of a mean of exponentials": ("log(exp(x).mean())", "float32", {"x": [100.0, 99.0]}, 1, "log", "logsumexp(x, dim=(0,)) - 0.69"),
    "log of erfc": ("log(erfc(x))", "float32", {"x": 12.0}, 1, "log", "log_ndtr("),
    "variance of sums": ("(x**2).sum() / 3 - (x.sum() / 3)**2", "float32", {"x": [1e4, 1e4 + 1, 1e4 + 2.5]}, 1, "-", "((x - x.mean()) ** 2)"),
    "covariance": (
        "(x * y).mean() - x.mean() * y.mean()", "float64", {"x": [1e8, 1e8 + 1, 1e8 + 3], "y": [1e8, 1e8 + 2, 1e8 - 1]}, 1, "-",
        "((x - x.mean()) * (y - y.mean())).mean()",
    ),
    "one minus a squared sine": ("1 - sin(x)**2", "float64", {"x": 1.5707963}, 1, "-", "cos(x) ** 2"),
    "one minus tanh": ("1 - tanh(x)", "float32", {"x": 12.0}, 1, "-", "2 * sigmoid(-2 * x)"),
    "the other quadratic root": (
        "(-b - sqrt(b**2 - 4*a*c)) / (2*a)", "float64", {"a": 1.0, "b": -1e9, "c": 1.0}, 1, "/", "2 * c / (-b + sqrt(",
    ),
    "cosh minus sinh": ("cosh(x) - sinh(x)", "float64", {"x": 20.0}, 1, "-", "exp(-x)"),
    "cosh minus one": ("cosh(x) - 1", "float64", {"x": 1e-7}, 1, "-", "2 * sinh(x / 2) ** 2"),
    "sinh over cosh": ("sinh(x) / cosh(x)", "float32", {"x": 100.0}, 1, "/", "tanh(x)"),
    "ratio of exponentials": ("exp(a) / exp(b)", "float32", {"a": 100.0, "b": 99.0}, 1, "/", "exp(a - b)"),
    "root minus its base": ("sqrt(x*x + 1) - x", "float64", {"x": 1e8}, 1, "-", "1 / (sqrt("),
    "root of one plus, minus one": ("sqrt(1 + x) - 1", "float64", {"x": 1e-12}, 1, "-", "x / (sqrt(1 + x) + 1)"),
    "base minus its root": ("b - sqrt(b**2 - c)", "float64", {"b": 1e9, "c": 1.0}, 1, "-", "c / (sqrt("),
    "difference of reciprocals": ("1 / (x + 1) - 1 / x", "float64", {"x": 1e9}, 1, "-", "-1 / ((x + 1) * x)"),
    "power minus one": ("x ** y - 1", "float64", {"x": 1 + 1e-10, "y": 2.0}, 1, "-", "expm1(y * log(x))"),
    "hypotenuse as a power": ("(a**2 + b**2) ** 0.5", "float32", {"a": 3e25, "b": 4e25}, 1, "**", "hypot(a, b)"),
    "length in space": ("sqrt(a**2 + b**2 + c**2)", "float32", {"a": 3e25, "b": 4e25, "c": 1e25}, 1, "sqrt", "hypot(hypot(a, b), c)"),
    "length as a power": ("(x**2).sum() ** 0.5", "float16", {"x": [300.0, 400.0]}, 1, "**", ".abs().max()"),
    "geometric mean": ("x.prod() ** 0.25", "float32", {"x": [1e-15, 1e-15, 1e-15, 1e-15]}, 1, "**", "exp(0.25 * log(x).sum())"),
    "arc cosine near one": ("acos(1 - x)", "float64", {"x": 1e-15}, 1, "acos", "2 * asin(sqrt(x / 2))"),
    "underflow in half precision": ("(x * 1e-6).sum() * 1e-3", "float16", {"x": [1.0, 2.0]}, 1, "*", None),
    "overflow in half precision": ("log(x.sum())", "float16", {"x": [60000.0, 10000.0, 1.0]}, 1, "sum", None),
    "trigamma of PyTorch": ("digamma(x)", "float64", {"x": 0.7}, 1, "digamma", None),
    "one sixth of hardsigmoid": ("nn.functional.hardsigmoid(x)", "float64", {"x": 0.5}, 1, "nn.functional.hardsigmoid", None),
}  # fmt: skip
# Nothing is lost here: program, dtype, inputs.
NOTHING_LOST: dict[str, tuple[str, str, dict[str, Any]]] = {
    "tanh layer": ("tanh(x @ w).sum()", "float32", {"x": [[0.5, -1.2], [0.3, 2.0]], "w": [[0.1, 0.4], [-0.7, 0.2]]}),
    "mean squared error": ("((x - y)**2).mean()", "float32", {"x": [1.0, 2.5], "y": [0.5, 4.0]}),
    "log_softmax": ("log_softmax(z, dim=-1)[1]", "float32", {"z": [0.0, -120.0, 5.0]}),
    "cross entropy": ("nn.functional.cross_entropy(x, t)", "float32", {"x": [[1.0, 2.0, 4.0]], "t": [1]}),
    "log of softmax of small logits": ("log(softmax(z, 0)).sum()", "float64", {"z": [0.1, 0.5, -0.3]}),
    "softplus": ("nn.functional.softplus(x).sum()", "float32", {"x": [-3.0, 1.0]}),
    "log1p": ("log1p(x)", "float32", {"x": 1e-9}),
    "expm1": ("expm1(x)", "float64", {"x": 1e-12}),
    "variance": ("x.var()", "float64", {"x": [1.0, 2.0, 4.0]}),
    "mean of squares minus square of mean, small": ("(x**2).mean() - x.mean()**2", "float64", {"x": [1.0, 2.0, 4.0]}),
    "bfloat16 product": ("(x @ w).sum()", "bfloat16", {"x": [[1.0, 2.0]], "w": [[0.5], [0.25]]}),
    "half": ("(x * x).sum()", "float16", {"x": [1.0, 2.0, 3.0]}),
    "polynomial": ("(x**3 - 2*x + 1).sum()", "float64", {"x": [0.5, 2.0, -1.3]}),
    "sine": ("sin(x).sum()", "float64", {"x": [1e-8, 1.0, 1e5]}),
    "softmax with ones": ("softmax(x, dim=0)", "float64", {"x": [0.1, 0.5, 3.0]}),
    "inverse": ("linalg.inv(a).sum()", "float64", {"a": [[2.0, 1.0], [1.0, 3.0]]}),
    "determinant": ("linalg.det(a)", "float64", {"a": [[2.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 4.0]]}),
    "cholesky": ("linalg.cholesky(a).sum()", "float64", {"a": [[2.0, 0.5], [0.5, 3.0]]}),
    "solve": ("linalg.solve(a, b).sum()", "float64", {"a": [[2.0, 1.0], [1.0, 3.0]], "b": [1.0, 2.0]}),
    "max": ("x.max()", "float32", {"x": [1.0, 5.0, 2.0]}),
    "median": ("x.median()", "float64", {"x": [1.0, 5.0, 2.0]}),
    "sorted": ("(sort(x).values * w).sum()", "float32", {"x": [3.0, 1.0, 2.0], "w": [0.3, 0.2, 0.5]}),
    "gather": ("x[[0, 2]].prod()", "float64", {"x": [1.5, 2.0, 3.0]}),
    "gelu": ("nn.functional.gelu(x).sum()", "float64", {"x": [-1.0, 0.5, 2.0]}),
    "layer norm": ("(nn.functional.layer_norm(x, [3]) * w).sum()", "float64", {"x": [0.1, 0.5, 3.0], "w": [1.0, -2.0, 0.5]}),
    "convolution": ("nn.functional.conv1d(x, w).square().sum()", "float64", {"x": [[[1.0, 2.0, 4.0, 1.0]]], "w": [[[1.0, 2.0]]]}),
    "complex": ("(z * z.conj()).real.sum()", "complex64", {"z": [1.0, 2.0]}),
}  # fmt: skip
WHOLE = {"float64": 15.9, "float32": 7.2, "float16": 3.3, "bfloat16": 2.4, "complex64": 7.2}


def measured(program: str, dtype: str | None, inputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    report: dict[str, Any] = ask(program=program, dtype=dtype, inputs=inputs, want=["precision"], **fields).results["precision"]
    return report


@pytest.mark.parametrize("case", LOST)
def test_the_step_that_loses_is_named_and_the_formula_that_keeps(case: str) -> None:
    program, dtype, inputs, line, operation, instead = LOST[case]
    reports = measured(program, dtype, inputs)
    report = next(report for report in reports.values() if report["because"] is not None)
    lost = min(report["digits"]["worst"], *(each["worst"] for each in report["outputs"].values()))
    assert lost < 0.75 * WHOLE[dtype]
    assert (report["because"]["line"], report["because"]["operation"]) == (line, operation)
    assert report["because"]["text"] == program.split("\n")[line - 1]
    assert report["because"]["reason"]
    if instead is None:
        assert report["instead"] is None
    else:
        assert instead in report["instead"]


@pytest.mark.parametrize("case", [case for case, row in LOST.items() if row[5] is not None])
def test_the_formula_is_valid_and_keeps_the_digits(case: str) -> None:
    program, dtype, inputs, line, _, _ = LOST[case]
    before = next(report for report in measured(program, dtype, inputs).values() if report["because"] is not None)
    lines = program.split("\n")
    # A formula for a whole line stands in its place; one for a part of it is asked alone.
    lines[line - 1] = "return " + str(before["instead"])
    after = measured("\n".join(lines), dtype, inputs)
    for name, report in after.items():
        assert report["digits"]["worst"] > 0.6 * WHOLE[dtype], (name, report)
        assert all(each["worst"] > 0.6 * WHOLE[dtype] for each in report["outputs"].values()), (name, report)


@pytest.mark.parametrize("case", NOTHING_LOST)
def test_no_false_alarm(case: str) -> None:
    program, dtype, inputs = NOTHING_LOST[case]
    for name, report in measured(program, dtype, inputs).items():
        assert report["because"] is None, (name, report)
        assert report["instead"] is None
        assert report["digits"]["worst"] >= 0.65 * WHOLE[dtype]


@pytest.mark.parametrize(
    ("program", "x", "right"),
    [
        ("1 - cos(x)", 1e-5, lambda x: mpmath.sin(x)),
        ("log(1 + x) / x", 1e-9, lambda x: 1 / (x * (1 + x)) - mpmath.log(1 + x) / x**2),
        ("exp(x) - exp(-x)", 3.0, lambda x: mpmath.exp(x) + mpmath.exp(-x)),
        ("x ** 0.5 - 1", 1.0 + 1e-12, lambda x: 0.5 / mpmath.sqrt(x)),
        ("tan(x)", 1.5707963, lambda x: 1 + mpmath.tan(x) ** 2),
        ("erf(x) * x", 0.3, lambda x: mpmath.erf(x) + 2 * x * mpmath.exp(-x * x) / mpmath.sqrt(mpmath.pi)),
    ],
)
def test_digits_and_reference_are_those_of_mpmath(program: str, x: float, right: Any) -> None:
    with mpmath.workdps(80):
        exact = right(mpmath.mpf(x))
        (answer,) = (ask(program=program, inputs={"x": x}, want=["precision", "gradient"]),)
        computed = float(np.frombuffer(answer.results["gradient"]["x"].data, dtype=np.float64)[0])
        error = abs(computed - exact) / abs(exact)
        digits = 15.95 if error == 0 else min(15.95, max(0.0, float(-mpmath.log10(error))))
        report = answer.results["precision"]["x"]
        assert math.isclose(report["digits"]["worst"], digits, abs_tol=0.06)
        assert math.isclose(report["worst"][0]["reference"], float(exact), rel_tol=1e-15)
        assert report["reference"] == "mpmath"


def test_inputs_that_one_step_does_not_reach_are_right() -> None:
    reports = measured("(1 - cos(x)) + y**2", "float64", {"x": 1e-9, "y": 3.0})
    assert reports["y"]["digits"] == {"worst": 16.0, "median": 16.0}


def test_a_cotangent_is_used() -> None:
    report = measured("softmax(z, dim=0)", "float32", {"z": [0.0, 50.0]}, cotangent={"output": [1.0, 0.0]})["z"]
    assert report["worst"][0]["reference"] == pytest.approx(math.exp(-50.0), rel=1e-6) or report["digits"]["worst"] > 5


def test_a_formula_that_mends_the_output_alone_is_not_said_to_mend_the_derivative() -> None:
    report = measured("log(x + 1) - log(x)", "float16", {"x": 1e4})["x"]  # -1e-8 is no number of float16
    assert "mends no more of this derivative's worst element than 0.0 digits" in report["because"]["reason"]


def test_large_inputs_are_judged_by_random_rounding() -> None:
    x = np.linspace(1.0, 2.0, 300_000)
    report = measured("(x * x).sum()", "float64", {"x": x})["x"]
    assert report["reference"] == "float64 with random rounding"
    assert report["because"] is None
    lost = measured("(x**2).mean() - x.mean()**2", "float64", {"x": x + 1e8})["x"]
    assert lost["because"]["operation"] == "-"
    assert lost["digits"]["worst"] < 10


def test_random_programs_and_batches_are_refused() -> None:
    with pytest.raises(PullbackError, match="random numbers"):
        ask(operation="nn.functional.dropout", inputs={"input": [1.0, 2.0]}, seed=1, want=["precision"])
    with pytest.raises(PullbackError, match="batched"):
        ask(program="x.sum()", inputs={"x": [[1.0], [2.0]]}, batched=("x",), want=["precision"])
    with pytest.raises(PullbackError):
        ask(operation="argmax", inputs={"input": [1.0, 2.0]}, want=["precision"])
