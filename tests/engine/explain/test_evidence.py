"""Steps that jump at whole numbers: where they do, and where numbers are too far apart."""

from __future__ import annotations

import pytest

from app.engine.explain.evidence import is_at_jump, is_coarse, period_of
from app.engine.stepwise.point import Point
from app.engine.stepwise.trace import trace_steps
from tests.engine.building import program, tensors


@pytest.mark.parametrize(
    ("text", "x", "period", "jump", "coarse"),
    [
        ("floor(x)", 3.0, 1.0, True, False),
        ("floor(x)", 3.5, 1.0, False, False),
        ("frac(x)", 1e180, 1.0, True, True),
        ("x % 0.5", 1.5, 0.5, True, False),
        ("fmod(x, tensor(2.0))", 3.0, 2.0, False, False),
        ("round(x)", 1e17, 1.0, False, True),
        ("round(x, decimals=2)", 1.0, 0.01, False, False),
    ],
)
def test_period_and_jumps(text: str, x: float, period: float, jump: bool, coarse: bool) -> None:
    leaves = tensors({"x": [x]})
    trace = trace_steps(Point(program(text, leaves), leaves, None))
    record = trace.records[-1]
    own = period_of(trace, record)
    assert own is not None
    assert own.tolist() == pytest.approx([period])
    assert (is_at_jump(record, own).tolist(), is_coarse(record, own).tolist()) == ([jump], [coarse])


def test_other_steps_have_no_period() -> None:
    leaves = tensors({"x": [1.0]})
    trace = trace_steps(Point(program("2 % x", leaves), leaves, None))
    assert period_of(trace, trace.records[-1]) is None
