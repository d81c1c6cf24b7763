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
    settings = {
        "PULLBACK_WORKERS": "2",
        "CUDA_VISIBLE_DEVICES": "0",  # as where there are GPUs, or as if there were one
        "PULLBACK_QUARANTINE_S": str(QUARANTINE_S),
        "PULLBACK_BODY_TIMEOUT_S": "280",  # whoever does not read for a while is not cut on a slow machine either
    }
    with serving(tmp_path_factory.mktemp("pair") / "log.txt", **settings) as running:
        yield running
