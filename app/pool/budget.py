"""The bytes of bodies and replies that the front holds, against one limit.

A reply's memory counts until it is freed, whoever held it last: an endpoint, a list of answers, or a connection's write buffer.
"""

from __future__ import annotations

import weakref
from typing import Final

import numpy as np

from app.pool import refusals

_PRESSED_SHARE: Final = 0.75


class ByteBudget:
    """Bytes held, of `limit_bytes` at most."""

    __slots__ = ("_memories", "held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._memories = 0

    @property
    def is_pressed(self) -> bool:
        """Little room is left: who holds it should make haste."""
        return self.held_bytes > _PRESSED_SHARE * self.limit_bytes

    def check(self, size: int) -> None:
        """Raises PullbackError queue_full where `size` bytes would find no room now; reserves nothing."""
        if self.held_bytes + size > self.limit_bytes:
            raise refusals.bytes_full(self.held_bytes, self.limit_bytes)

    def reserve(self, size: int) -> None:
        """Count `size` bytes as held, until they are released. Raises PullbackError queue_full."""
        self.check(size)
        self.held_bytes += size

    def release(self, size: int) -> None:
        self.held_bytes -= size

    def memory(self, size: int) -> memoryview | None:
        """Fresh memory, counted until nothing refers to it any more; None where it finds no room or the system has none.

        A reply that is larger than all the room is let in where it is the only one: else it could never be given.
        """
        oversized = size > self.limit_bytes and not self._memories
        if not oversized and self.held_bytes + size > self.limit_bytes:
            return None
        try:
            array = np.empty(size, np.uint8)
        except MemoryError:
            return None
        self.held_bytes += size
        self._memories += 1
        weakref.finalize(array, self._freed, size).atexit = False
        return array.data

    def _freed(self, size: int) -> None:
        self._memories -= 1
        self.held_bytes -= size
