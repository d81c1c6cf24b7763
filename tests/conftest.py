"""What all tests share: one real server for the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server import Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one worker and otherwise default settings; tests that change its state start their own."""
    with serving(tmp_path_factory.mktemp("server") / "log.txt") as running:
        yield running
