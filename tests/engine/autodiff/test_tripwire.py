"""An entry that a pattern leaves out is seen in the product with the whole; what rounding leaves there is not taken for one."""

from __future__ import annotations

import logging
from unittest import TestCase

import numpy as np
import pytest
import torch

from app.engine.autodiff.layout_cache import LayoutCache
from app.engine.autodiff.passes import jacobian_passes
from app.engine.autodiff.tripwire import agrees
from app.engine.computation import Computation
from app.engine.notes import Notes
from app.engine.sparsity.compression import diagonal_compression
from app.engine.sparsity.layout import Layout
from app.limits import Limits
from app.query import Query
from tests.engine.asking import ENGINE, ask, data

SIZE = 40
# Where large terms cancel, and where PyTorch leaves 1e-31 in the place of a zero of second derivatives.
DUSTY = (
    ("y = special.erfcx(x * x.max())\nreturn y.view(2, -1).softmax(1).view(-1)", "jacobian"),
    ("y = 1e-14 * x\nr = y.scatter_reduce(0, torch.tensor([2, 2, 4, 4, 0, 3]), y, 'prod')\nreturn (r * x.detach()).sum()", "hessian"),
    ("y = softmax(300 * x, 0)\nreturn torch.cat([y[:3], x[3:]]).roll(1, 0)", "jacobian"),
)  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_an_entry_left_out_is_seen(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(SIZE, SIZE)) * (rng.random((SIZE, SIZE)) < 0.15) * 10.0 ** rng.integers(-3, 3, size=(SIZE, SIZE))
    rows, columns = np.nonzero(weights)
    computation = _computation(
        Query(program="m @ x", inputs={"x": data(np.ones(SIZE)), "m": data(weights)}, wrt=("x",), want=("jacobian",))
    )
    passes = jacobian_passes(computation.evaluation, "output", "x", True, forward=False)
    large = np.flatnonzero(np.abs(weights[rows, columns]) > 0.1 * np.abs(weights).sum(0)[columns])
    for left_out in (None, *rng.choice(large, 3, replace=False)):
        others = [k for k in range(len(rows)) if k != left_out]
        layout = Layout(
            "sparse",
            0,
            True,
            True,
            diagonal_compression(1),
            None,
            torch.from_numpy(rows[others]),
            torch.from_numpy(columns[others]),
        )
        values = torch.from_numpy(weights[rows[others], columns[others]])
        assert agrees(layout, passes, (values, None)) == (left_out is None)


def _computation(query: Query) -> Computation:
    prepared = ENGINE.prepared(query)
    leaves = {name: torch.frombuffer(t.data, dtype=torch.float64).reshape(t.shape) for name, t in query.inputs.items()}  # type: ignore[union-attr]
    return Computation(query, prepared, leaves, Notes(), Limits(), LayoutCache(1 << 20))


@pytest.mark.parametrize(("program", "want"), DUSTY)
def test_rounding_is_no_bug(program: str, want: str) -> None:
    x = np.random.default_rng(1035).normal(size=6)
    with TestCase().assertNoLogs(level=logging.WARNING):
        for point in (x, 3 * x, -np.abs(x), np.abs(x)):
            ask(program=program, inputs={"x": point}, want=(want,), format="sparse")


def test_a_hessian_that_is_nothing_but_rounding() -> None:
    """layer_norm does not change where a number is added to a row: in float32 what is left of zero is 1e-7."""
    rng = np.random.default_rng(157)
    m, u, k = (rng.normal(size=size).astype(np.float32) for size in ((5, 4), (5, 1), (5, 4)))
    program = "y = nn.functional.layer_norm(m + u, [4])\nreturn (y.roll((1, 2), (0, 1)) * k).sum()"
    with TestCase().assertNoLogs(level=logging.WARNING):
        ask(program=program, inputs={"m": m, "u": u, "k": k}, want=("hessian",), wrt=("m", "u"), format="sparse")
