"""What all tests share: one real server for the whole run."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.server import Server, serving

_LONGEST: Final = ("test_memory_safety.py", "test_op_db_over_http.py", "test_people.py")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only those marked serial are asked for, the files of the others are not even imported: that takes longer than some rooms."""
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if config.option.markexpr == "serial" and is_test and "mark.serial" not in collection_path.read_text() else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores: an eighth of the time of two processes on two cores went by in waiting for limits and servers."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imports and 15,000 tests are no garbage: to look through them again and again was a third of the collection, and went on afterwards."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first: where one is the last, its core computes while the others wait (files are not divided)."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one worker and otherwise default settings; tests that change its state start their own."""
    with serving(tmp_path_factory.mktemp("server") / "log.txt") as running:
        yield running
