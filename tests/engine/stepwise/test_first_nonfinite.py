"""The step that first made something non-finite: the one whose own share it is, not another that uses the same tensor."""

from __future__ import annotations

import pytest
import torch

from app.engine.stepwise.first_nonfinite import broken_derivative, broken_value
from app.engine.stepwise.point import Point, step_of
from app.engine.stepwise.trace import trace_steps
from tests.engine.asking import ask
from tests.engine.building import program, tensors


def test_a_value() -> None:
    leaves = tensors({"x": [0.0, 1.0]})
    trace = trace_steps(Point(program("a = log(x)\nb = a * 2\nb", leaves), leaves, None))
    broken = broken_value(trace, trace.values.keys())
    assert broken is not None
    step = step_of(broken[0].node)
    assert step is not None
    assert step.text == "a = log(x)"


def test_what_is_finite_is_not_broken() -> None:
    leaves = tensors({"x": [1.0, 2.0]})
    trace = trace_steps(Point(program("sqrt(x).sum()", leaves), leaves, None))
    assert broken_value(trace, trace.values.keys()) is None
    assert broken_derivative(trace, trace.backward({trace.outputs[0]: torch.ones((), dtype=torch.float64)})) is None


@pytest.mark.parametrize(
    "text", ["h = x * 1\na = sqrt(h)\nb = h * 3\n(a + b).sum()", "h = x * 1\nb = h * 3\na = sqrt(h)\n(a + b).sum()"]
)
def test_of_two_steps_that_use_a_tensor_the_broken_one_is_named(text: str) -> None:
    answer = ask(program=text, inputs={"x": [0.0, 1.0]}, want=("gradient",))
    (note,) = [note for note in answer.notes if note.code == "non_finite"]
    assert "`a = sqrt(h)`" in note.message
