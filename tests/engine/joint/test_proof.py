"""Joint graphs and stacks are used only where they have the same bits, and take less time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from app.engine.joint.proof import Batching, Joint, prove
from app.engine.joint.recording import same_bits


def computing(function: Callable[[Tensor], Tensor], pause_s: float = 0.0) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    def compute(tensors: Sequence[Tensor]) -> list[Tensor]:
        until = time.thread_time() + pause_s  # what autograd and all around it take, for certain
        while time.thread_time() < until:
            pass
        return [function(*tensors)]

    return compute


def proved(compute: Callable[[Sequence[Tensor]], list[Tensor]], batching: Batching = "exact", shape: Any = (5,)) -> Joint:
    drawn = torch.Generator().manual_seed(1)
    joint = Joint()
    for _ in prove(compute, [[torch.rand(shape, dtype=torch.float64, generator=drawn)] for _ in range(2)], batching, joint):
        pass
    return joint


@pytest.mark.parametrize(("batching", "sizes"), [("exact", [4, 16, 64]), ("tolerant", [4, 16, 64]), ("off", [])])
def test_what_has_the_same_bits_is_proved(batching: Batching, sizes: list[int]) -> None:
    compute = computing(lambda x: torch.softmax(x, 0).exp(), 0.002)
    joint = proved(compute, batching)
    assert joint.single is not None
    # On a busy machine a stack may seem slow; what is proved is right.
    assert set(joint.stacks) <= set(sizes)
    for size, recording in joint.stacks.items():
        rows = torch.rand(size, 5, dtype=torch.float64)
        together = recording([rows])
        assert all(same_bits([value[row] for value in together], compute([rows[row]])) for row in range(size))


def test_what_takes_no_less_time_is_not_used() -> None:
    def compute(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensors[0]]

    joint = Joint()
    steps = prove(compute, [[torch.rand(3)]], "exact", joint)
    assert sum(1 for _ in steps) > 0
    assert not joint.stacks or joint.single is not None


def test_what_other_numbers_contradict_is_not_used() -> None:
    """A branch on numbers that nothing below autograd shows: NumPy reads them."""
    compute = computing(lambda x: x * 2 if x.numpy()[0] > x.numpy()[1] else x * 3, 0.002)
    joint = Joint()
    for _ in prove(compute, [[torch.tensor([2.0, 1.0, 0.5])]], "exact", joint):
        pass
    assert joint.single is None


def test_rows_whose_last_bits_hang_on_their_place_are_stacked_only_where_that_is_tolerated() -> None:
    compute = computing(lambda x: torch.sigmoid(x) ** 2.5, 0.002)
    assert not proved(compute, "exact", (7,)).stacks
    for size, recording in proved(compute, "tolerant", (7,)).stacks.items():
        rows = torch.rand(size, 7, dtype=torch.float64)
        assert torch.allclose(recording([rows])[0], torch.sigmoid(rows) ** 2.5, rtol=1e-14)
