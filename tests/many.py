"""One test of many small cases: pytest takes 2 ms over a test of its own, as long as these take themselves."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import TypeVar

from app.catalogue.entry import Operation
from app.catalogue.read import operations

T = TypeVar("T")


def assert_all(cases: Iterable[T], name: Callable[[T], str], holds: Callable[[T], object]) -> None:
    """Runs `holds` on every case; fails with a line for each of which it raises."""
    failures = []
    for case in cases:
        try:
            holds(case)
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1].lineno
            failures.append(f"{name(case)}, line {line}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)


def assert_of_every_operation(holds: Callable[[Operation], object]) -> None:
    """The same of all operations of the catalogue."""
    assert_all(operations().values(), lambda operation: operation.name, holds)
