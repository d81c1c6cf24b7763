"""The servers of the foreign protocols' tests: one with operations as functions, and one with a key and a small limit of bodies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.protocols.operations import CASES
from tests.server import Server, serving

KEY: Final = "a-key-for-protocols"
BODY_LIMIT: Final = 200_000
# About 10¹² operations in one call of the math library, which nothing but a signal stops.
SLOW: Final = 'def slow(x: float64[2]):\n    """Slow."""\n    a = ones(6000, 6000) * x[0]\n    return sum(a @ a @ a)\n'


@pytest.fixture(scope="session")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("functions")
    for case in CASES:
        (folder / f"{case.function}.py").write_text(case.text)
    log = tmp_path_factory.mktemp("speaking") / "log.txt"
    with serving(log, PULLBACK_FUNCTIONS_FOLDER=str(folder), PULLBACK_WORKERS="2") as running:
        yield running


@pytest.fixture(scope="package")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow.py").write_text(SLOW)
    settings = {
        "PULLBACK_API_KEYS": KEY,
        "PULLBACK_BODY_LIMIT_BYTES": str(BODY_LIMIT),
        "PULLBACK_FUNCTIONS_FOLDER": str(folder),
    }
    with serving(tmp_path_factory.mktemp("guarded") / "log.txt", **settings) as running:
        yield running
