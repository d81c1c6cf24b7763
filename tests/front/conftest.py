"""A strict server, with a key, an allowed origin and small limits, and an impatient one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import httpx
import pytest

from tests.server import CLIENT_LIMIT_S, Server, serving

KEY: Final = "a-key-for-tests"
BODY_LIMIT: Final = 300_000
# Seconds without a byte after which the impatient server refuses a body and cuts who does not read; long enough to look what it holds before.
PATIENCE_S: Final = 3


@pytest.fixture(scope="package")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "PULLBACK_API_KEYS": f"another,{KEY}",
        "PULLBACK_ALLOWED_ORIGINS": "https://notebook.example",
        "PULLBACK_BODY_LIMIT_BYTES": str(BODY_LIMIT),
        "PULLBACK_QUEUE_LENGTH": "2",
        "PULLBACK_QUEUE_BYTES": "600000",
        "PULLBACK_RESULT_LIMIT_BYTES": "100000000",
    }
    with serving(tmp_path_factory.mktemp("strict") / "log.txt", **settings) as running:
        yield running


@pytest.fixture(scope="package")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("impatient") / "log.txt", PULLBACK_BODY_TIMEOUT_S=str(PATIENCE_S)) as running:
        yield running


@pytest.fixture
def keyed(strict: Server) -> Iterator[httpx.Client]:
    """A client of the strict server that has a key."""
    with httpx.Client(base_url=strict.url, headers={"X-API-Key": KEY}, timeout=CLIENT_LIMIT_S) as client:
        yield client
