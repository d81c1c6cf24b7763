"""A server with two workers for the tests that kill, fill and leave them; each test leaves it able to answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.server import Server, serving

# Long enough for a second query on a machine that stands still for some seconds, short enough to be waited for.
QUARANTINE_S: Final = 8


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        tmp_path_factory.mktemp("pair") / "log.txt", PULLBACK_WORKERS="2", PULLBACK_QUARANTINE_S=str(QUARANTINE_S)
    ) as running:
        yield running
