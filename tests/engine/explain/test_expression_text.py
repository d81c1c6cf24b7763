"""Steps as text: what a loop's turns are written as is bounded, however many there are."""

from __future__ import annotations

import pytest

from app.engine.explain.expression_text import TooLongError, call_text, expression, written
from app.engine.stepwise.point import Point
from app.engine.stepwise.trace import StepTrace, trace_steps
from tests.engine.building import explained, program, tensors


def _traced(text: str) -> StepTrace:
    inputs = tensors({"x": [0.5, 0.7]})
    return trace_steps(Point(program(text, inputs), inputs, 0))


@pytest.mark.parametrize("step", ["y * y - y", "-y", "y + 1"])
def test_the_turns_of_a_loop_are_not_written_out(step: str) -> None:
    trace = _traced(f"y = x\nfor i in range(400):\n    y = {step}\nreturn y.sum()")
    node = trace.records[-3].node
    assert written(trace, node) == "y"
    assert expression(trace, (node, 0)) is None
    with pytest.raises(TooLongError):
        call_text(trace, node, {})


def test_what_is_short_is_written_out() -> None:
    trace = _traced("for i in range(2):\n    y = (x[0] * 2 - sin(-x)) ** 2\nreturn y.sum()")
    assert written(trace, trace.records[-2].node) == "y"
    assert call_text(trace, trace.records[-2].node, {}) == "((x[0] * 2) - sin((-x))) ** 2"


def test_a_step_that_each_turn_cuts_is_explained() -> None:
    report = explained("y, s = x, 0\nfor i in range(60):\n    y = y * y - y\n    s = s + y.detach().sum()\nreturn s", x=[0.5])
    assert report["inputs"]["x"]["verdict"] == "disconnected"
