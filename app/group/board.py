"""A board: memory without a name that the fronts of one service share, a row of counts for each, written by that front alone."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import time
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

_ITEM_BYTES: Final = 8  # an int64: aligned, so that x86 and ARM write it whole


class Column(IntEnum):
    """What a row has.

    `JOINED`: connections that the front was handed and has counted, ever; `OPEN`: those that are open now; `WAITING`: queries that wait;
    `HELD_BYTES`: bytes of bodies and replies; `BEATS`: turns of its clock, by which a front that hangs is known.
    """

    JOINED = 0
    OPEN = 1
    WAITING = 2
    HELD_BYTES = 3
    BEATS = 4


class Board:
    """One row for each front. Made by their parent before it forks them.

    A count is read while it may be written: of eight bytes that are aligned a reader sees the old or the new ones, never a mixture.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        size = rows * len(Column) * _ITEM_BYTES
        self._descriptor = os.memfd_create("fronts", os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, size)
        self._counts = memoryview(mmap.mmap(self._descriptor, size)).cast("q")

    def get(self, row: int, column: Column) -> int:
        count: int = self._counts[row * len(Column) + column]
        return count

    def set(self, row: int, column: Column, count: int) -> None:
        self._counts[row * len(Column) + column] = count

    def elsewhere(self, row: int, column: Column) -> int:
        """The sum over all rows but this one."""
        return sum(self._counts[column :: len(Column)]) - self.get(row, column)

    def clear(self, row: int) -> None:
        """Its front has died."""
        for column in Column:
            self.set(row, column, 0)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """One process of the service at a time: whole lines in the log, which all of them write to.

        The lock is the process's own (fcntl(2), F_SETLKW), so that a fork does not share it, and ends with it.
        """
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def write(self, descriptor: int, line: bytes, patience_s: float) -> bool:
        """Write one line likewise, at most 4096 bytes (PIPE_BUF), but never wait for a reader who has stopped; False where it is dropped."""
        until = time.monotonic() + patience_s
        with contextlib.suppress(OSError):
            while time.monotonic() < until:
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(0.001)
                    continue
                try:
                    has_room = bool(select.select((), (descriptor,), (), 0)[1])
                    return has_room and os.write(descriptor, line) == len(line)
                finally:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        return False
