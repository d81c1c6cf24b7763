"""A sample of the sweep of `check`: `python -m tests.oracle.check_sweep` asks all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.oracle import check_sweep, derivations

_EVERY: Final = 97  # of 2,400 seeds, so that about forty are asked, of each source some; chosen
_SAMPLE: Final = list(derivations.every(_EVERY))


@pytest.mark.parametrize("asked", _SAMPLE, ids=lambda asked: asked.title)
@pytest.mark.share(2)
def test_no_reply_is_wrong(asked: derivations.Believed) -> None:
    assert not check_sweep.complaint(asked), (asked.text, asked.inputs)


def test_a_second_run_takes_up_what_the_first_has_left(tmp_path: Path) -> None:
    results, few = tmp_path / "check.jsonl", _SAMPLE[-2:]
    first = list(check_sweep.swept(iter(few[:1]), results))
    assert list(check_sweep.swept(iter(few), results))[:1] == first
    assert len(results.read_text().splitlines()) == len(few)
