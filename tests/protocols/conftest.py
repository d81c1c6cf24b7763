"""One server for the foreign protocols' tests: two workers, and a folder that holds operations as functions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.protocols.operations import CASES
from tests.server import Server, serving


@pytest.fixture(scope="session")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("functions")
    for case in CASES:
        (folder / f"{case.function}.py").write_text(case.text)
    log = tmp_path_factory.mktemp("speaking") / "log.txt"
    with serving(log, PULLBACK_FUNCTIONS_FOLDER=str(folder), PULLBACK_WORKERS="2") as running:
        yield running
