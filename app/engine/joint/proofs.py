"""Proofs that are due: what comes often enough is recorded and proved, step by step, in time that nobody waits for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

# Runs of one computation before it is proved: a proof takes as long as some 300 of them, in time that is idle. Chosen.
_PROVED_AFTER: Final = 8
_SETS: Final = 4  # of numbers that came, all different: enough to tell chance from rule with those that are made of them


class Proofs:
    """Those that are due, in their order."""

    def __init__(self) -> None:
        self._due: deque[tuple[Iterator[None], Callable[[bool], None]]] = deque()

    def add(self, steps: Iterator[None], done: Callable[[bool], None]) -> None:
        """`steps`: each of about a millisecond; `done` is told whether they came to their end."""
        self._due.append((steps, done))

    def step(self) -> bool:
        """One step of the first; False where none is due."""
        while self._due:
            steps, done = self._due[0]
            try:
                next(steps)
            except StopIteration:
                self._due.popleft()
                done(True)
            except Exception:  # PyTorch has something against the recorded calls: then they are not the same
                self._due.popleft()
                done(False)
            else:
                return True
        return False


class Came:
    """Numbers of the queries that came to one computation, until there are enough to prove it.

    Attributes:
        is_enough: so many have come.
        sets: those that differ.
    """

    def __init__(self) -> None:
        self.sets: list[Any] = []
        self._runs = 0

    @property
    def is_enough(self) -> bool:
        return self._runs >= _PROVED_AFTER

    def note(self, numbers: Any) -> None:
        """One more has come."""
        self._runs += 1
        if len(self.sets) < _SETS:
            # Of a body that came as bytes a copy: its memory is used again.
            owned = tuple([bytes(part) if type(part) is memoryview else part for part in numbers])
            if owned not in self.sets:
                self.sets.append(owned)
