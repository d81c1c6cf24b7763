"""The quarantine: contents that have cost two workers, refused for a while.

Knows contents by their size and hash. Refuses to know what killed the workers.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.pool.frames import Buffer
from app.pool.job import fingerprint


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

    def add(self, body: Sequence[Buffer], size: int, now: float) -> None:
        """This content has cost two workers."""
        if self._seconds:
            self._until[fingerprint(body)] = now + self._seconds
            self._sizes.add(size)

    def left_s(self, body: Sequence[Buffer], size: int, now: float) -> float:
        """Seconds for which this content is still refused; 0 where it is not. Only contents of a known size are hashed."""
        self._until = {mark: until for mark, until in self._until.items() if until > now}
        if not self._until:
            self._sizes.clear()
        if size not in self._sizes:
            return 0.0
        return max(0.0, self._until.get(fingerprint(body), now) - now)
