"""When a computation is recorded, and when its replay is used; here without a GPU, with a recorder that stands for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from app.engine.cuda.graphs import Computation, Repetition, Replay

RUNS = 40


class Recorder:
    """What a recorder gives: results in memory that each replay overwrites. `altered`: what becomes of a result on its way."""

    def __init__(self, altered: Callable[[Tensor], Tensor] = torch.clone) -> None:
        self.altered = altered
        self.recorded = self.replayed = 0

    def record(self, compute: Computation) -> Replay | None:
        self.recorded += 1
        static = [torch.empty_like(value) for value in compute() or ()]

        def replay() -> Sequence[Tensor]:
            self.replayed += 1
            for held, value in zip(static, compute() or (), strict=True):
                held.copy_(self.altered(value))
            return static

        return replay


def repeated(recorder: Recorder) -> list[bool]:
    """Whether each of some runs gave what is right for the numbers that stood there."""
    x = torch.empty(3, dtype=torch.float64)
    repetition = Repetition(lambda: [x.sin(), torch.full((2,), torch.nan)], recorder.record)
    right = []
    for run in range(RUNS):
        x.fill_(run)
        results = repetition.run()
        assert results is not None
        right.append(torch.equal(results[0], x.sin()) and bool(results[1].isnan().all()))
    return right


def test_what_repeats_is_recorded_once_and_replayed() -> None:
    recorder = Recorder()
    assert all(repeated(recorder))
    assert recorder.recorded == 1
    assert 0 < recorder.replayed < RUNS


@pytest.mark.parametrize(
    "altered", [lambda value: value * (1 + 2**-52), lambda value: -value.abs()], ids=["one bit", "another sign"]
)
def test_a_replay_that_gives_other_bits_is_never_used(altered: Callable[[Tensor], Tensor]) -> None:
    recorder = Recorder(altered)
    assert all(repeated(recorder))
    assert (recorder.recorded, recorder.replayed) == (1, 1)


def test_what_cannot_be_recorded_is_asked_for_once() -> None:
    asked: list[Computation] = []
    repetition = Repetition(lambda: [torch.zeros(1)], lambda compute: asked.append(compute))
    for _ in range(RUNS):
        assert repetition.run() is not None
    assert len(asked) == 1


def test_results_that_came_another_way_are_not_counted() -> None:
    recorder = Recorder()
    repetition = Repetition(lambda: None, recorder.record)
    assert [repetition.run() for _ in range(RUNS)] == [None] * RUNS
    assert recorder.recorded == 0
