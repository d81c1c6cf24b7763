"""Proofs go on step by step, each to its end or to its failure, and one that fails holds up no other."""

from __future__ import annotations

from collections.abc import Iterator

from app.engine.joint.proofs import Came, Proofs


def test_steps_of_several_proofs() -> None:
    ends: list[tuple[str, bool]] = []

    def steps(count: int, *, fails: bool) -> Iterator[None]:
        for _ in range(count):
            yield
        if fails:
            raise RuntimeError

    proofs = Proofs()
    assert not proofs.step()
    proofs.add(steps(2, fails=True), lambda is_done: ends.append(("first", is_done)), 0)
    proofs.add(steps(1, fails=False), lambda is_done: ends.append(("second", is_done)), 0)
    assert [proofs.step() for _ in range(4)] == [True, True, True, False]
    assert ends == [("first", False), ("second", True)]


def test_what_came_is_kept_once_and_only_in_part() -> None:
    proofs, came = Proofs(), Came(8, is_brief=True)
    for number in range(8):
        assert not came.is_enough
        is_due = proofs.note(came, (number // 2,), 0.001)
    assert is_due
    assert came.sets == [(2,), (3,)]
    assert proofs.release(came) == [(2,), (3,)]
    assert not came.is_enough, "it begins anew"


def test_what_is_large_or_takes_long_is_not_proved() -> None:
    assert Came.of(8 << 20, 0, is_brief=False) is None
    came = Came.of(8, 0, is_brief=False)
    assert came is not None
    for _ in range(8):
        assert not came.is_too_long
        came.note((1,), 2.0)
    assert came.is_too_long


def test_numbers_that_are_kept_and_proofs_that_are_due_are_bounded() -> None:
    proofs = Proofs()
    arrivals = [Came(1 << 20, is_brief=False) for _ in range(9)]
    for came in arrivals:
        for number in range(7):
            proofs.note(came, (number,), 0.001)
    assert [bool(came.sets) for came in arrivals] == [False] * 5 + [True] * 4, "the oldest went, for 16 MiB"
    assert proofs.note(arrivals[-1], (9,), 0.001)
    proofs.add(iter([None]), lambda _: None, arrivals[-1].bytes)
    assert proofs.note(arrivals[-2], (9,), 0.001)
    proofs.add(iter([None]), lambda _: None, 12 << 20)
    assert not proofs.note(arrivals[-3], (9,), 0.001), "it waits until there is room"
    while proofs.step():
        pass
    assert proofs.note(arrivals[-3], (9,), 0.001)
    assert not proofs.note(arrivals[0], (9,), 0.001), "forgotten, so that it comes for the first time"
