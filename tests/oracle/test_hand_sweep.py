"""A sample of the derivations by hand: `python -m tests.oracle.hand_sweep` asks all of them, with every mistake, in every dtype."""

from __future__ import annotations

from typing import Final

import pytest
import torch

from tests.oracle.hand_sweep import (
    DERIVATIONS,
    DTYPES,
    HALVES,
    complaint_of_right,
    complaint_of_steps,
    complaint_of_wrong,
    possible,
)

_EVERY: Final = 3  # of some 250, so that the sample takes seconds; chosen
# Title, dtype and mistake take turns, in fours, so that every third has them all.
ASKED: Final = [
    (title, DTYPES[k % 4] if possible(one, DTYPES[k % 4]) else torch.float64, list(one.wrong)[k // 4 % len(one.wrong)])
    for k, (title, one) in enumerate(list(DERIVATIONS.items())[::_EVERY])
]


def test_there_are_as_many_as_said() -> None:
    assert len(DERIVATIONS) >= 310
    assert sum(len(one.wrong) for one in DERIVATIONS.values()) >= 1000


@pytest.mark.parametrize(("title", "dtype", "mistake"), ASKED, ids=[title for title, *_ in ASKED])
@pytest.mark.share(5)
def test_no_reply_is_wrong(title: str, dtype: torch.dtype, mistake: str) -> None:
    assert not complaint_of_right(DERIVATIONS[title], dtype)
    assert not complaint_of_wrong(DERIVATIONS[title], mistake, dtype), mistake


@pytest.mark.parametrize("number", range(0, len(DERIVATIONS), 2 * _EVERY))
@pytest.mark.share(5)
def test_right_steps_in_half_precision_are_no_mistake(number: int) -> None:
    one, dtype = list(DERIVATIONS.values())[number], HALVES[number % 4 // 2]
    if possible(one, dtype):
        assert not complaint_of_steps(one, dtype)
