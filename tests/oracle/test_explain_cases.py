"""explain on more than 800 programs at their corners and off them, each verdict decided by hand: none wrong, no line wrong, no false alarm."""

from __future__ import annotations

import pytest

from tests.engine.building import explained
from tests.oracle.explain_case import Case
from tests.oracle.explain_corners import CASES as CORNERS
from tests.oracle.explain_functions import CASES as FUNCTIONS
from tests.oracle.explain_paths import CASES as PATHS
from tests.oracle.explain_reasons import CASES as REASONS
from tests.share import share

_TOGETHER = 12  # in one test: each takes some milliseconds
CASES = (*CORNERS, *PATHS, *FUNCTIONS, *REASONS)
ASKED = [case for room in (CORNERS, PATHS, FUNCTIONS, REASONS) for case in share(room, 3)]


def wrong(case: Case) -> list[str]:
    """What a report says otherwise."""
    report = explained(case.text, seed=case.seed, **case.inputs)
    differences = []
    for name, verdict in case.verdicts.items():
        entry = report["inputs"][name]
        if entry["verdict"] not in (verdict if isinstance(verdict, tuple) else (verdict,)):
            differences.append(f"{name} is {entry['verdict']}, not {verdict}")
        if "cannot tell" in str(entry):
            differences.append(f"{name}: cannot tell")
    first = report["inputs"][next(iter(case.verdicts))]
    if case.elements is not None and sorted(first["elements"]) != sorted(case.elements):
        differences.append(f"elements {first['elements']}, not {case.elements}")
    if case.line is not None and (first["because"] or {}).get("line") != case.line:
        differences.append(f"because {first['because']}, not line {case.line}")
    if case.word not in str(first):
        differences.append(f"{case.word!r} is not in {first['because']}")
    return differences


@pytest.mark.parametrize("first", range(0, len(ASKED), _TOGETHER))
def test_cases(first: int) -> None:
    chosen = ASKED[first : first + _TOGETHER]
    bad = {case.title: wrongs for case in chosen if (wrongs := wrong(case))}
    assert not bad, "\n".join(f"{title}: {differences}" for title, differences in bad.items())


def test_there_are_enough_and_of_each_kind() -> None:
    assert len(CASES) > 800
    assert len({verdict for case in CASES for verdict in case.verdicts.values() if isinstance(verdict, str)}) == 5
