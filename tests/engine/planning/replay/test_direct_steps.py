"""Steps that are run without a mode cost what a mode counts, for whatever sizes and strides."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from app.engine.planning.replay.direct_steps import direct
from app.engine.planning.replay.same_ranks import SameRanks
from app.protocols.native import native_query
from app.query import Query
from tests.engine.planning.replay.test_same_ranks import anew, assert_the_same, parts

POINTWISE = [
    "x + y", "x - y", "x * y", "x / y", "2 + x", "2 - x", "2 * x", "x - 2", "x / 3", "x ** 2", "x.pow(0.5)", "-x",
    "x + x.T.T * 2.5",
]  # fmt: skip
ALONE = [
    "torch.tanh(x)", "x.exp()", "F.relu(x)", "F.gelu(x)", "x.sigmoid()", "x.abs().sqrt()", "torch.erf(x)", "x.sum()", "x.mean()", "x.norm()",
    "torch.log1p(x.abs())", "x.sum(dim=0)", "x.sum(1, keepdim=True)", "x.mean((0, 1))", "torch.softmax(x, 0)", "x.log_softmax(dim=-1)",
]  # fmt: skip
PRODUCTS = ["x @ y.T", "x @ y[0]", "x[0] @ y.T", "x[0] @ y[0]", "torch.matmul(x.t(), y)", "F.linear(x, y, x[:, 0])", "x.T @ x"]
VIEWS = [
    "x.t()", "x.transpose(0, 1)", "x.unsqueeze(0)", "x[0]", "x[:, 1:]", "x[..., None, -1]", "x.view(len(x), 1, -1)",
    "x.permute(1, 0)", "x[:, 1:] * 2",
]  # fmt: skip


@pytest.mark.parametrize("expression", POINTWISE + ALONE + PRODUCTS + VIEWS)
def test_what_runs_directly_costs_what_a_mode_counts(expression: str) -> None:
    def query(rows: int, columns: int) -> Query:
        value = torch.linspace(0.1, 1, rows * columns, dtype=torch.float64).reshape(rows, columns).tolist()
        program = f"a = {expression}\nx, y = x.T, y.T\nb = {expression}\nreturn a, b"
        return native_query.query({"program": program, "inputs": {"x": value, "y": value}})

    known, first = SameRanks(), anew(query(3, 3))
    assert first is not None
    known.learn(query(3, 3), parts(query(3, 3))[0], first)
    steps = [node for node in first.function.graph.nodes if node.op == "call_function"]
    assert any(direct(node) is not None for node in steps)
    assert sum(assert_the_same(known, query(size, size)) for size in (2, 3, 4, 9)) == 4
    for rows, columns in ((1, 1), (4, 2), (1, 5), (5, 1)):
        assert_the_same(known, query(rows, columns))


@pytest.mark.parametrize(
    "expression", ["x[x > 0]", "x[[0, 1]]", "torch.sum(x, 0, dtype=torch.float32)", "2 / x", "x @ x @ x.unsqueeze(0)"]
)
def test_what_calls_more_than_one_kernel_is_watched(expression: str) -> None:
    built = anew(native_query.query({"program": f"return {expression}", "inputs": {"x": [[1.5, 2.0], [3.0, 4.0]]}}))
    assert built is not None
    last = [node for node in built.function.graph.nodes if node.op == "call_function"][-1]
    assert direct(last) is None


@pytest.mark.parametrize(
    "text", ["return x.repeat(4, 40) @ x.repeat(4, 40).T", "y = x @ x.T\nfor _ in range(4):\n    y = y @ y\nreturn y"]
)
def test_what_would_make_much_is_left_to_fakes(text: str) -> None:
    def query(rows: int) -> Query:
        value: Any = [[0.01] * 8] * rows
        return native_query.query({"program": text, "inputs": {"x": value}})

    known, first = SameRanks(), anew(query(2))
    assert first is not None
    known.learn(query(2), parts(query(2))[0], first)
    assert known.built(query(3), *parts(query(3))) is not None
    assert known.built(query(500), *parts(query(500))) is None
