"""A strict server for the tests of the door: a key, an allowed origin, small limits and little patience."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import httpx
import pytest

from tests.server import Server, serving

KEY: Final = "a-key-for-tests"
BODY_LIMIT: Final = 300_000


@pytest.fixture(scope="package")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "PULLBACK_API_KEYS": f"another,{KEY}",
        "PULLBACK_ALLOWED_ORIGINS": "https://notebook.example",
        "PULLBACK_BODY_LIMIT_BYTES": str(BODY_LIMIT),
        "PULLBACK_BODY_TIMEOUT_S": "1",
        "PULLBACK_QUEUE_LENGTH": "2",
        "PULLBACK_QUEUE_BYTES": "600000",
        "PULLBACK_RESULT_LIMIT_BYTES": "100000000",
    }
    with serving(tmp_path_factory.mktemp("strict") / "log.txt", **settings) as running:
        yield running


@pytest.fixture
def keyed(strict: Server) -> Iterator[httpx.Client]:
    """A client of the strict server that has a key."""
    with httpx.Client(base_url=strict.url, headers={"X-API-Key": KEY}, timeout=30) as client:
        yield client
