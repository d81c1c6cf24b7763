"""What a plan says of memory is not under what a fresh process takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from app.engine.planning.cost import scratch_factors
from app.pool.environment import SINGLE_THREADED
from tests.engine.asking import ask
from tests.engine.planning.large_programs import LIMITS
from tests.test_floors import ROOT

# What a query takes whatever its size: by the first call of a math library (measured: 20 to 30 MiB for the first factorisation), and by
# Python's own objects.
FACTORISATIONS = ("matrix_exp", "det", "cholesky", "eigh", "svd")
SET_UP = 24 << 20
OTHER_SET_UP = 8 << 20
SHARE = 0.8


@pytest.fixture(scope="module")
def measured() -> Any:
    """What tests/engine/planning/growth.py says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.planning.growth"],
        cwd=ROOT, env={**os.environ, **SINGLE_THREADED}, capture_output=True, check=True, timeout=560,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_a_plan_is_not_under_what_is_taken(measured: Any) -> None:
    growth = measured["growth"]
    assert len(growth) > 10
    set_up = {name: SET_UP if name.startswith(FACTORISATIONS) else OTHER_SET_UP for name in growth}
    under = {name: each for name, each in growth.items() if each["plan"] < SHARE * (each["taken"] - set_up[name])}
    assert not under, under


def test_programs_that_would_take_too_much_are_refused_before_they_do(measured: Any) -> None:
    said = measured["large"]
    assert len(said) > 100
    not_refused = {name: each for name, each in said.items() if each["said"] not in ("too_costly", "result_too_large")}
    assert not not_refused, not_refused
    taken = {name: each for name, each in said.items() if each["taken"] > LIMITS.memory_bytes // 2 + SET_UP}
    assert not taken, taken


def test_names_that_hold_the_name_of_a_factorisation_are_none() -> None:
    factorisation = scratch_factors("geqrf")
    for name in ("sqrt", "erfinv", "exp"):
        assert all(own < whole for own, whole in zip(scratch_factors(name), factorisation, strict=True)), name
    plan = ask(operation="sqrt", inputs={"input": np.ones((1000, 1000))}).plan
    assert plan["flops"] < 1e7
