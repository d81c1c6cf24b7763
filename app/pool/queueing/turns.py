"""Turns: queries that wait, each client's in their order, and one client after the other.

Round robin by client: whoever has sent a thousand queries waits for his own, and whoever sends his first is next after one of each other
client's (Nagle, "On packet switches with infinite storage", RFC 970: fairness by source instead of by arrival).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import chain

from app.pool.job import Job


class Turns:
    """The lines of the clients, in the order of their turns; `len` of it is the number of queries."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Job]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Job]:
        """Each client's in their order."""
        return (job for line in self._lines.values() for job in line)

    def append(self, job: Job) -> None:
        """Behind the client's others."""
        self._lines.setdefault(job.client, deque()).append(job)
        self._count += 1
        job.is_waiting = True

    def put_back(self, job: Job) -> None:
        """Before the client's others, as it was; a client that has no others has the next turn: this one was his."""
        if job.client in self._lines:
            self._lines[job.client].appendleft(job)
        else:
            self._lines = {job.client: deque((job,)), **self._lines}
        self._count += 1
        job.is_waiting = True

    def pop(self, fits: Callable[[Job], bool] | None = None, *, last: bool = False, but: Set[str] = frozenset()) -> Job | None:
        """The next, or the first (or the last) that `fits` of the client whose turn it is and who has one; none of the clients in `but`.

        Its client goes behind the others.
        """
        for client, line in self._lines.items():
            if client in but:
                continue
            job = line[0] if fits is None else next(filter(fits, reversed(line) if last else line), None)
            if job is not None:
                self.remove(job)
                self.send_behind(client)
                return job
        return None

    def first(self, *, but: Set[str] = frozenset()) -> Job | None:
        """What `pop` would give, which stays."""
        return next((line[0] for client, line in self._lines.items() if client not in but), None)

    def send_behind(self, client: str) -> None:
        """The client has had a turn: the others come first."""
        if client in self._lines:
            self._lines[client] = self._lines.pop(client)

    def remove(self, job: Job) -> None:
        """It waits no more."""
        line = self._lines[job.client]
        line.remove(job)
        if not line:
            del self._lines[job.client]
        self._count -= 1
        job.is_waiting = False

    def has(self, fits: Callable[[Job], bool], *, but: Set[str] = frozenset()) -> bool:
        """Whether one that `fits` waits, of a client that is not in `but`."""
        return any(fits(job) for client, line in self._lines.items() if client not in but for job in line)

    def count_of(self, client: str) -> int:
        return len(self._lines.get(client, ()))

    def longest(self) -> Job | None:
        """The last of the longest line; None where nobody waits."""
        line = max(self._lines.values(), key=len, default=None)
        return None if line is None else line[-1]

    def waits_since(self) -> float | None:
        """Since when, on CLOCK_MONOTONIC, the first of some client has been in the queue for longest; None where nobody waits."""
        return min((line[0].queued for line in self._lines.values()), default=None)


def last_of_the_longest(lines: Sequence[Turns], *, but: str) -> Job | None:
    """The last query of the client who has most; None where one more of client `but` would be as many."""
    longest = [job for job in (turns.longest() for turns in lines) if job is not None]
    counts = {job.client: sum(turns.count_of(job.client) for turns in lines) for job in longest}
    last = max(longest, key=lambda job: counts[job.client], default=None)
    return last if last is not None and counts[last.client] > sum(turns.count_of(but) for turns in lines) + 1 else None


def largest(lines: Sequence[Turns], *, but: str) -> Job | None:
    """The largest query of the client whose bodies are the most bytes; None where that is client `but`, or nobody waits."""
    sizes: Counter[str] = Counter()
    for job in chain.from_iterable(lines):
        sizes[job.client] += job.size
    client = max(sizes, key=sizes.__getitem__, default=but)
    if client == but:
        return None
    return max((job for job in chain.from_iterable(lines) if job.client == client), key=lambda job: job.size)
