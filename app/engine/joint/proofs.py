"""Proofs that are due: what comes often enough is recorded and proved, step by step, in time that nobody waits for."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

# Runs of one computation before it is proved: as many as take as long as a proof of a brief one (45 ms), so that what has been given away by
# then is at most as much again. After 8, the ninth of queries that came every 25 ms waited 5 to 10 ms for a proof's first steps.
PROVED_AFTER = 256
_SETS: Final = 4  # of numbers that came, all different: enough to tell chance from rule with those that are made of them
# Of a query, and of its quickest run where it is not brief: what is saved between PyTorch's calls is some 0.3 ms, and a step of a proof may
# hold up a query for two such runs.
_BYTES_LIMIT: Final = 2 << 20
_SECONDS_LIMIT: Final = 0.005
# Of the numbers that are kept until they prove something, and again of the proofs that are due: two of the largest; 95% of
# pasted programs are sent less than 600 bytes.
_HELD_BYTES: Final = 16 << 20
_DUE_LIMIT: Final = 64  # proofs, each with its recipe: 24 MB of the largest 5% of pasted programs (374 kB)


class Came:
    """Numbers of the queries that came to one computation, until there are enough to prove it.

    Arguments:
        size: bytes of one set of them.
        beside: bytes of the computation itself, which a proof that is due keeps too.
        is_brief: a run is known to take less than a millisecond, on a machine that is not busy.

    Attributes:
        bytes: of all that it may keep.
        due_bytes: of its proof while that is due.
        sets: those that differ.
    """

    def __init__(self, size: int, beside: int = 0, *, is_brief: bool) -> None:
        self.bytes = _SETS * size
        self.due_bytes = self.bytes + beside
        self._is_brief = is_brief
        self.sets: list[Any] = []
        self._runs = 0
        self._seconds = math.inf

    @classmethod
    def of(cls, size: int, beside: int, *, is_brief: bool) -> Came | None:
        """None where the computation of so many bytes is not proved."""
        return cls(size, beside, is_brief=is_brief) if size <= _BYTES_LIMIT else None

    @property
    def is_enough(self) -> bool:
        return self._runs >= PROVED_AFTER and bool(self.sets)

    @property
    def is_too_long(self) -> bool:
        """What is computed takes so long that nothing is gained."""
        return not self._is_brief and self._runs >= PROVED_AFTER and self._seconds > _SECONDS_LIMIT

    def note(self, numbers: Any, seconds: float) -> bool:
        """One more has come, and was computed in so many seconds; whether its numbers are kept."""
        self._runs += 1
        self._seconds = min(self._seconds, seconds)
        if self._runs <= PROVED_AFTER - _SETS or len(self.sets) == _SETS:
            return False
        # Of a body that came as bytes a copy: its memory is used again.
        owned = tuple([bytes(part) if type(part) is memoryview else part for part in numbers])
        if owned in self.sets:
            return False
        self.sets.append(owned)
        return True

    def forget(self) -> list[Any]:
        """The sets, which are kept no more; it begins anew."""
        sets, self.sets, self._runs = self.sets, [], 0
        return sets


class _Due(NamedTuple):
    steps: Iterator[None]
    done: Callable[[bool], None]
    size: int


class Proofs:
    """Those that are due, in their order, and the numbers that are kept for those to come."""

    def __init__(self) -> None:
        self._due: deque[_Due] = deque()
        self._due_bytes = 0
        self._holding: OrderedDict[Came, None] = OrderedDict()
        self._held_bytes = 0

    def note(self, came: Came, numbers: Any, seconds: float) -> bool:
        """One more query has come to a computation; whether there is enough, and room, to prove it."""
        if came.note(numbers, seconds) and came not in self._holding:
            self._holding[came] = None
            self._held_bytes += came.bytes
            while self._held_bytes > _HELD_BYTES:
                self.release(next(iter(self._holding)))
        has_room = not self._due or (len(self._due) < _DUE_LIMIT and self._due_bytes + came.due_bytes <= _HELD_BYTES)
        return came.is_enough and has_room

    def release(self, came: Came) -> list[Any]:
        """The numbers that it has kept; they are not kept any more."""
        if came in self._holding:
            del self._holding[came]
            self._held_bytes -= came.bytes
        return came.forget()

    def add(self, steps: Iterator[None], done: Callable[[bool], None], size: int) -> None:
        """`steps`: each of about a millisecond; `done` is told whether they came to their end; `size`: bytes that they keep."""
        self._due.append(_Due(steps, done, size))
        self._due_bytes += size

    def step(self) -> bool:
        """One step of the first; False where none is due."""
        while self._due:
            steps, done, size = self._due[0]
            try:
                next(steps)
                return True
            except StopIteration:
                is_done = True
            except Exception:  # PyTorch has something against the recorded calls: then they are not the same
                is_done = False
            self._due.popleft()
            self._due_bytes -= size
            done(is_done)
        return False
