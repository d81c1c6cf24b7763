"""Steps that bend, and what moves them: of a loop in a few backward passes."""

from __future__ import annotations

import pytest
import torch

from app.engine.explain.differences.suspects import Suspects
from app.engine.explain.evidence import evidence_at
from app.engine.stepwise.point import Points
from app.engine.stepwise.trace import StepTrace
from tests.engine.building import explained, program


@pytest.mark.parametrize("x", [[1.0, -2.0], [0.0, -2.0]])
def test_backward_passes_do_not_grow_with_the_turns_of_a_loop(monkeypatch: pytest.MonkeyPatch, x: list[float]) -> None:
    passes, backward = [0], StepTrace.backward

    def counted(self: StepTrace, *args: object) -> object:
        passes[0] += 1
        return backward(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(StepTrace, "backward", counted)
    explained("for i in range(40):\n    x = where(x > 0, x * 0.9, x * 1.1)\nx.sum()", x=x)
    assert passes[0] < 15


def test_the_first_of_many_steps_that_an_element_moves() -> None:
    text = "y = x.sum() * 0\nfor i in range(9):\n    y = y + relu(x[i])\ny"
    leaves = {"x": torch.zeros(9, dtype=torch.float64)}
    suspects = Suspects(evidence_at(Points(program(text, leaves), leaves).wide), "x")
    assert len(suspects.records) == 9
    assert bool(suspects.moved_by(suspects.records).all())
    alone = [suspects.moved_by([record]).nonzero().reshape(-1).tolist() for record in suspects.records]
    assert alone == [[i] for i in range(9)]
    assert [suspects.first([i, 8], suspects.records) for i in range(9)] == list(suspects.records)
    assert suspects.first([0], suspects.records[1:]) is None


def test_what_is_right_in_each_turn_is_said_once() -> None:
    findings = explained("for i in range(5):\n    x = x - relu(x) + relu(x)\nx.sum()", x=[0.0, 1.0])["inputs"]["x"]["findings"]
    assert len(findings) == 2  # of two calls
