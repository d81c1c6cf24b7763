"""The pages of a private mapping that this process has written to, each a copy of its own from then on; and how they are dropped."""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Final

import numpy as np

_PAGEMAP: Final = "/proc/self/pagemap"
# Of a page's entry, its highest bits (Documentation/admin-guide/mm/pagemap.rst): it is in memory or swapped out, and is the file's.
_ENTRY_BYTES: Final = 8
_IS_THERE: Final = np.uint64(0b110 << 61)
_IS_OF_FILE: Final = np.uint64(0b001 << 61)


class PrivatePages:
    """Those of one mapping, in the process that mapped it."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._address: int = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
        self._pagemap: int | None = None
        try:
            self._pagemap = os.open(_PAGEMAP, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # no /proc, or a system without pagemap: they are dropped unseen then, at a page fault for each
            return
        weakref.finalize(self, os.close, self._pagemap).atexit = False

    def drop(self, begin: int, size: int) -> None:
        """Have the file's own bytes read again in the `size` bytes from `begin`, the beginning of a page, up to the end of the last page."""
        if self._pagemap is None or self._has_any(self._pagemap, begin, size):
            self._memory.madvise(mmap.MADV_DONTNEED, begin, size)

    def _has_any(self, pagemap: int, begin: int, size: int) -> bool:
        count = -(-size // mmap.PAGESIZE)
        data = os.pread(pagemap, count * _ENTRY_BYTES, (self._address + begin) // mmap.PAGESIZE * _ENTRY_BYTES)
        entries = np.frombuffer(data, np.uint64)
        return len(entries) < count or bool((((entries & _IS_THERE) != 0) & ((entries & _IS_OF_FILE) == 0)).any())
