"""Whole numbers that float64 cannot hold are not rounded in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.engine.kinds import KINDS
from app.engine.planning.prepare import Preparer
from app.errors import PullbackError
from app.limits import Limits
from app.program.functions import load
from app.protocols.native import native_query
from app.query import Query
from tests.engine.asking import arrays, ask
from tests.engine.planning.replay.test_same_ranks import parts


@pytest.mark.parametrize(
    ("numbers", "rounded"), [([2**53 + 1], True), ([-(2**62) - 1, 3], True), ([2**53, 2**60], False), ([4, 9], False)]
)
def test_promotion_says_what_it_rounds(numbers: list[int], rounded: bool) -> None:
    notes = ask(operation="maximum", inputs={"input": np.array(numbers), "other": np.array([1])}, want=["outputs"]).notes
    assert ("rounded" in [note.code for note in notes]) == rounded


def test_a_list_of_one_is_not_the_tensor_of_its_dotted_name() -> None:
    text = "return xs[0] * 2"
    for _ in range(2):
        ask(program=text, inputs={"xs": (np.ones(2),)}, want=["outputs"])
    for length in (2, 3):
        with pytest.raises(PullbackError, match="xs"):
            ask(program=text, inputs={"xs.0": np.ones(length)}, want=["outputs"])


def test_what_may_not_be_used_again_pushes_nothing_out() -> None:
    text = "y = x\nfor i in range(x.shape[0]):\n    y = y * x[i]\nreturn y.sum()"
    query = {"program": text, "inputs": {"x": [[0.5, 2.0]] * 2}, "want": ["outputs"]}
    first = native_query.query(query)
    preparer = Preparer(Limits(), "cpu", load(None), {kind: row.demand for kind, row in KINDS.items()})
    preparer.prepared(first)
    for rows in range(3, 12):
        preparer.prepared(native_query.query({**query, "inputs": {"x": [[0.5, 2.0]] * rows}, "want": ["precision"]}))
    assert preparer._same_ranks.built(first, *parts(first)) is not None


def test_of_long_programs_fewer_are_kept() -> None:
    def query(number: int, columns: int) -> Query:
        text = f"y = x\nfor i in range({steps}):\n    y = y * 0.5 + {number}\nreturn y"
        return native_query.query({"program": text, "inputs": {"x": [0.5] * columns}, "want": ["outputs"]})

    preparer = Preparer(Limits(), "cpu", load(None), {kind: row.demand for kind, row in KINDS.items()})
    steps = 900  # 1,800 nodes: some 5 MB of 32
    for number in range(9):
        preparer.prepared(query(number, 2))
    plans = preparer.plans
    preparer.prepared(query(8, 2))
    assert preparer.plans == plans
    preparer.prepared(query(0, 2))
    assert preparer.plans == plans + 1
    assert [preparer._same_ranks.built(query(n, 3), *parts(query(n, 3))) is None for n in (1, 8)] == [True, False]


TRIED = {
    "try:\n    y = torch.linalg.cholesky(torch.diag(x - 2)).sum() * x\nexcept RuntimeError:\n    y = x * 2\nreturn y": ([1.0, 2, 3], [3.0, 4, 4.5]),
    "try:\n    y = torch.arange(5.0)[x.long()] * x\nexcept IndexError:\n    y = x * 2\nreturn y": ([1.0, 2, 9], [3.0, 4, 4]),
    "try:\n    y = F.one_hot(x.long(), 5) * 3.0\nexcept RuntimeError:\n    y = torch.zeros(3, 5)\nreturn y": ([1.0, 2, 9], [3.0, 4, 4]),
    "try:\n    y = torch.arange(4.0, dtype=x.dtype).quantile(x)\nexcept RuntimeError:\n    y = x * 2\nreturn y": ([0.5, 2, 1], [0.5, 0.25, 1]),
    "try:\n    y = x.long() // (x.long() - 2) * x\nexcept RuntimeError:\n    y = x * 2\nreturn y": ([1.0, 2, 3], [3.0, 4, 5]),
    "try:\n    y = F.gaussian_nll_loss(x, x, x - 2, reduction='none')\nexcept ValueError:\n    y = x * 2\nreturn y": ([1.0, 2, 3], [3.0, 4, 5]),
}  # fmt: skip


@pytest.mark.parametrize("text", TRIED)
def test_what_a_try_gives_for_some_values_answers_no_others(text: str) -> None:
    def outputs(value: list[float] | list[list[float]], **more: Any) -> list[float]:
        answer = ask(program=text, inputs={"x": np.array(value)}, want=["outputs"], **more)
        (result,) = arrays(answer.results["outputs"]).values()
        return [float(number) for number in result.ravel()]

    raising, running = TRIED[text]
    fallback, tried, again = outputs(raising), outputs(running), outputs(raising)
    assert fallback == again == ([2 * value for value in raising] if "zeros" not in text else [0.0] * 15)
    assert tried not in (fallback, [2 * value for value in running])
    assert outputs([running, running], batched=("x",)) == tried * 2
    for samples in ([raising, running], [running, raising]):
        with pytest.raises(PullbackError, match="different branches"):
            outputs(samples, batched=("x",))
