"""Batches are confirmed sample by sample: no sample, not only the first, may differ from its own answer without running alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from app.engine import confirmation
from app.engine.autodiff.freivalds import UncertifiedError
from tests.engine.asking import array, ask, results

GENERATOR = np.random.default_rng(7)
TIED = np.array([[1.0, 2.0, 3.0], [0.0, 2.0, 3.0], [0.0, 0.0, 3.0]])
MATRICES = np.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]], [[2.0, 1.0], [1.0, 3.0]]])
# Sample 0 is ordinary; the others are at points where PyTorch's rules part.
BATCHES: dict[str, dict[str, Any]] = {
    "scatter_reduce": {
        "operation": "scatter_reduce",
        "inputs": {"input": np.ones((3, 2)), "index": np.tile(np.array([0, 0, 1]), (3, 1)), "src": TIED},
        "parameters": {"dim": 0, "reduce": "prod"},
    },
    "determinant": {"operation": "linalg.det", "inputs": {"input": MATRICES}},
    "cdist": {"operation": "cdist", "inputs": {"x1": GENERATOR.normal(size=(3, 4, 2)), "x2": GENERATOR.normal(size=(3, 5, 2))}},
    "product": {"program": "x.prod()", "inputs": {"x": TIED}},
    "running product": {"program": "x.cumprod(0)", "inputs": {"x": TIED}},
    "norm": {"program": "x.norm()", "inputs": {"x": TIED * [[1.0], [0.0], [1.0]]}},
    "root": {"program": "sqrt(x).sum()", "inputs": {"x": TIED}},
    "branch": {"program": "where(x > 0, log(x), x).sum()", "inputs": {"x": TIED - 1}},
    "maximum": {"program": "x.max()", "inputs": {"x": np.array([[1.0, 2.0], [2.0, 2.0], [0.0, 1.0]])}},
    "quotient": {"program": "(x / x.sum()).norm()", "inputs": {"x": np.array([[1.0, 2.0], [1.0, -1.0], [3.0, 1.0]])}},
    "loss": {"program": "((x * w).sum() - 1) ** 2", "inputs": {"x": TIED, "w": TIED + 0.5}},
    "exponential": {"program": "exp(x).sum()", "inputs": {"x": TIED * [[1.0], [300.0], [1e-9]]}},
}
SCALAR = ("determinant", "product", "norm", "root", "branch", "maximum", "quotient", "loss", "exponential")


def alone(query: Mapping[str, Any], kind: str) -> list[Any]:
    rows = []
    for index in range(len(next(iter(query["inputs"].values())))):
        one = {**query, "inputs": {name: value[index] for name, value in query["inputs"].items()}}
        for vector in ("cotangent", "tangent"):
            if vector in one:
                one[vector] = {name: value[index] for name, value in one[vector].items()}
        rows.append(results(**{**one, "want": [kind]})[kind])
    return rows


def same(together: Any, alone: Any, index: int) -> None:
    if isinstance(alone, Mapping):
        for key, value in alone.items():
            same(together[key], value, index)
        return
    np.testing.assert_allclose(together[index], alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["gradient", "vjp", "jvp", "jacobian", "hessian"])
@pytest.mark.parametrize("name", BATCHES)
def test_every_sample_is_what_it_is_alone(name: str, kind: str) -> None:
    if kind in ("gradient", "hessian") and name not in SCALAR:
        pytest.skip("its output is not one number")
    query = dict(BATCHES[name])
    floating = {n: value for n, value in query["inputs"].items() if value.dtype == np.float64}
    if kind == "jvp":
        query["tangent"] = {n: GENERATOR.normal(size=value.shape) for n, value in floating.items()}
    together = results(**{**query, "batched": tuple(query["inputs"]), "want": [kind]})[kind]
    for index, row in enumerate(alone(query, kind)):
        same(together, row, index)


@pytest.mark.parametrize("kind", ["gradient", "jacobian", "hessian", "vjp", "jvp"])
def test_ordinary_batches_need_no_fallback(kind: str) -> None:
    query: dict[str, Any] = {
        "program": "tanh(x @ w).square().sum()",
        "inputs": {"x": GENERATOR.normal(size=(6, 3)), "w": GENERATOR.normal(size=(6, 3))},
    }
    if kind == "jvp":
        query["tangent"] = {"x": GENERATOR.normal(size=(6, 3)), "w": GENERATOR.normal(size=(6, 3))}
    answer = ask(**query, batched=("x", "w"), want=[kind])
    assert "fallback" not in [note.code for note in answer.notes]


def test_half_precision_is_judged_against_float64() -> None:
    x = GENERATOR.normal(size=(5, 4))
    answer = ask(program="(x * x * 3).sum()", inputs={"x": x}, batched=("x",), dtype="float16", want=["gradient"])
    assert "fallback" not in [note.code for note in answer.notes]
    half = x.astype(np.float16)
    np.testing.assert_allclose(array(answer.results["gradient"]["x"]), half * np.float16(6), rtol=4e-3)


@pytest.mark.parametrize("wrong", [1e-6, float("nan"), float("inf")])
def test_a_wrong_element_of_any_sample_is_seen(wrong: float) -> None:
    rows = torch.rand(4, 3, dtype=torch.float64)
    right = rows.clone()
    confirmation._compare(rows, right, rows.abs(), 1e-12)
    # Beside a sample a billion times larger, too.
    rows[0] *= 1e9
    right[0] *= 1e9
    rows[2, 1] += wrong
    with pytest.raises(UncertifiedError):
        confirmation._compare(rows, right, rows.abs(), 1e-12)


def test_inputs_shared_by_the_samples() -> None:
    x, w = GENERATOR.normal(size=(5, 3)), GENERATOR.normal(size=(3,))
    answer = ask(
        program="sin(x @ w)", inputs={"x": x, "w": w}, batched=("x",), want=["gradient", "jvp"], tangent={"x": x, "w": w}
    )
    assert "fallback" not in [note.code for note in answer.notes]
    np.testing.assert_allclose(array(answer.results["gradient"]["w"]), np.cos(x @ w)[:, None] * x)


@pytest.mark.parametrize("kind", ["jacobian", "vjp", "jvp"])
@pytest.mark.parametrize(
    "query",
    [
        {"operation": "linalg.lu", "inputs": {"A": MATRICES}},
        {"operation": "linalg.det", "inputs": {"input": np.zeros((3, 0, 0))}},
        {"program": 'return {"a": x * 2, "b": w * 3}', "inputs": {"x": TIED, "w": TIED}, "wrt": ("x",)},
    ],
    ids=["an output without a derivative", "empty matrices", "an output of another input"],
)
def test_a_batch_has_the_results_of_one_sample(query: dict[str, Any], kind: str) -> None:
    together = results(**query, batched=tuple(query["inputs"]), want=[kind])[kind]
    one = results(**{**query, "inputs": {name: value[0] for name, value in query["inputs"].items()}}, want=[kind])[kind]
    assert together.keys() == one.keys()
    same(together, one, 0)
