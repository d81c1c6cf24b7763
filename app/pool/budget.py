"""The bytes of bodies and replies that the front holds, against one limit.

A reply's memory counts until it is freed, whoever held it last: an endpoint, a list of answers, or a connection's write buffer.

Bodies that come at the same time hold room against each other, so that none of them would find enough. So one that has not come whole
gives way to one that came before it, of the client that sends most of them first; and the last part of the room is for small ones alone.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Final, Protocol

import numpy as np

from app.pool import refusals

# From here on who sends or reads slowly is held to a faster pace: a quarter is left while they go.
_PRESSED_SHARE: Final = 0.75
# A small query finds room where large bodies and replies have taken all of theirs: a thousand of it in the largest queue.
SMALL_BYTES: Final = 64 << 10
_SMALL_SHARE: Final = 16


class Unfinished(Protocol):
    """A body that has not come whole.

    Attributes:
        client: who sends it.
        held_bytes: what it holds now.
    """

    @property
    def client(self) -> str: ...

    @property
    def held_bytes(self) -> int: ...

    def give_way(self) -> None:
        """Free all that it holds, now."""


class ByteBudget:
    """Bytes held, of `limit_bytes` at most; of `large_limit_bytes` by what is not small."""

    __slots__ = ("_memories", "_unfinished", "held_bytes", "large_limit_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.large_limit_bytes = limit_bytes - limit_bytes // _SMALL_SHARE
        self._unfinished: dict[Unfinished, None] = {}  # in the order in which they began
        self.held_bytes = 0
        self._memories = 0

    @property
    def is_pressed(self) -> bool:
        """Little room is left: who holds it should make haste."""
        return self._held_by_all() > _PRESSED_SHARE * self.limit_bytes

    def _held_by_all(self) -> int:
        """Where several fronts share the room, what others hold too."""
        return self.held_bytes

    def begin(self, body: Unfinished) -> None:
        """It begins to come."""
        self._unfinished[body] = None

    def finish(self, body: Unfinished) -> None:
        """It is whole, or will not be."""
        self._unfinished.pop(body, None)

    def check(self, size: int, client: str = "") -> None:
        """Raises PullbackError queue_full where `size` bytes of `client` would find no room now; reserves nothing."""
        if not self._fits(size, small=size < SMALL_BYTES) and not self._fits(size - self._yielding_bytes(client)):
            raise refusals.bytes_full(self._held_by_all(), self.limit_bytes)

    def reserve(self, size: int, body: Unfinished | None = None) -> None:
        """Count `size` bytes, of `body` where it is one's, as held, until they are released. Raises PullbackError queue_full."""
        if not self.has_room(size, body):
            raise refusals.bytes_full(self._held_by_all(), self.limit_bytes)
        self.held_bytes += size

    def has_room(self, size: int, body: Unfinished | None = None) -> bool:
        """Whether there is room for `size` bytes, for `body` where they are one's; those that have to make way for it."""
        small = size + (0 if body is None else body.held_bytes) < SMALL_BYTES
        if not self._fits(size, small=small) and not self._fits(size - self._others_bytes(body), small=small):
            return False  # they would make way for nothing
        while not self._fits(size, small=small):
            last = self._last()
            if last is None or last is body:
                return False
            self.finish(last)
            last.give_way()
        return True

    def _others_bytes(self, body: Unfinished | None) -> int:
        return sum(other.held_bytes for other in self._unfinished if other is not body)

    def _fits(self, size: int, *, small: bool = False) -> bool:
        return self._held_by_all() + size <= (self.limit_bytes if small else self.large_limit_bytes)

    def _last(self) -> Unfinished | None:
        """The unfinished body that gives way first: the last of the client that has most of them."""
        holding = [body for body in self._unfinished if body.held_bytes]
        counts = Counter(body.client for body in holding)
        most = max(counts.values(), default=0)
        return next((body for body in reversed(holding) if counts[body.client] == most), None)

    def _yielding_bytes(self, client: str) -> int:
        """What clients that send more bodies than this one hold by those that are not whole."""
        counts = Counter(body.client for body in self._unfinished)
        own = counts[client] + 1
        return sum(body.held_bytes for body in self._unfinished if body.client != client and counts[body.client] > own)

    def release(self, size: int) -> None:
        self.held_bytes -= size

    def memory(self, size: int, body: Unfinished | None = None) -> memoryview | None:
        """Fresh memory, counted until nothing refers to it any more; None where it finds no room or the system has none.

        A reply that is larger than all the room is let in where it is the only one: else it could never be given.
        """
        oversized = size > self.limit_bytes and not self._memories
        if not oversized and not self.has_room(size, body):
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
