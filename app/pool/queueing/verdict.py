"""The verdict on a worker's death: whether the query that it computed is to blame.

A crash (a segmentation fault, an abort, an exit) is. A SIGKILL that is not ours may be, as where it ran the machine out of memory or
somebody stopped it for what it did; but not where the query had hardly begun, nor where workers with other queries are being killed too.
"""

from __future__ import annotations

from collections import deque
from typing import Final

# How a process ended that signal 9 killed, as Python says it: the kernel out of memory, or an operator.
SIGKILL: Final = -9
# Fewer than 80 MiB can be touched within it (1.3 ms a MiB, slabs/front_bodies.py): the kill was meant for another.
_INNOCENT_S: Final = 0.1
# So many deaths with other queries, or with none, in so many seconds: somebody kills at random.
_OTHERS: Final = 3
_OTHERS_S: Final = 5.0


class Verdict:
    """The SIGKILLs of the last seconds, and the ends that nobody knows, by the number of the query that each befell; 0 for none."""

    def __init__(self) -> None:
        self._kills: deque[tuple[float, int]] = deque()

    def is_guilty(self, exit_code: int | None, number: int, ran_s: float, now: float) -> bool:
        """Of a death at `now` with query `number`, which had run for `ran_s` seconds; `exit_code`: None where nobody knows it."""
        if exit_code is None or exit_code == SIGKILL:
            # One that nobody knows may have been a kill: a busy machine tells how a process died too late.
            self._kills.append((now, number))
            while self._kills[0][0] < now - _OTHERS_S:
                self._kills.popleft()
            others = sum(other != number for _, other in self._kills)
            return exit_code is not None and ran_s > _INNOCENT_S and others < _OTHERS
        return True
