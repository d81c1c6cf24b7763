"""A sample of the sweep of batches: each sample has the numbers that it has alone; `python -m tests.oracle.batch_sweep` asks all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.oracle import batch_sweep, sweeping

# An elementwise one, a reduction, a factorisation, a layer, one that picks, one with a complex form: of each some seconds less than all of them.
_NAMES: Final = ("atan2", "prod", "linalg.solve", "nn.functional.layer_norm", "scatter_reduce", "fft.rfft")
_SAMPLE: Final = list(batch_sweep.every(_NAMES))[::9]  # coprime to the number of kinds, so that each is among them


@pytest.mark.parametrize("asked", _SAMPLE, ids=lambda asked: asked.title)
def test_no_reply_is_wrong(asked: sweeping.Asked) -> None:
    assert batch_sweep.complaint(asked).partition(":")[0] in ("", "refused", "refused alone", "cannot tell", "noted")


def test_a_second_run_takes_up_what_the_first_has_left(tmp_path: Path) -> None:
    results = tmp_path / "batch.jsonl"
    first = list(sweeping.swept(_SAMPLE[:1], lambda one: one.title, batch_sweep.complaint, results))
    again = list(sweeping.swept(_SAMPLE[:2], lambda one: one.title, batch_sweep.complaint, results))
    assert again[:1] == first
    assert len(results.read_text().splitlines()) == 2
