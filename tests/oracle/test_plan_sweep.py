"""A sample of the sweep over plans: `python -m tests.oracle.plan_sweep` asks all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from app.engine.kinds import KINDS
from app.pool.environment import SINGLE_THREADED
from tests.oracle import plan_sweep
from tests.oracle.plan_sweep import Case, Growth
from tests.test_floors import ROOT

# Of each class that had been planned far under what it takes, one or two.
SAMPLE = ("tanh jacobian sparse float16", "topk outputs float16", "logsumexp outputs float32")


def test_every_kind_form_and_dtype_is_asked_of_every_operation() -> None:
    cases = list(plan_sweep.every())
    assert len({case.title for case in cases}) == len(cases)
    assert {case.dtype for case in cases} == set(plan_sweep.DTYPES)
    assert {case.kind for case in cases} == set(KINDS)
    few = cases[::50]  # of all it takes seconds
    parts = [plan_sweep.one_of(7, iter(few), turn) for turn in range(7)]
    assert all(parts)
    assert sorted(case.title for part in parts for case in part) == sorted(case.title for case in few)


def test_no_plan_of_the_sample_is_under_what_is_taken(tmp_path: Path) -> None:
    results = tmp_path / "plans.jsonl"
    asking = [sys.executable, "-m", "tests.oracle.plan_sweep", "--results", str(results), "--titles", *SAMPLE]
    environment = {**os.environ, **SINGLE_THREADED}
    asked = subprocess.run(asking, cwd=ROOT, env=environment, capture_output=True, check=True, timeout=280, text=True)
    assert f"{len(SAMPLE)} of {len(SAMPLE)} measured, 0 under" in asked.stdout, asked.stdout
    measured = results.read_text()
    sample = [case for case in plan_sweep.every() if case.title in SAMPLE]
    assert len(plan_sweep.swept(sample, results, again=False)) == len(SAMPLE)
    assert results.read_text() == measured, "what was measured is not measured again"


def test_what_is_under_and_over() -> None:
    taken = 1000 << 20
    assert Growth(700 << 20, taken, 0, "all").is_under
    assert not Growth(800 << 20, taken, 0, "all").is_under
    assert Growth(4001 << 20, taken, 0, "all").is_over
    assert Case("jacobian", "sparse", "float16", True, "tanh").title == "tanh jacobian sparse float16 batched"
