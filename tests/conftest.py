"""What all tests share: one real server for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import Server, serving


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only those marked serial are asked for, the files of the others are not even imported: that takes longer than some rooms."""
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if config.option.markexpr == "serial" and is_test and "mark.serial" not in collection_path.read_text() else None


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one worker and otherwise default settings; tests that change its state start their own."""
    with serving(tmp_path_factory.mktemp("server") / "log.txt") as running:
        yield running
