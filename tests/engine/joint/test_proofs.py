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
    proofs.add(steps(2, fails=True), lambda is_done: ends.append(("first", is_done)))
    proofs.add(steps(1, fails=False), lambda is_done: ends.append(("second", is_done)))
    assert [proofs.step() for _ in range(4)] == [True, True, True, False]
    assert ends == [("first", False), ("second", True)]


def test_what_came_is_kept_once_and_only_in_part() -> None:
    came = Came()
    for number in range(8):
        assert not came.is_enough
        came.note((number // 2,))
    assert came.is_enough
    assert came.sets == [(0,), (1,), (2,), (3,)]
