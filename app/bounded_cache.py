"""A cache whose values are bounded by their bytes, all together: the least recently used make room."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cachetools import LRUCache

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedCache(LRUCache[Key, Value]):
    """For one thread. `cache[key]` raises KeyError where nothing is known.

    Arguments:
        limit_bytes: of all values together.
        bytes_of: of a value, when it is kept; what grows later is kept again.
        limit_count: of values, however small.
    """

    def __init__(self, limit_bytes: int, bytes_of: Callable[[Value], int], limit_count: int | None = None) -> None:
        super().__init__(limit_bytes, bytes_of)
        self._limit_count = limit_count

    @property
    def bytes(self) -> int:
        """Of all that is kept."""
        return int(self.currsize)

    def keep(self, key: Key, value: Value) -> None:
        """Keep a value, in the place of what was known by its key; not one that takes more than the limit by itself."""
        try:
            self[key] = value
        except ValueError:  # cachetools says so of what is too large, and leaves the old value
            self.pop(key, None)
        if self._limit_count is not None and len(self) > self._limit_count:
            self.popitem()
