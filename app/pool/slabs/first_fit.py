"""Spans in a stretch of memory: the first that fits is taken, so that the same pages are used again and again."""

from __future__ import annotations

from mmap import PAGESIZE


class Spans:
    """What of `size` bytes is taken; a span begins at a page."""

    __slots__ = ("_size", "_taken")

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken: list[tuple[int, int]] = []  # begin and end, in order

    @property
    def is_empty(self) -> bool:
        """Nothing is taken."""
        return not self._taken

    @property
    def taken(self) -> list[tuple[int, int]]:
        """Where each span begins and ends, in order."""
        return list(self._taken)

    def take(self, size: int) -> int | None:
        """Where a span of `size` bytes begins, taken from now on; None where none is free."""
        begin = 0
        for index, (next_begin, next_end) in enumerate(self._taken):
            if begin + size <= next_begin:
                self._taken.insert(index, (begin, begin + size))
                return begin
            begin = -(-next_end // PAGESIZE) * PAGESIZE
        if begin + size > self._size:
            return None
        self._taken.append((begin, begin + size))
        return begin

    def free(self, begin: int) -> None:
        """The span that begins there is free again.

        Raises:
            KeyError: none does.
        """
        for index, (taken, _) in enumerate(self._taken):
            if taken == begin:
                del self._taken[index]
                return
        raise KeyError(begin)
