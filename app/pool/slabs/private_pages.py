"""The pages of a private mapping that this process has written to, each a copy of its own from then on; and how they are dropped."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import weakref
from typing import Final

import numpy as np

_PAGEMAP: Final = "/proc/self/pagemap"
# Of a page's entry, its highest bits (Documentation/admin-guide/mm/pagemap.rst): it is in memory or swapped out, and is the file's.
_ENTRY_BYTES: Final = 8
_IS_THERE: Final = np.uint64(0b110 << 61)
_IS_OF_FILE: Final = np.uint64(0b001 << 61)
# PAGEMAP_SCAN (the same page, Linux 6.7) looks for pages of a kind within the kernel, in a quarter of the time that it takes to read the entries.
_SCAN: Final = 0xC0606610
_SCAN_ARGUMENT: Final = struct.Struct("12Q")  # struct pm_scan_arg
_REGION_BYTES: Final = 24  # of a struct page_region
_FILE: Final = 1 << 2  # a category, PAGE_IS_FILE
_PRESENT_OR_SWAPPED: Final = 1 << 3 | 1 << 4  # two more


class PrivatePages:
    """Those of one mapping, in the process that mapped it."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._address: int = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
        self._pagemap: int | None = None
        self._can_scan = True
        self._region = ctypes.create_string_buffer(_REGION_BYTES)
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
        if self._can_scan:
            try:
                return self._scan(pagemap, self._address + begin, count * mmap.PAGESIZE)
            except OSError:  # an older kernel, or something else in its place
                self._can_scan = False
        data = os.pread(pagemap, count * _ENTRY_BYTES, (self._address + begin) // mmap.PAGESIZE * _ENTRY_BYTES)
        entries = np.frombuffer(data, np.uint64)
        return len(entries) < count or bool((((entries & _IS_THERE) != 0) & ((entries & _IS_OF_FILE) == 0)).any())

    def _scan(self, pagemap: int, start: int, size: int) -> bool:
        """Whether a page that is in memory or swapped out is not the file's. Raises OSError where that cannot be asked."""
        limits = start, start + size, 0, ctypes.addressof(self._region), 1, 1
        categories = _FILE, _FILE, _PRESENT_OR_SWAPPED, _FILE  # inverted, wanted, of which one is wanted, to be told
        regions: int = fcntl.ioctl(pagemap, _SCAN, bytearray(_SCAN_ARGUMENT.pack(_SCAN_ARGUMENT.size, 0, *limits, *categories)))
        return regions > 0
