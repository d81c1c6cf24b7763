"""The log's lines: times as they were always written, and digits that do not depend on how they are rounded."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from app.front.observability.log import milliseconds
from app.front.observability.log_lines import stamp


@given(st.floats(0, 4e9))
@example(1e9 + 0.9999999)
@example(0.9996)
@example(1795295999.9999996)
def test_a_time_is_that_of_the_calendar(now_s: float) -> None:
    written = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert stamp(now_s) == written


@given(st.integers(0, 10**12))
def test_milliseconds_have_three_digits(microseconds: int) -> None:
    assert milliseconds(microseconds / 1e6) == round(microseconds / 1e3, 3)
