"""No query reads memory that is not its own, writes there, or ends its process: hostile integers, lengths and shapes, everywhere.

Every query runs in two processes. Fresh memory holds one byte there and another here (glibc's `perturb`, and the allocator's own fill),
so an answer that depends on it differs. With a C compiler each tensor ends at an untouchable page there, and begins behind one here, so
a step out of it is a crash. By hand, for longer: `python -m tests.memory_safety.driver --seed 1 --count 20 --samples 12`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from app.catalogue.read import operations
from app.pool.environment import SINGLE_THREADED
from tests.share import is_whole

ROOT: Final = Path(__file__).parents[2]
ALLOCATOR: Final = Path(__file__).with_name("guarded_allocator.c")
COMPILER: Final = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
# (where a tensor lies in its pages, what fresh memory holds)
VARIANTS: Final = (("end", 165), ("start", 90))
# What is imported is no garbage, and the driver has the collector on again.
_MAIN: Final = "import gc; gc.disable(); from tests.memory_safety.driver import main; import sys; main(sys.argv[1:])"
# Without the checks these crash, or answer with what memory holds.
_KNOWN: Final = ("segment_reduce", "nn.functional.ctc_loss", "nn.functional.embedding_bag", "linalg.ldl_solve", "div", "lcm")
Outcomes = dict[tuple[str, str], str]  # (door, call) → outcome


@dataclass(frozen=True)
class Runs:
    """The outcomes of the same queries in both variants."""

    end: Outcomes
    start: Outcomes

    def died(self) -> list[str]:
        return [
            f"{call} by {entrance}: {o}"
            for run in (self.end, self.start)
            for (entrance, call), o in run.items()
            if "died of" in o
        ]

    def differing(self) -> list[str]:
        assert self.end.keys() == self.start.keys()
        return [f"{call} by {entrance}" for (entrance, call), o in self.end.items() if o != self.start[entrance, call]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The allocator, compiled; None where there is no compiler."""
    if COMPILER is None:
        return None
    target = tmp_path_factory.mktemp("allocator") / "guarded.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O2", "-o", str(target), str(ALLOCATOR), "-ldl"], check=True, timeout=60)
    return target


@pytest.fixture(scope="module")
def folder(library: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the driver has written of both variants, run at once in one warm process."""
    folder = tmp_path_factory.mktemp("runs")
    variants = [f"{side}:{fill}={folder / side}" for side, fill in VARIANTS]
    guarded = {} if library is None else {"LD_PRELOAD": str(library)}
    arguments = [
        *("--seed", "0", "--count", "1", "--calls", "6" if is_whole() else "3"),
        *("--variants", *variants, "--unchecked", *(_KNOWN if library else ())),
    ]
    environment = {**os.environ, **SINGLE_THREADED, **guarded}
    subprocess.run([sys.executable, "-c", _MAIN, *arguments], cwd=ROOT, env=environment, check=True, timeout=850)
    return folder


def read(folder: Path, suffix: str = "") -> Runs:
    outcomes: list[Outcomes] = []
    for side, _ in VARIANTS:
        lines = map(json.loads, (folder / f"{side}{suffix}").read_text().splitlines())
        outcomes.append({(line["door"], line["case"]): line["outcome"] for line in lines})
    return Runs(*outcomes)


@pytest.fixture(scope="module")
def runs(folder: Path) -> Runs:
    return read(folder)


def test_every_operation_is_tried_with_answers_and_refusals(runs: Runs) -> None:
    answered = {call.partition("(")[0] for (_, call), outcome in runs.end.items() if outcome.startswith("answer")}
    assert set(operations()) <= answered
    assert sum(not outcome.startswith("answer") for outcome in runs.end.values()) > (1500 if is_whole() else 1300)
    assert {entrance for entrance, _ in runs.end} == {"call", "operation", "program"}


def test_no_answer_depends_on_what_fresh_memory_holds(runs: Runs) -> None:
    assert runs.differing() == []


def test_no_hostile_query_ends_its_process(runs: Runs) -> None:
    assert runs.died() == []


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler for the allocator with untouchable pages")
def test_without_the_checks_the_same_queries_step_out_of_their_tensors(folder: Path) -> None:
    """That the tests above can fail: the checks left out, known operations crash, or answer with what memory holds."""
    unchecked = read(folder, ".unchecked")
    died = {line.partition("(")[0] for line in unchecked.died()}
    assert {"segment_reduce", "nn.functional.embedding_bag", "linalg.ldl_solve", "div", "lcm"} <= died
    assert any(line.startswith("nn.functional.ctc_loss") for line in unchecked.differing())
