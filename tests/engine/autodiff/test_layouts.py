"""Jacobians and Hessians in every form hold the numbers of the dense ones, and no form is claimed that the graph does not prove."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.errors import PullbackError
from app.limits import Limits
from app.query import SparseData
from tests.engine.asking import Array, array, ask, whole

FORMATS = ("auto", "sparse", "diagonal")
RNG = np.random.default_rng(7)
X6 = RNG.standard_normal(6)
X34 = RNG.standard_normal((3, 4))

# Program, inputs; one output.
PROGRAMS: list[tuple[str, dict[str, Any]]] = [
    ("x + 1e-5*(x.roll(1,0)-2*x+x.roll(-1,0))", {"x": X6}),
    ("exp(x) + x.mean()", {"x": [-1.0, 0.0, 1.0, 40.0]}),
    ("x * 1e14 + x.flip(0)", {"x": X6}),
    ("cat([x[:1] * 1e14, x[1:] + x[:-1]])", {"x": X6}),
    ("softmax(x, dim=1)", {"x": X34}),
    ("softmax(x, dim=0)", {"x": X34}),
    ("cumsum(x, 1)", {"x": X34}),
    ("x.T.contiguous()", {"x": X34}),
    ("x.sort(1)[0]", {"x": X34}),
    ("x.max(1)[0]", {"x": X34}),
    ("where(x > 0, x, x.roll(1, 0))", {"x": X34}),
    ("relu(x) * x.flip(0)", {"x": X34}),
    ("x[1:] * x[:-1]", {"x": X6}),
    ("outer(x, x)", {"x": X6}),
    ("cat([x, x.sum().reshape(1)])", {"x": X6}),
    ("cat([x * x[0], x[:2]])", {"x": X6}),
    ("x.sum()", {"x": X6}),
    ("x[0] * x[0]", {"x": X6}),
    ("x * 0.0 + x.detach()", {"x": X6}),
    ("x @ w", {"x": X34, "w": RNG.standard_normal((4, 2))}),
    ("c * x + x.roll(1, 0)", {"x": X6, "c": 2.0}),
    ("nn.functional.conv1d(x.reshape(1,1,6), k.reshape(1,1,3), padding=1)", {"x": X6, "k": [1.0, -2.0, 1.0]}),
    ("diag(x) @ y", {"x": X6, "y": RNG.standard_normal((6, 2))}),
    ("view_as_real(fft.fft(x))", {"x": X6}),
    ("x[:0]", {"x": X6}),
]
# Program of a scalar, inputs.
SCALARS: list[tuple[str, dict[str, Any]]] = [
    ("(100*(x[1:]-x[:-1]**2)**2+(1-x[:-1])**2).sum()", {"x": X6}),
    ("(x ** 4).sum()", {"x": X34}),
    ("x.prod()", {"x": X6}),
    ("(x * x[0]).sum() + (x ** 3).sum()", {"x": np.arange(1.0, 31.0)}),
    ("(x * y.roll(1, 0)).sum() + (x**2 * c).sum()", {"x": X6, "y": X6 + 1, "c": 3.0}),
    ("logsumexp(x, 1).sum()", {"x": X34}),
    ("(a * x).sum()", {"x": X6, "a": X6}),
    ("relu(x).pow(3).sum() + abs(x).sum()", {"x": X6}),
    ("x.sum()", {"x": X6}),
]


def _paths(tree: Any, path: str) -> dict[str, Any]:
    return {f"{path}.{row}.{column}": value for row, columns in tree.items() for column, value in columns.items()}


def _compared(want: str, wanted: str, program: str, inputs: dict[str, Any], **fields: Any) -> dict[str, str]:
    """The forms in which the results came, after their numbers were compared with the dense ones."""
    dense = _paths(ask(program=program, inputs=inputs, want=[want], **fields).results[want], want)
    if wanted == "diagonal":
        square = {path: d for path, d in dense.items() if d.shape[: len(d.shape) // 2] == d.shape[len(d.shape) // 2 :]}
        if len(square) < len(dense):
            with pytest.raises(PullbackError) as refusal:
                ask(program=program, inputs=inputs, want=[want], format=wanted, **fields)
            assert refusal.value.code == "shape_mismatch"
            return {}
    answer = ask(program=program, inputs=inputs, want=[want], format=wanted, **fields)
    forms: dict[str, str] = answer.plan["formats"]
    notes = {note.at for note in answer.notes if note.code == "not_diagonal"}
    for path, result in _paths(answer.results[want], want).items():
        expected = array(dense[path])
        if wanted == "diagonal":
            size = int(np.prod(expected.shape[: expected.ndim // 2]))
            square_matrix = expected.reshape(size, size)
            np.testing.assert_allclose(array(result).reshape(-1), np.diag(square_matrix), rtol=1e-12, atol=0)
            assert path in notes or not (square_matrix - np.diag(np.diag(square_matrix))).any()
            continue
        rank = expected.ndim - np.ndim(inputs[path.rpartition(".")[2]])
        np.testing.assert_allclose(whole(result, forms[path], expected.shape, rank), expected, rtol=1e-12, atol=1e-300)
        assert isinstance(result, SparseData) == (forms[path] == "sparse")
        assert wanted != "sparse" or forms[path] == "sparse"
    return forms


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize(("program", "inputs"), PROGRAMS, ids=[p for p, _ in PROGRAMS])
def test_a_jacobian_in_every_form(program: str, inputs: dict[str, Any], wanted: str) -> None:
    for _ in range(2):  # the second time from what was kept of the first
        _compared("jacobian", wanted, program, inputs)


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize(("program", "inputs"), SCALARS, ids=[p for p, _ in SCALARS])
def test_a_hessian_in_every_form(program: str, inputs: dict[str, Any], wanted: str) -> None:
    for _ in range(2):
        _compared("hessian", wanted, program, inputs)


@pytest.mark.parametrize("wanted", FORMATS)
def test_a_batch_has_its_axis_first(wanted: str) -> None:
    x = RNG.standard_normal((5, 4))
    program = "x * x.roll(1, 0) + where(x > 0, x, x.flip(0))"
    dense = array(ask(program=program, inputs={"x": x}, want=["jacobian"], batched=("x",)).results["jacobian"]["output"]["x"])
    answer = ask(program=program, inputs={"x": x}, want=["jacobian"], batched=("x",), format=wanted)
    result = answer.results["jacobian"]["output"]["x"]
    if wanted == "diagonal":
        np.testing.assert_allclose(array(result), np.einsum("bii->bi", dense))
    else:
        assert result.shape == (5, 4, 4)
        np.testing.assert_allclose(whole(result, answer.plan["formats"]["jacobian.output.x"], dense.shape), dense)


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize("want", ["jacobian", "hessian"])
def test_a_large_batch_is_what_its_samples_are(want: str, wanted: str) -> None:
    """Small samples come all at once."""
    x = RNG.standard_normal((40, 6))
    program = "x * x.roll(1, 0) + exp(x)" if want == "jacobian" else "(x * x.roll(1, 0) + exp(x)).sum()"
    row = "output" if want == "jacobian" else "x"
    together = ask(program=program, inputs={"x": x}, want=[want, "outputs"], batched=("x",), format=wanted).results[want][row][
        "x"
    ]
    for sample in (0, 1, 39):
        alone = ask(program=program, inputs={"x": x[sample]}, want=[want], format=wanted).results[want][row]["x"]
        if isinstance(together, SparseData):
            here = array(together.indices)[0] == sample
            np.testing.assert_array_equal(array(together.indices)[1:, here], array(alone.indices))
            np.testing.assert_allclose(array(together.values)[here], array(alone.values))
        else:
            np.testing.assert_allclose(array(together)[sample], array(alone))


def test_the_samples_of_a_batch_may_have_other_patterns() -> None:
    x = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    answer = ask(program="x.sort()[0] * 2.0", inputs={"x": x}, want=["jacobian"], batched=("x",), format="sparse")
    result = answer.results["jacobian"]["output"]["x"]
    assert isinstance(result, SparseData)
    assert result.holds == "here"
    np.testing.assert_array_equal(array(result.indices), [[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], [1, 2, 0, 0, 1, 2]])


@pytest.mark.parametrize(
    ("program", "x", "dtype"),
    [
        ("x + 1e-5*(x.roll(1,0)-2*x+x.roll(-1,0))", np.linspace(0, 1, 200), "float32"),
        ("x + 1e-14*x.roll(1,0)", np.linspace(0, 1, 200), "float64"),
        ("x + x.flip(0)*0.5", np.linspace(-1, 1, 8), "bfloat16"),
        ("exp(x) + x.mean()", [-1.0, 0.0, 1.0, 40.0], "float64"),
        ("x * cat([ones(1) * 1e14, ones(7)]) + x.roll(1, 0)", np.linspace(-1, 1, 8), "float64"),
        ("x * exp(x.roll(1, 0) - 1000)", np.linspace(-1, 1, 8), "float64"),
        ("relu(x - 100) * 1.0 + relu(x.flip(0) - 100)", np.linspace(-1, 1, 8), "float64"),
        ("where(x > 5, x.flip(0), x)", np.linspace(-1, 1, 8), "float64"),
        ("fmax(x, x.flip(0) - 10)", np.linspace(-1, 1, 8), "float64"),
        ("x + x.flip(0) * 0", np.linspace(-1, 1, 8), "float64"),
        ("nansum(stack([x, x.flip(0) * 1e-30]), 0)", np.linspace(-1, 1, 8), "float32"),
        ("maximum(x, x.roll(1, 0) * 1e-3 - 5)", np.linspace(-1, 1, 8), "float32"),
    ],
)
def test_small_couplings_are_no_diagonal(program: str, x: Array, dtype: str) -> None:
    answer = ask(program=program, inputs={"x": x}, want=["jacobian"], format="auto", dtype=dtype)
    form = answer.plan["formats"]["jacobian.output.x"]
    assert form in ("sparse", "dense")
    dense = array(ask(program=program, inputs={"x": x}, want=["jacobian"], dtype=dtype).results["jacobian"]["output"]["x"])
    np.testing.assert_array_equal(whole(answer.results["jacobian"]["output"]["x"], form, dense.shape), dense)
    diagonal = ask(program=program, inputs={"x": x}, want=["jacobian"], format="diagonal", dtype=dtype)
    np.testing.assert_array_equal(array(diagonal.results["jacobian"]["output"]["x"]), np.diag(dense))
    assert [note.code for note in diagonal.notes] == ["not_diagonal"]


def test_the_hessian_of_rosenbrock_in_half_precision_is_tridiagonal() -> None:
    program = "(100*(x[1:]-x[:-1]**2)**2+(1-x[:-1])**2).sum()"
    x = np.linspace(-1, 1, 60)
    answer = ask(program=program, inputs={"x": x}, want=["hessian"], format="auto", dtype="bfloat16")
    assert answer.plan["formats"] == {"hessian.x.x": "sparse"}
    dense = array(ask(program=program, inputs={"x": x}, want=["hessian"], dtype="bfloat16").results["hessian"]["x"]["x"])
    result = answer.results["hessian"]["x"]["x"]
    assert isinstance(result, SparseData)
    np.testing.assert_array_equal(whole(result, "sparse", dense.shape), dense)
    assert (np.abs(np.subtract(*array(result.indices))) <= 1).all()
    assert result.holds == "everywhere"


@pytest.mark.parametrize(
    ("program", "holds"),
    [
        ("x * x.roll(1, 0)", "everywhere"),
        ("relu(x) + clamp(x.roll(1, 0), -1, 1)", "everywhere"),
        ("abs(x) * maximum(x, x.flip(0))", "everywhere"),
        ("x[arange(6).flip(0)]", "everywhere"),
        ("where(arange(6) > 2, x, x.flip(0))", "everywhere"),
        ("diag(arange(6) * 1.0) @ x", "everywhere"),
        ("x.sort()[0]", "here"),
        ("x.max().reshape(1) * ones(6)", "here"),
        ("x.topk(2)[0]", "here"),
        ("x.cummax(0)[0]", "here"),
        ("where(x > 0, x, x.flip(0))", "here"),
        ("x[x.argsort()]", "here"),
        ("x[i]", "here"),
        ("x.gather(0, i)", "here"),
        ("nn.functional.max_pool1d(x.reshape(1, 1, 6), 2)", "here"),
        ("median(x).reshape(1)", "here"),
        ("masked_select(x, x > 0)", "here"),
    ],
)
def test_a_pattern_that_hangs_on_values_holds_here(program: str, holds: str) -> None:
    inputs: dict[str, Any] = {"x": X6}
    if " i)" in program or "[i]" in program:
        inputs["i"] = np.array([0, 2, 4])
    answer = ask(program=program, inputs=inputs, wrt=("x",), want=["jacobian"], format="sparse")
    result = answer.results["jacobian"]["output"]["x"]
    assert isinstance(result, SparseData)
    assert result.holds == holds


@pytest.mark.parametrize(
    ("program", "holds"),
    [("(3 * x).sum()", "everywhere"), ("if x.sum() > 0:\n    return x.sum()\nreturn (x * x).sum()", "here")],
)
def test_a_hessian_of_zeros_holds_here_where_a_branch_made_it(program: str, holds: str) -> None:
    x = np.array([0.5, -0.25, 2.0])
    answer = ask(program=program, inputs={"x": x}, want=("hessian",), format="sparse")
    assert answer.results["hessian"]["x"]["x"].holds == holds
    assert not len(array(answer.results["hessian"]["x"]["x"].values))
    form = ask(program=program, inputs={"x": x}, want=("hessian",), format="auto").plan["formats"]["hessian.x.x"]
    assert form == ("diagonal" if holds == "everywhere" else "sparse")


def test_a_pattern_of_other_values_is_not_used_again() -> None:
    for x in ([3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 1.0]):
        result = ask(program="x.sort()[0]", inputs={"x": x}, want=["jacobian"], format="sparse").results["jacobian"]["output"][
            "x"
        ]
        np.testing.assert_array_equal(whole(result, "sparse", (3, 3)), np.eye(3)[np.argsort(x)])


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize(
    ("program", "shapes"),
    [
        ("x * x * 3", ((8,), (6,), (9,))),
        ("x.roll(1, 1) * x", ((2, 6), (3, 4), (4, 3))),
        ("tanh(x).cumsum(0)", ((4, 2), (2, 4))),
        ("softmax(x, 1) * x", ((2, 3), (3, 2), (2, 2))),
    ],
)
def test_a_pattern_of_other_extents_is_not_used_again(program: str, shapes: tuple[tuple[int, ...], ...], wanted: str) -> None:
    """One reading of a program serves all extents."""
    for shape in shapes:
        _compared("jacobian", wanted, program, {"x": RNG.standard_normal(shape)})


SEPARABLE = "a = (x * x * x).sum()\n"


@pytest.mark.parametrize("wanted", ["auto", "sparse"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize(
    "program",
    [
        "b = (x * x * x).sum() + 0.001 * x.sum() * (x * x).sum()\nreturn a, b",
        "b = (x * x).sum() * x.sum()\nreturn a, b",
        "b = x.prod()\nreturn a, b",
        "b = (x[1:] * x[:-1]).sum()\nreturn a, b",
        "b = x.sum()\nreturn b, a",
    ],
)
@pytest.mark.parametrize("first", ["a", "b"])
def test_a_hessian_of_another_output_has_its_own_layout(program: str, wanted: str, dtype: str, first: str) -> None:
    """One reading of a program serves all its outputs."""
    x, program = np.array([1.0, 2.0, 3.0]), SEPARABLE + program
    for of in (first, "ab".replace(first, "")):
        fields: dict[str, Any] = {"program": program, "inputs": {"x": x}, "want": ["hessian"], "of": of, "dtype": dtype}
        dense = ask(**fields).results["hessian"]["x"]["x"]
        answer = ask(**fields, format=wanted)
        result, form = answer.results["hessian"]["x"]["x"], answer.plan["formats"]["hessian.x.x"]
        tolerance = 0.02 if dtype == "bfloat16" else 1e-6
        np.testing.assert_allclose(whole(result, form, (3, 3)), array(dense), rtol=tolerance)
        assert not [note for note in answer.notes if note.code == "not_diagonal"]


def test_a_form_without_a_pattern_is_claimed_only_where_it_holds_everywhere() -> None:
    """sort of sorted numbers is the identity at this point."""
    answer = ask(program="x.sort()[0]", inputs={"x": np.arange(50.0)}, want=["jacobian"], format="auto")
    assert answer.plan["formats"] == {"jacobian.output.x": "sparse"}


@pytest.mark.parametrize(("program", "noted"), [("x.sort()[0]", True), ("x * x", False), ("where(x > 3, x, x * x)", False)])
def test_a_diagonal_that_values_made_says_so(program: str, noted: bool) -> None:
    answer = ask(program=program, inputs={"x": np.arange(50.0)}, want=["jacobian"], format="diagonal")
    assert ("here" in [note.code for note in answer.notes]) == noted


def test_each_output_and_input_has_its_own_form() -> None:
    program = 'return {"a": x ** 2, "b": x.sum() * y, "c": x.roll(1, 0) * x}'
    inputs = {"x": RNG.standard_normal(40), "y": RNG.standard_normal(40)}
    forms = _compared("jacobian", "auto", program, inputs)
    assert forms == {
        "jacobian.a.x": "diagonal", "jacobian.a.y": "diagonal", "jacobian.b.x": "dense", "jacobian.b.y": "diagonal",
        "jacobian.c.x": "sparse", "jacobian.c.y": "diagonal",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("want", "program", "shape", "passes"),
    [
        ("jacobian", "x + 1e-5*(x.roll(1,0)-2*x+x.roll(-1,0))", (100_000,), 4),
        ("hessian", "(100*(x[1:]-x[:-1]**2)**2+(1-x[:-1])**2).sum()", (100_000,), 3),
        ("hessian", "(x * x[0]).sum() + (x ** 3).sum()", (100_000,), 2),
        ("jacobian", "softmax(x, dim=1)", (10_000, 10), 10),
        ("jacobian", "x * x[0]", (100_000,), 2),
        ("jacobian", "x*x.roll(5, 0) + x.roll(-7, 0)", (100_000,), 8),
        (
            "jacobian",
            "p = nn.functional.pad(x, (1,1,1,1))\nreturn p[2:,1:-1]+p[:-2,1:-1]+p[1:-1,2:]+p[1:-1,:-2]-4*x",
            (300, 300),
            5,
        ),
    ],
)
def test_what_is_large_takes_a_few_passes(want: str, program: str, shape: tuple[int, ...], passes: int) -> None:
    answer = ask(program=program, inputs={"x": RNG.standard_normal(shape)}, want=[want], format="sparse")
    (count,) = answer.plan["colours"].values()
    assert count <= passes
    assert answer.plan["passes"] >= count


def test_many_long_passes_are_read_a_few_at_a_time() -> None:
    x = RNG.standard_normal(20_000)
    answer = ask(program="outer(x[:260], x[:260])", inputs={"x": x}, want=["jacobian"], format="sparse")
    jacobian = answer.results["jacobian"]["output"]["x"]
    i, j, k = array(jacobian.indices)
    assert len(i) == 2 * 260 * 260 - 260
    expected = np.where(i == k, x[j], 0) + np.where(j == k, x[i], 0)
    np.testing.assert_allclose(array(jacobian.values), expected)


def test_a_result_that_is_too_large_is_refused_before_it_is_made() -> None:
    limits = Limits(result_bytes=1 << 20)
    with pytest.raises(PullbackError) as refusal:
        ask(limits, program="x - x.mean()", inputs={"x": RNG.standard_normal(2000)}, want=["jacobian"], format="auto")
    assert refusal.value.code == "result_too_large"
    with pytest.raises(PullbackError) as refusal:
        ask(limits, program="x * x.roll(1, 0)", inputs={"x": RNG.standard_normal(30_000)}, want=["jacobian"], format="sparse")
    assert refusal.value.code == "result_too_large"
    assert "1,440,000" in refusal.value.detail
    both = {"x": RNG.standard_normal((4, 25_000)), "y": RNG.standard_normal((4, 25_000))}
    few = Limits(result_bytes=4 << 20)
    with pytest.raises(PullbackError) as refusal:  # of all inputs and samples together
        ask(few, program="x.exp() * y", inputs=both, want=["jacobian"], format="sparse", batched=("x", "y"))
    assert refusal.value.code == "result_too_large"


def test_zero_beats_not_a_number() -> None:
    """The derivative of sqrt at 0 is infinite, and what is off the diagonal stays zero."""
    result = ask(operation="sqrt", inputs={"input": [0.0, 4.0]}, want=["jacobian"], format="auto").results["jacobian"]["output"]
    np.testing.assert_array_equal(array(result["input"]), [np.inf, 0.25])


def test_the_hessian_of_an_own_backward_is_what_pytorch_makes_of_it_though_it_is_not_symmetric() -> None:
    text = """
class F(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        ctx.save_for_backward(a)
        return a.floor()
    @staticmethod
    def backward(ctx, g):
        (a,) = ctx.saved_tensors
        return g * a.flip(0)
h = F.apply(x * torch.cat([u, u]))
return (h * x).sum()
"""
    fields: dict[str, Any] = {"program": text, "inputs": {"x": X6, "u": X6[:3] + 1}, "want": ("hessian",)}
    dense = ask(**fields).results["hessian"]
    assert np.abs(array(dense["x"]["u"]) - array(dense["u"]["x"]).T).max() > 0.1, "not symmetric"
    for form in ("auto", "sparse"):
        answer = ask(**fields, format=form)
        for row in ("x", "u"):
            for column in ("x", "u"):
                expected = array(dense[row][column])
                result, came = answer.results["hessian"][row][column], answer.plan["formats"][f"hessian.{row}.{column}"]
                np.testing.assert_allclose(whole(result, came, expected.shape), expected, 1e-12, 1e-13)
