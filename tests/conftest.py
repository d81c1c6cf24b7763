"""What all tests share: one real server for the whole run."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from app.engine.joint import proofs
from tests.server import Server, serving
from tests.share import ask_whole, shared

_LONGEST: Final = (
    "test_memory_safety.py", "test_pastes.py", "test_hostile.py", "test_cost.py", "test_road.py", "test_explain_pointwise.py",
    "test_same_ranks.py", "test_plan_sweep.py", "test_op_db_over_http.py", "test_people.py", "test_contributing.py",
)  # fmt: skip
# New ones after which garbage is looked for: with Python's 700 that was a tenth of the time of reading and differentiating programs; with
# 10,000 it was 7 % of that of all pastes, 5 % of a part of them, where it is so half as much (13.7 and 12.5 s of CPU time in all).
_OBJECTS: Final = 100_000
# A parameter that is a server, or a warm process, of a room (tests/*/conftest.py).
_SERVER_OF_A_ROOM: Final = re.compile(r"\b(strict|keyed|impatient|pair|speaking|guarded): |\broad: Forking\b")


# What a test's own process computes is proved as soon as its numbers are many enough; servers prove after as many runs as for users.
proofs.PROVED_AFTER = 8


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="ask all examples of tests that ask a share of them (tests/share.py)")


def pytest_configure(config: pytest.Config) -> None:
    ask_whole(config.option.whole)


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
    """Imports and 16,000 tests are no garbage: to look through them again and again was a third of the collection, and went on afterwards."""
    gc.disable()
    try:
        with _one_compiles():
            return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(_OBJECTS)
        gc.enable()


@contextmanager
def _one_compiles() -> Iterator[None]:
    """After an installation one process imports first, and leaves bytecode to those beside it: each would compile for 12 s of CPU time."""
    jax = find_spec("jax")  # what tests alone import
    with Path(__file__).open() as file:
        if jax is not None and jax.cached and not Path(jax.cached).exists():
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                flock(file, LOCK_SH)
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    return _Scheduling(config, log) if config.option.dist == "loadfile" else None


class _Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """Files side by side, but those that share a server of their room one after another: each process would start its own, for 5 s."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return _room(self.config.rootpath / file) or file


@cache
def _room(file: Path) -> str | None:
    """The room whose server the file's tests ask, the folder below tests; none where they ask no such server."""
    return file.relative_to(Path(__file__).parent).parts[0] if _SERVER_OF_A_ROOM.search(file.read_text()) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files come first, and the rooms: where one is the last, its core computes while the others wait (they are not divided)."""
    asked = shared(items)
    config.hook.pytest_deselected(items=[*({*items} - {*asked})])
    items[:] = asked
    items.sort(key=lambda item: (item.path.name not in _LONGEST, _room(item.path) is None))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one worker and otherwise default settings; tests that change its state start their own."""
    with serving(tmp_path_factory.mktemp("server") / "log.txt") as running:
        yield running
