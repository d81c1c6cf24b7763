"""The soak, short: good and hostile load with workers killed at random loses nothing, and leaves nothing behind."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.soak import good, run

pytestmark = pytest.mark.serial


def test_a_short_soak() -> None:
    outcome, looks, ending = run.soak(seconds=3, clients=6, kill_every_s=0.4, share=0.15, workers=2)
    # On a loaded machine a good query may be late; it may not be lost, wrong or refused.
    assert run.report(outcome, looks, ending) or outcome.late
    assert (outcome.lost, outcome.wrong) == ([], [])
    assert not outcome.failed
    assert not outcome.unexpected
    assert outcome.answered > 0
    assert outcome.hostile > 0
    assert ending.kills > 0
    assert (ending.processes, ending.shared_memory, ending.exit_status) == (0, 0, 0)
    assert ending.descriptors <= 0


@pytest.mark.parametrize("case", [case for _, case in good.mix(np.random.default_rng(1))], ids=lambda case: case.name)
def test_a_wrong_answer_is_seen(case: good.Good) -> None:
    assert not case.is_right(500, b"{}")
    if case.path == "/v1/query" and case.headers.get("Accept") is None:
        assert not case.is_right(200, b"{}")
        wrong = b'{"outputs": {"output": {"dtype": "float64", "shape": [1], "data": [0.0]}}}'
        assert not case.is_right(200, wrong)
