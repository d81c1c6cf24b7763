"""A server on the device that is tried, beside that of all tests, which is on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gpu import DEVICE
from tests.server import Server, serving


@pytest.fixture(scope="session")
def device_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one worker on the device; tests that change its state start their own."""
    with serving(tmp_path_factory.mktemp("device_server") / "log.txt", PULLBACK_DEVICE=DEVICE) as running:
        yield running
