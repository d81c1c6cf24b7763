"""A sample of the sweep over explain's reports: `python -m tests.oracle.explain_sweep` asks all of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from app.errors import PullbackError
from tests.oracle import explain_points
from tests.oracle.explain_points import AskedPoint
from tests.oracle.explain_sweep import Slope, complaints, slope

# Of each kind so many, evenly spread: together some seconds.
SAMPLE: dict[str, tuple[int, int]] = {"of_programs": (14, 20), "of_pointwise_functions": (106, 15)}


def points() -> Iterator[AskedPoint]:
    for kind, (every, count) in SAMPLE.items():
        yield from itertools.islice(getattr(explain_points, kind)(), 0, every * count, every)


def test_no_report_of_the_sample_is_contradicted() -> None:
    asked, contradicted = 0, {}
    for point in points():
        try:
            reasons = complaints(point)
        except PullbackError:
            continue
        asked += 1
        if reasons:
            contradicted[point.title] = reasons
    assert asked > 20
    assert not contradicted


@pytest.mark.parametrize(
    ("rises", "value"),
    [
        ([(h, h**2 + 3 * h) for h in (0.1, 0.01, 0.001, 0.0001)], 3.0),
        ([(-h, abs(h)) for h in (0.1, 0.01, 0.001, 0.0001)], -1.0),
    ],
)
def test_slopes_settle(rises: list[tuple[float, float]], value: float) -> None:
    settled = slope(rises, 1e-16)
    assert abs(settled.value - value) < 1e-6
    assert settled.is_(value, 1.0)
    assert settled.is_not(value + 1, 1.0)


def test_a_slope_that_runs_away_does_not() -> None:
    assert not slope([(h, h**0.5) for h in (0.1, 0.01, 0.001, 0.0001)], 1e-16).is_not(5.0, 5.0)
    assert not Slope(1.0, 1.0).is_(1.0, 1.0)
