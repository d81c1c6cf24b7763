"""A sample of the points of which explain and check must say the same: `python -m tests.oracle.agreement_sweep` asks all of them."""

from __future__ import annotations

import itertools

from app.errors import PullbackError
from tests.engine.asking import ask
from tests.oracle.agreement_sweep import contradictions, every

SAMPLE = 14  # of some 460 points each so many one: some seconds together


def test_explain_and_check_agree() -> None:
    asked, against = 0, {}
    for point in itertools.islice(every(), 0, None, SAMPLE):
        try:
            words = contradictions(point)
        except PullbackError:
            continue
        asked += 1
        if words:
            against[point.title] = words
    assert asked > 25
    assert not against


def test_an_element_that_another_is_nearly_tied_with_is_looked_at_from_near() -> None:
    verdict = ask(program="x.median()", inputs={"x": [0.0, 1e9, -1e-9]}, want=["check"]).results["check"]["x"]
    assert verdict["agrees"] is True
