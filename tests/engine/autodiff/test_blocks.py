"""The product with the whole guards what a pattern leaves out: where it disagrees, neither the pattern nor its form is used."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch

from app.engine.autodiff.blocks import Block, Matrices
from app.engine.autodiff.layout_cache import LayoutCache
from app.engine.autodiff.passes import jacobian_passes
from app.engine.computation import Computation
from app.engine.notes import Notes
from app.engine.sparsity.dependence import Dependence
from app.engine.sparsity.pattern import PatternSpace
from app.engine.sparsity.storage import Values
from app.limits import Limits
from app.query import Query
from tests.engine.asking import ENGINE, Array, ask, data, whole

X = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(("wanted", "form"), [("auto", "dense"), ("sparse", "sparse"), ("diagonal", "diagonal")])
def test_a_wrong_pattern_decides_no_form(wanted: Literal["auto", "sparse", "diagonal"], form: str) -> None:
    """The pattern says of a full matrix that it is diagonal."""
    query = Query(program="x * x.sum()", inputs={"x": data(X)}, want=("jacobian",), format=wanted)
    leaves = {"x": torch.from_numpy(X)}
    computation = Computation(query, ENGINE.prepared(query), leaves, Notes(), Limits(), LayoutCache(1 << 20))
    evaluation, request = computation.evaluation, computation.layout_request
    wrong = {("output", "x"): Dependence(PatternSpace(3, 100).identity(0, 3), Values())}
    matrices = Matrices(evaluation, request, "jacobian", None, lambda: wrong)
    block = Block(
        "output", "x", evaluation.outputs["output"], evaluation.inputs[0], False,
        lambda forward: jacobian_passes(evaluation, "output", "x", True, forward=forward),
    )  # fmt: skip
    matrices.result(block)
    assert request.report.forms == {"jacobian.output.x": form}
    assert len(request.report.indices("jacobian.output.x")[0]) == 9
    assert ["not_diagonal"] * (wanted == "diagonal") == [note.code for note in computation.notes.all()]


@pytest.mark.parametrize("wanted", ["dense", "auto", "sparse"])
@pytest.mark.parametrize(
    ("program", "inputs", "wrt", "right"),
    [
        (
            "nn.functional.embedding(i, w, padding_idx=0)[:, 0]",
            {"w": [[1.0], [2.0]], "i": [0, 1, 0]},
            "w",
            [[0, 0], [0, 1], [0, 0]],
        ),
        ("x.clamp(min=x.min() + y)", {"x": [1.0, 1.0, 4.0], "y": 0.0}, "y", [[0], [0], [0]]),
        ("x.clamp(max=y)", {"x": [1.0, 0.0, -1.0], "y": 0.0}, "y", [[1], [0], [0]]),
    ],
    ids=["padding", "a minimum", "a maximum"],
)
def test_where_the_modes_disagree_every_form_has_what_reverse_mode_gives(
    program: str, inputs: dict[str, Any], wrt: str, right: list[list[int]], wanted: Literal["dense", "auto", "sparse"]
) -> None:
    """Forward mode has fewer passes, ignores `padding_idx` and gives a bound the ties."""
    answer = ask(program=program, inputs=inputs, wrt=(wrt,), want=("jacobian",), format=wanted)
    form = answer.plan.get("formats", {}).get(f"jacobian.output.{wrt}", "dense")
    shape = (3, *np.shape(inputs[wrt]))
    got: Array = whole(answer.results["jacobian"]["output"][wrt], form, shape, 1)
    assert got.reshape(3, -1).tolist() == right
