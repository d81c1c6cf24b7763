"""Counts of several fronts as those of one."""

from __future__ import annotations

from app.group.counts import lasting, together


def test_each_number_comes_together_by_its_rule() -> None:
    first = {"cqueries": 3, "gwaiting": 2, "<started": 10.0, ">last": 5.0}
    second = {"cqueries": 4, "gwaiting": 1, "<started": 20.0, ">last": 7.0, "crefused": 1}
    expected = {"cqueries": 7, "gwaiting": 3, "<started": 10.0, ">last": 7.0, "crefused": 1}
    assert together((first, second)) == together((second, first)) == expected
    assert together(()) == {}


def test_what_a_front_had_counted_outlives_it() -> None:
    assert lasting({"cqueries": 3, "gwaiting": 2, "<started": 10.0, ">last": 5.0}) == {"cqueries": 3}
