"""Signatures of queries: which have come before, how often a recipe for one has failed, and the memory that one takes."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final

_LIMIT: Final = 4096  # signatures that came once, and those that failed: 8 bytes and a dict's entry each
# A try takes some milliseconds, a hundred times what it may save a query later. Where every other query has unusual numbers, one of sixteen is given
# up that would have had a recipe.
_TRIES: Final = 4


class SeenSignatures:
    """Those that have come, by their hashes; the latest."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._failures: OrderedDict[int, int] = OrderedDict()

    def is_second(self, signature: Hashable) -> bool:
        """Whether it has come before; then it counts as new again."""
        mark = hash(signature)
        if mark in self._seen:
            del self._seen[mark]
            return True
        self._seen[mark] = None
        if len(self._seen) > _LIMIT:
            self._seen.popitem(last=False)
        return False

    def failed(self, signature: Hashable) -> bool:
        """A recipe did not answer the query that it was made of, which other numbers may not show; True where another try is worth it."""
        mark = hash(signature)
        failures = self._failures.pop(mark, 0) + 1
        if failures >= _TRIES:
            return False
        self._failures[mark] = failures
        if len(self._failures) > _LIMIT:
            self._failures.popitem(last=False)
        return True


def held_bytes(value: Any) -> int:
    """Of a signature, with the members of its tuples and sets; what several share counts for each."""
    members = value if isinstance(value, tuple | frozenset) else ()
    return sys.getsizeof(value) + sum(map(held_bytes, members))
