"""What a plan says of memory is not under what a fresh process takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from app.engine.explain.evidence import HUGE
from app.engine.kinds import KINDS
from app.engine.planning.cost import Cost, scratch_factors
from app.engine.planning.demand import Result, Sizes, Wanted
from app.engine.planning.plan import is_differentiable_everywhere, make
from app.pool.environment import SINGLE_THREADED
from tests.engine.asking import ask
from tests.engine.planning.large_programs import LIMITS
from tests.share import is_whole
from tests.test_floors import ROOT

# What a query takes whatever its size: by the first call of a math library (measured: 20 to 30 MiB for the first factorisation), and by
# Python's own objects.
FACTORISATIONS = ("matrix_exp", "det", "cholesky", "eigh", "svd")
SET_UP = 24 << 20
OTHER_SET_UP = 8 << 20
SHARE = 0.8
OFTEN = 4.0


@pytest.fixture(scope="module")
def measured() -> Any:
    """What tests/engine/planning/growth.py says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.planning.growth", *(["--whole"] if is_whole() else [])],
        cwd=ROOT, env={**os.environ, **SINGLE_THREADED}, capture_output=True, check=True, timeout=560,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_a_plan_is_not_under_what_is_taken(measured: Any) -> None:
    growth = measured["growth"]
    assert len(growth) > 10
    set_up = {name: SET_UP if name.startswith(FACTORISATIONS) else OTHER_SET_UP for name in growth}
    under = {name: each for name, each in growth.items() if each["plan"] < SHARE * (each["taken"] - set_up[name])}
    assert not under, under


def test_a_plan_is_not_far_over_what_is_taken(measured: Any) -> None:
    growth = {name: each for name, each in measured["growth"].items() if name.startswith("not far over")}
    assert growth
    over = {name: each for name, each in growth.items() if each["plan"] > OFTEN * max(each["taken"], SET_UP)}
    assert not over, over


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


def explain_bytes(elements: int, cost: Cost) -> int:
    """What the plan of an `explain` says, of so many numbers and as many results."""
    ends = [Result(name, (elements,), torch.float64) for name in ("x", "output")]
    sizes = Sizes((ends[0],), (ends[1],), None, 1, "dense", "reverse")
    limits = replace(LIMITS, memory_bytes=1 << 40)
    return make(
        demands=Wanted({"explain": KINDS["explain"].demand}), sizes=sizes, cost=cost, samples=1, limits=limits
    ).peak_bytes


def test_what_explain_looks_at_is_planned_and_no_more() -> None:
    whole, within = (
        Cost(1.0, 0, 0, 80 << 20, largest_value_bytes=80 << 20),
        Cost(1.0, 0, 0, 80 << 20, largest_value_bytes=1 << 20),
    )
    assert 4 * explain_bytes(1000, within) < explain_bytes(1000, whole), (
        "what an operator makes within a step is not looked at from all sides"
    )
    nothing = Cost(1.0, 0, 0)
    assert explain_bytes(HUGE // 2 + 1, nothing) < explain_bytes(HUGE // 2, nothing) / 2, (
        "beyond, nothing is looked at from the sides"
    )
    assert is_differentiable_everywhere(frozenset({"*", "@", "-", "[]", "nn.functional.linear"})), "signs are operations"
    assert not is_differentiable_everywhere(frozenset({"*", "/"}))
