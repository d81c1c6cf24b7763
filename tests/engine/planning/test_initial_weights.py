"""Weights that are not sent are those of this query, whatever was asked of its program before."""

from __future__ import annotations

import numpy as np
import pytest

from app.engine.engine import Engine
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
