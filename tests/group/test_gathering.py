"""Gathering: the sum of what all fronts have counted, whoever answers, dies or is silent meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.group.board import Board
from app.group.front_process import FrontProcess
from app.group.gathering import Gatherings
from app.group.messages import Line, line


class Fronts:
    """Three of them: their processes as the parent has them, and their ends of the lines."""

    def __init__(self) -> None:
        board = Board(3)
        self.ends: list[Line] = []
        self.processes: dict[int, FrontProcess] = {}
        for index in range(3):
            parent_line, front_line = line()
            self.ends.append(front_line)
            front = self.processes[index] = FrontProcess(index, 0, parent_line, board)
            front.is_up = True
            front.counts = {"cqueries": 1, "gwaiting": 1}
        self.gatherings = Gatherings(self.processes)

    def answer(self, index: int, number: int | None, queries: int) -> None:
        self.processes[index].counts = {"cqueries": queries, "gwaiting": 1}
        self.gatherings.answered(self.processes[index], number)

    def asked(self, index: int) -> int:
        message = self.ends[index].heard()
        assert message is not None
        assert message["say"] == "count"
        number: int = message["number"]
        return number

    def sum_at(self, index: int) -> dict[str, float]:
        message = self.ends[index].heard()
        assert message is not None
        assert (message["say"], message["number"]) == ("counts", 7)
        counts: dict[str, float] = message["counts"]
        return counts


@pytest.fixture
def fronts() -> Iterator[Fronts]:
    fronts = Fronts()
    yield fronts
    for end in (*fronts.ends, *(front.line for front in fronts.processes.values())):
        end.close()


def test_the_sum_comes_when_all_have_answered(fronts: Fronts) -> None:
    fronts.gatherings.begin(fronts.processes[0], 7, 100.0)
    number = fronts.asked(1)
    assert fronts.asked(2) == number
    fronts.answer(2, number, 20)
    fronts.answer(1, None, 5)  # of itself, which answers nothing
    with pytest.raises(BlockingIOError):
        fronts.ends[0].heard()
    fronts.answer(1, number, 10)
    assert fronts.sum_at(0) == {"cqueries": 31, "gwaiting": 3}


def test_of_one_that_dies_its_counters_stay(fronts: Fronts) -> None:
    fronts.gatherings.begin(fronts.processes[0], 7, 100.0)
    number = fronts.asked(1)
    fronts.answer(1, number, 10)
    dead = fronts.processes.pop(2)
    fronts.gatherings.lost(dead)
    assert fronts.sum_at(0) == {"cqueries": 12, "gwaiting": 2}
    # And in what is asked later.
    fronts.gatherings.begin(fronts.processes[0], 7, 101.0)
    fronts.answer(1, fronts.asked(1), 10)
    assert fronts.sum_at(0) == {"cqueries": 12, "gwaiting": 2}
    dead.line.close()


def test_of_one_that_is_silent_its_last_word_counts(fronts: Fronts) -> None:
    fronts.gatherings.begin(fronts.processes[0], 7, 100.0)
    fronts.answer(1, fronts.asked(1), 10)
    assert 0 < fronts.gatherings.left_s(100.0) <= 2.0
    fronts.gatherings.round(110.0)
    assert fronts.sum_at(0) == {"cqueries": 12, "gwaiting": 3}
    # Its answer comes at last, when nobody waits for it.
    fronts.answer(2, 1, 50)


def test_an_asker_that_dies_is_told_nothing(fronts: Fronts) -> None:
    fronts.gatherings.begin(fronts.processes[0], 7, 100.0)
    dead = fronts.processes.pop(0)
    fronts.gatherings.lost(dead)
    fronts.answer(1, fronts.asked(1), 10)
    fronts.answer(2, fronts.asked(2), 10)
    with pytest.raises(BlockingIOError):
        fronts.ends[0].heard()
    dead.line.close()
