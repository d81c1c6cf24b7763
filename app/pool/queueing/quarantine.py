"""The quarantine: contents that have cost two workers, refused for a while."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from app.pool.frames import Buffer


def fingerprint(asked: bytes, body: Sequence[Buffer]) -> bytes:
    """A hash of all that was asked: the endpoint and headers that decide how a body is read, and the body, however it is cut."""
    digest = hashlib.blake2b(asked, digest_size=16)
    digest.update(b"\0")  # which no JSON text holds
    for piece in body:
        digest.update(piece)
    return digest.digest()


class Quarantine:
    """Contents with the time, in seconds on CLOCK_MONOTONIC, until which each is refused.

    Arguments:
        seconds: for how long; 0 = not at all.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[bytes, float] = {}
        self._sizes: set[int] = set()

    @property
    def is_used(self) -> bool:
        return bool(self._until)

    def add(self, asked: bytes, body: Sequence[Buffer], size: int, now: float) -> bytes:
        """This content has cost two workers; its fingerprint."""
        mark = fingerprint(asked, body)
        self.learn(mark, size, now)
        return mark

    def learn(self, mark: bytes, size: int, now: float) -> None:
        """The content of this fingerprint and size has."""
        if self._seconds:
            self._until[mark] = now + self._seconds
            self._sizes.add(size)

    def left_s(self, asked: bytes, body: Sequence[Buffer], size: int, now: float) -> float:
        """Seconds for which this content is still refused; 0 where it is not. Only contents of a known size are hashed."""
        self._until = {mark: until for mark, until in self._until.items() if until > now}
        if not self._until:
            self._sizes.clear()
        if size not in self._sizes:
            return 0.0
        return max(0.0, self._until.get(fingerprint(asked, body), now) - now)
