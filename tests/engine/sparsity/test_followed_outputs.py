"""Patterns that are followed while a program is read are those that its steps give when they run for themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from app.engine.engine import Engine
from app.engine.sparsity.dependence import dependences
from app.errors import PullbackError
from app.limits import Limits
from app.program.function import Function
from app.program.functions import load
from app.query import Query
from tests.engine.asking import data
from tests.oracle.structured_programs import SIZE, looking_program, real_program

LIMIT = 1 << 20
PROGRAMS = 40


def query_of(text: str, seed: int = 0) -> Query:
    rng = np.random.default_rng(seed)
    return Query(program=text, inputs={"x": data(rng.normal(size=SIZE))}, want=("jacobian",), format="sparse", seed=1)


def engine() -> Engine:
    return Engine(Limits(), "cpu", load(None))


@pytest.mark.parametrize("make", [real_program, looking_program])
def test_patterns_of_the_reading_are_those_of_a_run(make: Callable[[int], str]) -> None:
    followed = 0
    for seed in range(PROGRAMS):
        query = query_of(make(seed), seed)
        try:
            prepared = engine().prepared(query)
        except PullbackError:  # PyTorch refuses the program
            continue
        if prepared.patterns is None or not prepared.function.static:
            continue
        function, outputs = prepared.function, prepared.function.outputs
        (sent,) = query.inputs.values()
        leaves = {"x": torch.frombuffer(sent.data, dtype=torch.float64)}  # type: ignore[union-attr]

        def run(at: Mapping[str, Tensor], function: Function = function) -> Sequence[Tensor]:
            return function.call(at["x"])

        expected = dependences(run, leaves, ("x",), LIMIT, differentiates=False, operations=function.operations())
        known = prepared.patterns.dependences(outputs, ("x",), LIMIT)
        if known is None:
            assert any(one["x"].pattern.is_full for one in expected), query.program
            continue
        followed += 1
        for one, other in zip(known, expected, strict=True):
            assert (one["x"].pattern.matrix != other["x"].pattern.matrix).nnz == 0, query.program
            assert one["x"].values == other["x"].values, query.program
    assert followed > PROGRAMS // 4


@pytest.mark.parametrize(
    "text",
    [
        "x.detach() * x",
        "nn.functional.dropout(x, 0.5) * x",
        "x[torch.randperm(6)]",
        "torch.func.grad(lambda u: (u * u).sum())(x)",
        "class Cut(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, u):\n        return u * 2\n    @staticmethod\n"
        "    def backward(ctx, g):\n        return g.roll(1, 0)\nreturn Cut.apply(x)",
    ],
)
def test_what_other_steps_differentiate_is_not_followed(text: str) -> None:
    assert engine().prepared(query_of(text)).patterns is None


def test_patterns_of_one_point_serve_its_query_alone() -> None:
    ours = engine()
    text = "x[x.argsort()] * x.roll(1, 0)"
    assert ours.prepared(query_of(text)).patterns is not None
    assert ours.prepared(query_of(text, 3)).patterns is None
