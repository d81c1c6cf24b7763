"""Work that reading a program takes and its computation does not: who counts what a program costs leaves it out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class _Work:
    is_aside = False


@contextmanager
def aside() -> Iterator[None]:
    """What runs here is no part of the program: a step tried for what it keeps, a module made for its options."""
    before, _Work.is_aside = _Work.is_aside, True
    try:
        yield
    finally:
        _Work.is_aside = before


def is_aside() -> bool:
    return _Work.is_aside
