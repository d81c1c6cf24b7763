"""Each kind of derivative against a closed form, its fallbacks, and its refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import PullbackError
from app.limits import Limits
from app.query import Want
from tests.engine.asking import array, ask, results, whole

X = [0.3, -1.2, 2.0]
MATRIX = [[2.0, 0.5], [0.5, 1.0]]


def softmax(x: list[float]) -> np.ndarray:
    e = np.exp(np.array(x) - np.max(x))
    return np.asarray(e / e.sum())


def test_one_forward_serves_all() -> None:
    p = softmax(X)
    jacobian = np.diag(p) - np.outer(p, p)
    answered = results(
        operation="softmax",
        inputs={"input": X},
        parameters={"dim": 0},
        want=["outputs", "vjp", "jvp", "jacobian"],
        cotangent={"output": [1.0, 2.0, 3.0]},
        tangent={"input": [1.0, 0.0, -1.0]},
    )
    np.testing.assert_allclose(answered["outputs"]["output"], p)
    np.testing.assert_allclose(answered["vjp"]["input"], jacobian @ [1, 2, 3], atol=1e-15)
    np.testing.assert_allclose(answered["jvp"]["output"], jacobian @ [1, 0, -1], atol=1e-15)
    np.testing.assert_allclose(answered["jacobian"]["output"]["input"], jacobian, atol=1e-15)


def test_several_cotangents_and_tangents_at_once() -> None:
    answered = results(
        operation="softmax",
        inputs={"input": X},
        parameters={"dim": 0},
        want=["vjp", "jvp", "jacobian"],
        cotangent={"output": np.eye(3)},
        tangent={"input": np.eye(3)},
    )
    np.testing.assert_allclose(answered["vjp"]["input"], answered["jacobian"]["output"]["input"], atol=1e-15)
    np.testing.assert_allclose(answered["jvp"]["output"].T, answered["jacobian"]["output"]["input"], atol=1e-15)


def test_hessian_hvp_and_gradient_of_a_quadratic_form() -> None:
    answered = results(
        program="0.5 * x @ a @ x",
        inputs={"x": [1.0, -2.0], "a": MATRIX},
        wrt=("x",),
        want=["gradient", "hessian", "hvp"],
        tangent={"x": [3.0, 1.0]},
    )
    np.testing.assert_allclose(answered["gradient"]["x"], np.array(MATRIX) @ [1, -2])
    np.testing.assert_allclose(answered["hessian"]["x"]["x"], MATRIX)
    np.testing.assert_allclose(answered["hvp"]["x"], np.array(MATRIX) @ [3, 1])


def test_hessian_across_inputs() -> None:
    answered = results(program="(x * y ** 2).sum()", inputs={"x": [2.0], "y": [3.0]}, want=["hessian"])["hessian"]
    assert answered["x"]["x"].ravel() == [0.0]
    assert answered["x"]["y"].ravel() == answered["y"]["x"].ravel() == [6.0]
    assert answered["y"]["y"].ravel() == [4.0]


def test_the_hessian_of_a_linear_function_is_zero() -> None:
    answered = results(operation="sum", inputs={"input": X}, want=["hessian", "hvp"], tangent={"input": X})
    assert not answered["hessian"]["input"]["input"].any()
    assert not answered["hvp"]["input"].any()


def test_fisher_is_the_mean_of_outer_products() -> None:
    answered = results(program="w * x", inputs={"w": 2.0, "x": X}, wrt=("w",), want=["fisher", "fisher_diagonal"])
    np.testing.assert_allclose(answered["fisher"]["w"], [[np.mean(np.square(X))]])
    np.testing.assert_allclose(answered["fisher_diagonal"]["w"], np.mean(np.square(X)))


def test_lists_of_tensors_have_gradients_by_index() -> None:
    answered = results(
        operation="cat", inputs={"tensors": ([1.0, 2.0], [3.0])}, want=["vjp"], cotangent={"output": [5.0, 6.0, 7.0]}
    )
    np.testing.assert_array_equal(answered["vjp"]["tensors.0"], [5, 6])
    np.testing.assert_array_equal(answered["vjp"]["tensors.1"], [7])


def test_outputs_that_carry_no_derivative_are_left_alone() -> None:
    answered = results(
        operation="max",
        inputs={"input": [[1.0, 5.0], [7.0, 2.0]]},
        parameters={"dim": 1},
        want=["outputs", "vjp", "jacobian"],
        cotangent={"values": [10.0, 20.0]},
    )
    np.testing.assert_array_equal(answered["outputs"]["indices"], [1, 0])
    np.testing.assert_array_equal(answered["vjp"]["input"], [[0, 10], [20, 0]])
    assert set(answered["jacobian"]) == {"values"}


@pytest.mark.parametrize(
    ("operation", "parameters", "wanted"),
    [
        ("exp", {}, "diagonal"),
        ("softmax", {"dim": 1}, "block"),
        ("softmax", {"dim": 0}, "dense"),
        ("flip", {"dims": (0,)}, "sparse"),
    ],
)
def test_the_form_is_proved(operation: str, parameters: dict[str, object], wanted: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3))
    auto = ask(operation=operation, inputs={"input": x}, parameters=parameters, want=["jacobian"], format="auto")
    path = "jacobian.output.input"
    assert auto.plan["formats"] == {path: wanted}
    dense = results(operation=operation, inputs={"input": x}, parameters=parameters, want=["jacobian"])["jacobian"]["output"][
        "input"
    ]
    np.testing.assert_allclose(whole(auto.results["jacobian"]["output"]["input"], wanted, dense.shape), dense, atol=1e-14)


def test_the_diagonal_of_what_is_not_diagonal_is_given_with_a_note() -> None:
    answer = ask(operation="softmax", inputs={"input": X}, parameters={"dim": 0}, want=["jacobian"], format="diagonal")
    p = softmax(X)
    np.testing.assert_allclose(array(answer.results["jacobian"]["output"]["input"]), p * (1 - p))
    assert [note.code for note in answer.notes] == ["not_diagonal"]


def test_a_diagonal_hessian() -> None:
    answer = ask(program="(x ** 4).sum()", inputs={"x": X}, want=["hessian"], format="auto")
    np.testing.assert_allclose(array(answer.results["hessian"]["x"]["x"]), 12 * np.square(X))
    assert answer.plan["formats"] == {"hessian.x.x": "diagonal"}


def test_forward_mode_missing_falls_back_and_says_so() -> None:
    """grid_sample has no forward mode in PyTorch: jvp is reverse mode applied twice, or differences, and the note says which."""
    rng = np.random.default_rng(0)
    image, grid = rng.standard_normal((1, 1, 4, 4)), rng.uniform(-0.8, 0.8, (1, 2, 2, 2))
    tangent = rng.standard_normal(grid.shape)
    query: dict[str, Any] = {"operation": "nn.functional.grid_sample", "parameters": {"align_corners": True}, "wrt": ("grid",)}
    answer = ask(**query, inputs={"input": image, "grid": grid}, want=["jvp"], tangent={"grid": tangent})
    assert {note.code for note in answer.notes} & {"fallback", "finite_differences"}
    h = 1e-6
    ahead, behind = (
        results(**query, inputs={"input": image, "grid": grid + s * h * tangent}, want=["outputs"])["outputs"]["output"]
        for s in (1, -1)
    )
    np.testing.assert_allclose(array(answer.results["jvp"]["output"]), (ahead - behind) / (2 * h), atol=1e-8)


def test_differences_of_half_precision_are_taken_in_float64() -> None:
    """PyTorch has no derivative of i1 in half precision; differences of its own numbers would have no digit right."""
    x, tangent = np.array([0.5, 4.0, 8.5], np.float16), np.array([1.0, -0.5, 2.0], np.float16)
    answer = ask(operation="special.i1", inputs={"input": x}, want=["jvp"], tangent={"input": tangent})
    assert "finite_differences" in {note.code for note in answer.notes}
    wide = results(
        operation="special.i1", inputs={"input": x.astype(float)}, want=["jvp"], tangent={"input": tangent.astype(float)}
    )
    jvp = array(answer.results["jvp"]["output"])
    assert jvp.dtype == np.float16
    np.testing.assert_allclose(jvp, wide["jvp"]["output"], rtol=2e-3)


def test_the_jacobian_of_complex_numbers_made_of_bfloat16() -> None:
    """There are none of bfloat16: the result is complex64, and so is its derivative."""
    for form in ("dense", "auto", "sparse"):
        answer = ask(
            program="complex(x.float(), 2 * x.float())",
            inputs={"x": [1.0, 2.0]},
            dtype="bfloat16",
            want=["jacobian"],
            format=form,
        )
        matrix = answer.results["jacobian"]["output"]["x"]
        np.testing.assert_allclose(
            whole(matrix, answer.plan.get("formats", {}).get("jacobian.output.x", form), (2, 2)), np.eye(2) * (1 + 2j)
        )


def test_a_non_finite_derivative_is_answered_and_its_step_named() -> None:
    answer = ask(program="a = x * 2\nb = sqrt(a)\nreturn b.sum()", inputs={"x": [0.0, 2.0]}, want=["gradient"])
    np.testing.assert_array_equal(array(answer.results["gradient"]["x"]), [np.inf, 0.5])
    (note,) = [note for note in answer.notes if note.code == "non_finite"]
    assert "line 2" in note.message
    assert "sqrt" in note.message


def test_a_disconnected_input_is_zero_with_a_note() -> None:
    answer = ask(program="(x ** 2).sum() + y.detach().sum()", inputs={"x": X, "y": X}, want=["gradient"])
    assert not array(answer.results["gradient"]["y"]).any()
    assert ("disconnected", "y") in [(note.code, note.at) for note in answer.notes]


def test_integers_are_promoted_where_a_derivative_needs_it() -> None:
    assert results(operation="square", inputs={"input": [1, 2]}, want=["vjp"])["vjp"]["input"].dtype == np.float64
    answered = results(
        operation="index_select", inputs={"input": [5, 6, 7], "index": [2, 0]}, parameters={"dim": 0}, want=["outputs", "vjp"]
    )
    np.testing.assert_array_equal(answered["outputs"]["output"], [7.0, 5.0])
    np.testing.assert_array_equal(answered["vjp"]["input"], [1.0, 0.0, 1.0])
    assert results(operation="bitwise_and", inputs={"input": [6], "other": [3]})["outputs"]["output"].dtype == np.int64


def test_whole_numbers_beside_floating_ones_are_promoted_where_pytorch_refuses_them() -> None:
    """A browser writes 1.0 as 1."""
    image, kernel = np.arange(9).reshape(1, 1, 3, 3), [[[[0.5, 0.0], [0.0, 0.25]]]]
    answered = results(operation="nn.functional.conv2d", inputs={"input": image, "weight": kernel}, want=["outputs", "vjp"])
    np.testing.assert_allclose(answered["outputs"]["output"], [[[[1.0, 1.75], [3.25, 4.0]]]])
    assert set(answered["vjp"]) == {"input", "weight"}
    answered = results(operation="nn.functional.cross_entropy", inputs={"input": [[0.5, 1.5]], "target": [1]}, want=["vjp"])
    assert set(answered["vjp"]) == {"input"}


def test_compute_in_another_dtype() -> None:
    answered = results(operation="exp", inputs={"input": X}, dtype="float32", want=["outputs", "vjp"])
    assert answered["outputs"]["output"].dtype == np.float32
    assert answered["vjp"]["input"].dtype == np.float32


def test_random_operations_need_a_seed_and_repeat() -> None:
    query: dict[str, Any] = {
        "operation": "nn.functional.dropout",
        "inputs": {"input": np.ones(64)},
        "parameters": {"p": 0.5},
        "want": ["outputs", "vjp"],
    }
    with pytest.raises(PullbackError, match="seed"):
        ask(**query)
    first, second, other = results(**query, seed=1), results(**query, seed=1), results(**query, seed=2)
    np.testing.assert_array_equal(first["outputs"]["output"], second["outputs"]["output"])
    np.testing.assert_array_equal(first["outputs"]["output"], first["vjp"]["input"])
    assert (first["outputs"]["output"] != other["outputs"]["output"]).any()


@pytest.mark.parametrize(
    "text",
    [
        "F.scaled_dot_product_attention(x, x, x, dropout_p=0.5).sum()",
        "w = torch.empty(8, 8)\nnn.init.xavier_uniform_(w)\nreturn (x @ w).sum()",
    ],
)
def test_programs_that_draw_need_a_seed_and_repeat(text: str) -> None:
    query: dict[str, Any] = {"program": text, "inputs": {"x": np.linspace(0, 3, 64).reshape(8, 8)}, "want": ["outputs"]}
    with pytest.raises(PullbackError, match="seed"):
        ask(**query)
    first, *others = [results(**query, seed=seed)["outputs"]["output"] for seed in (1, 1, 1, 1, 2)]
    assert [bool((first == other).all()) for other in others] == [True, True, True, False]


@pytest.mark.parametrize("kinds", [["outputs", "gradient", "vjp", "jvp", "hvp"], ["hessian", "jacobian"]])
def test_batched_equals_one_by_one(kinds: list[str]) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((5, 3)), rng.standard_normal(3)
    query = {"program": "tanh((x * w).sum()) * x[0]", "want": kinds, "wrt": ("x", "w")}
    together = results(**query, inputs={"x": x, "w": w}, batched=("x",))
    for index in range(5):
        alone = results(**query, inputs={"x": x[index], "w": w})
        _same(together, alone, index)


def _same(together: Any, alone: Any, index: int) -> None:
    if isinstance(alone, dict):
        for key in alone:
            _same(together[key], alone[key], index)
    else:
        np.testing.assert_allclose(together[index], alone, atol=1e-12)


def test_batched_cotangents_are_one_a_sample() -> None:
    x, c = np.random.default_rng(0).standard_normal((2, 4, 3))
    answered = results(operation="exp", inputs={"input": x}, batched=("input",), want=["vjp"], cotangent={"output": c})
    np.testing.assert_allclose(answered["vjp"]["input"], c * np.exp(x))


@pytest.mark.parametrize(
    ("query", "code", "at"),
    [
        ({"operation": "argmax", "inputs": {"input": X}, "want": ["vjp"]}, "not_differentiable", "outputs.output"),
        ({"operation": "exp", "inputs": {"input": X}, "want": ["gradient"]}, "not_scalar", "outputs.output"),
        ({"operation": "exp", "inputs": {"input": X}, "want": ["vjp"], "cotangent": {"output": [1.0]}}, "bad_cotangent", "cotangent.output"),
        ({"operation": "exp", "inputs": {"input": X}, "want": ["vjp"], "cotangent": {"out": X}}, "bad_cotangent", "cotangent.out"),
        ({"operation": "exp", "inputs": {"input": X}, "want": ["jvp"], "tangent": {"x": X}}, "bad_cotangent", "tangent.x"),
        ({"operation": "exp", "inputs": {"input": X}, "want": ["vjp"], "wrt": ("x",)}, "bad_parameter", "wrt"),
        ({"operation": "exp", "inputs": {"input": X}, "batched": ("x",)}, "bad_parameter", "batched"),
        ({"operation": "exp", "inputs": {"input": X}, "want": ["check"], "expected": {"output": X}}, "bad_parameter", "expected.output"),
        (
            {"operation": "exp", "inputs": {"input": X}, "want": ["check", "jvp"], "tangent": {"input": X}, "expected": {"input": X}},
            "bad_parameter",
            "expected",
        ),
        ({"operation": "exp", "inputs": {"input": 1.0}, "batched": ("input",)}, "shape_mismatch", "inputs.input"),
        ({"operation": "bitwise_not", "inputs": {"input": [1, 2]}, "want": ["check"]}, "not_differentiable", "inputs"),
        (
            {"operation": "exp", "inputs": {"input": [X, X]}, "batched": ("input",), "want": ["jvp"], "tangent": {"input": [X, X, X]}},
            "bad_cotangent",
            "tangent.input",
        ),
        ({"operation": "exp", "inputs": {"input": X}, "want": ["fisher"], "of": "nope"}, "bad_parameter", "of"),
        ({"operation": "matmul", "inputs": {"input": MATRIX, "other": X}}, "shape_mismatch", "inputs"),
        ({"operation": "linalg.inv", "inputs": {"A": np.zeros((2, 2))}}, "operation_failed", "inputs"),
        ({"operation": "exp", "inputs": {"input": np.zeros((2, 2))}, "want": ["fisher"]}, "not_scalar", "outputs.output"),
        ({"operation": "tanh", "inputs": {"input": np.zeros(100_000)}, "want": ["jacobian"]}, "result_too_large", "want.jacobian"),
        ({"operation": "outer", "inputs": {"input": np.zeros(100_000), "vec2": np.zeros(100_000)}}, "result_too_large", "want.outputs"),
    ],
)  # fmt: skip
def test_refusals_say_where(query: dict[str, Any], code: str, at: str | None) -> None:
    with pytest.raises(PullbackError) as caught:
        ask(**query)
    assert (caught.value.code, caught.value.at) == (code, at)
    assert caught.value.status in (413, 422)


def test_too_costly_is_refused_with_the_numbers() -> None:
    with pytest.raises(PullbackError, match="floating-point operations") as caught:
        ask(Limits(flops=1e6), operation="matmul", inputs={"input": np.zeros((300, 300)), "other": np.zeros((300, 300))})
    assert caught.value.code == "too_costly"
    with pytest.raises(PullbackError, match="bytes at the peak") as caught:
        ask(Limits(memory_bytes=1 << 20), program="(x[:, None] * x).sum()", inputs={"x": np.zeros(1000)})
    assert caught.value.code == "too_costly"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_forward_and_reverse_jacobians_agree_at_every_shape(rows: int, columns: int, seed: int) -> None:
    """tanh(x @ w): whichever mode the plan takes, the closed form comes out."""
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal(rows), rng.standard_normal((rows, columns))
    answered = results(program="tanh(x @ w)", inputs={"x": x, "w": w}, wrt=("x",), want=["jacobian"])["jacobian"]["output"]["x"]
    np.testing.assert_allclose(answered, (1 - np.tanh(x @ w)[:, None] ** 2) * w.T, atol=1e-13)


def test_a_long_chain_of_values_needs_no_memory_for_all_of_them() -> None:
    """Without a derivative, each step's value is freed after its last use, and the plan knows that."""
    text = "for i in range(50):\n    x = x @ w\nreturn x.sum()"
    inputs = {"x": np.zeros((64, 64)), "w": np.zeros((64, 64))}
    limits = Limits(memory_bytes=10 * 64 * 64 * 8)
    assert ask(limits, program=text, inputs=inputs).plan["peak_bytes"] < limits.memory_bytes
    with pytest.raises(PullbackError, match="bytes at the peak"):
        ask(limits, program=text, inputs=inputs, want=["gradient"])


