"""The connections that are open at once, by client: no more than descriptors and memory allow, and none has all of them."""

from __future__ import annotations

import resource
from collections import Counter
from typing import Final, Literal, Protocol

from app.pool.frames import LARGE_BYTES

# Of what a client does not take of a reply, so much may wait uncounted on each connection; smaller replies are kept whole.
_UNCOUNTED_BYTES: Final = LARGE_BYTES
# All of them together may hold so much of the room for bodies and replies once more.
_SHARE: Final = 4
_LEAST: Final = 256  # a small machine's clients still come in
_MOST: Final = 8192  # 512 MiB of what is uncounted; more connections belong before several servers
# Descriptors for all else: listeners, the log, the forkserver, each worker's line and pidfd; and for what each opens for a moment.
_OTHERS: Final = 128
_A_WORKER: Final = 4
# Refused ones that may still read why; beyond them they are cut without a word.
REFUSED_AT_ONCE: Final = 64


def most_connections(queue_bytes: int, workers: int, fronts: int = 1) -> int:
    """How many one of the fronts may have where all may hold `queue_bytes` of bodies and replies, with so many workers."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    by_descriptors = descriptors - _OTHERS - REFUSED_AT_ONCE - _A_WORKER * workers
    by_memory = max(_LEAST, min(_MOST, queue_bytes // _SHARE // _UNCOUNTED_BYTES))
    return max(1, min(by_descriptors, by_memory // fronts))


Admission = Literal["admitted", "refused", "cut"]


class Member(Protocol):
    """A connection, as it is counted."""

    @property
    def address(self) -> str:
        """The client's, as the queue tells clients apart."""

    @property
    def is_answering(self) -> bool:
        """A request is being answered on it."""

    def leave(self) -> None:
        """Close it: others need its place."""


class Connections:
    """Those that are open, `limit` at most, and some that are refused; 0 = any number."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[Member, str] = {}  # in the order in which they came
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def join(self, member: Member) -> Admission:
        """One more. `refused`: there is no place for it; `cut`: nor for a refusal."""
        address = member.address
        self._open[member] = address
        self._counts[address] += 1
        if not self._limit or len(self._open) <= self._limit:
            return "admitted"
        greediest, count = self._counts.most_common(1)[0]
        if count > self._counts[address]:
            # Of the one that has most, one that waits for a request makes way: clients expect that (RFC 9112, section 9.5).
            waiting = (other for other, whose in self._open.items() if whose == greediest and not other.is_answering)
            if (first := next(waiting, None)) is not None:
                self.part(first)
                first.leave()
                return "admitted"
        return "refused" if len(self._open) <= self._limit + REFUSED_AT_ONCE else "cut"

    def part(self, member: Member) -> None:
        """It is closed."""
        address = self._open.pop(member, None)
        if address is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]
