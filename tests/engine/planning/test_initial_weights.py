"""Weights that are not sent are those of this query, whatever was asked of its program before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.engine.engine import Engine
from app.engine.planning.build import Built
from app.engine.planning.replay.reading import Reading
from app.errors import PullbackError
from app.limits import Limits
from app.program.functions import load
from app.query import Query
from tests.engine.asking import Array, array, data

PROGRAM = """class M(nn.Module):
    def __init__(self, x):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2, 2) / 3 if x.is_floating_point() else torch.ones(2, 2))
    def forward(self, y):
        return self.w @ y
return M(x)(y) * x.sum()"""


@pytest.mark.parametrize("order", [(None, ("x",)), (("x",), None), (("x",), ("y",)), (("y",), ("x", "y"))])
def test_what_wrt_names_decides_the_dtypes_that_weights_are_made_by(
    order: tuple[tuple[str, ...] | None, tuple[str, ...] | None],
) -> None:
    """Bare whole numbers beside floating ones are floating where `wrt` names them."""

    def output(engine: Engine, wrt: tuple[str, ...] | None) -> Array:
        inputs = {"x": data([[1, 2], [3, 4]]), "y": data([1.5, 2.5])}
        query = Query(program=PROGRAM, inputs=inputs, want=("outputs",), wrt=wrt, seed=0)
        return array(engine.answer(query).results["outputs"]["output"])

    engine = Engine(Limits(), "cpu", load(None))
    for wrt in order:
        is_floating = wrt is not None and "x" in wrt
        np.testing.assert_allclose(output(engine, wrt), [40 / 3 if is_floating else 40.0] * 2, rtol=1e-6)


WEIGHTED = (
    "return nn.Linear(3, 4)(x).tanh().sum()",
    "model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))\ny = model(x)\nreturn (y / y.shape[0]).sum()",
    "m = nn.Linear(3, 4)\ny = m(x)[1:]\nif y.shape[0] > 2:\n    w = nn.Linear(4, 2)\nelse:\n    w = nn.Linear(4, 3)\nreturn w(y).sum()",
    "y = x[2:]\nw = nn.Parameter(torch.ones(3) if len(y) > 2 else torch.zeros(3))\nreturn (y * w).exp().sum()",
    "w = nn.Parameter(torch.ones(len(x)))\nreturn (w @ x).sum()",
    "y = x[:4].squeeze()\nw = nn.Linear(3, 2)\nreturn w(y).sum() + y.dim()",
    "return nn.Linear(3, 4)(x.view(-1, 6)[:, :3] @ torch.ones(3, 3).double()).sum()",
    "return nn.LayerNorm(3)(x @ x.T).sum()",
    "return F.dropout(nn.Linear(3, 4)(x), 0.5).sum()",
)


@pytest.mark.parametrize("text", WEIGHTED)
def test_a_program_with_weights_is_answered_alike_after_others_of_it(text: str) -> None:
    def answer(engine: Engine, rows: int) -> object:
        query = Query(
            program=text, inputs={"x": data(np.linspace(-1, 1, 3 * rows).reshape(rows, 3))}, want=("gradient",), seed=0
        )
        try:
            result = engine.answer(query)
        except PullbackError as error:
            return error.code, error.detail, error.at, error.given, error.fix
        gradients = {name: array(value).tolist() for name, value in result.results["gradient"].items()}
        return gradients, result.notes, result.plan

    engine = Engine(Limits(), "cpu", load(None))
    for rows in (2, 6, 4, 1, 3, 8, 5):
        assert answer(engine, rows) == answer(Engine(Limits(), "cpu", load(None)), rows)


def test_the_steps_of_a_program_with_weights_run_once_for_a_new_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0
    run = Reading.run

    def counted(reading: Reading, *args: Any) -> Built | None:
        nonlocal runs
        runs += 1
        return run(reading, *args)

    monkeypatch.setattr(Reading, "run", counted)
    engine = Engine(Limits(), "cpu", load(None))
    for rows in (2, 3, 4):
        runs = 0
        inputs = {"x": data(np.ones((rows, 3)))}
        engine.answer(Query(program=WEIGHTED[1], inputs=inputs, want=("gradient",), seed=0))
        assert runs == (rows > 2)