def test_the_way_out_of_an_input_without_a_derivative_is_another_than_what_was_wanted() -> None:
    inputs = {"x": [[1.0, 2.0], [3.0, 5.0]], "m": [0.0, 0.0], "v": [1.0, 1.0]}
    program = "torch.nn.functional.batch_norm(x, m, v, training=True).sum()"
    with pytest.raises(PullbackError) as refused:
        ask(want=("explain", "check", "gradient"), program=program, inputs=inputs)
    assert '"explain" alone' in str(refused.value.fix)


@pytest.mark.parametrize(
    ("program", "fix"),
    [
        ("x.gather(0, k + 2)", "indices from 0 to 2"),
        ("x.index_copy(0, k[:1] + 9, x[:1])", "indices from 0 to 2"),
        ("F.one_hot(k, 1)", "larger num_classes"),
        ("x[x > 99].max()", "an element along the axis"),
    ],
)
@pytest.mark.parametrize("want", ["outputs", "vjp"])
def test_the_way_out_of_a_value_that_does_not_fit_is_no_other_shape(program: str, fix: str, want: Want) -> None:
    with pytest.raises(PullbackError) as refused:
        ask(want=(want,), program=program, inputs={"x": [1.0, 2.0, 3.0], "k": [0, 1]})
    assert fix in str(refused.value.fix), refused.value.fix


def test_what_is_believed_but_not_checked_is_said() -> None:
    query: dict[str, Any] = {"program": "(x ** 2).sum()", "inputs": {"x": X}, "expected": {"x": X}}
    for want, codes in ((["gradient"], ["ignored"]), (["gradient", "check"], [])):
        assert [note.code for note in ask(**query, want=want).notes] == codes
