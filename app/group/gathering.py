"""Gathering: a front asks for the counts of all, the others are asked for theirs, and it gets the sum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final

from app.group.counts import lasting, together
from app.group.front_process import FrontProcess

# A front answers within a turn of its event loop: two on two busy cores within 20 ms (measured, `/metrics`). Of one that does not, what it
# said last is taken; Prometheus waits ten seconds for a scrape (its default scrape_timeout).
_LIMIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Gathering:
    asker: FrontProcess
    number: int  # by which the asker knows it
    missing: set[int]  # fronts that have not answered
    until: float


class Gatherings:
    """Those that are under way. `fronts`: all that live, by index."""

    def __init__(self, fronts: Mapping[int, FrontProcess]) -> None:
        self._fronts = fronts
        self._numbers = count(1)
        self._open: dict[int, _Gathering] = {}
        self._ended: dict[str, float] = {}  # what fronts had counted that have died

    def begin(self, asker: FrontProcess, number: int, now: float) -> None:
        """`asker` has said its own counts, and wants those of all."""
        own = next(self._numbers)
        asked = {front.index for front in self._fronts.values() if front is not asker and front.is_up}
        self._open[own] = _Gathering(asker, number, asked, now + _LIMIT_S)
        for index in list(asked):
            if not self._fronts[index].line.say("count", number=own):
                asked.discard(index)
        self._settle(own)

    def answered(self, front: FrontProcess, number: int | None) -> None:
        """A front has said its counts, for a gathering or of itself (None)."""
        if number in self._open:
            self._open[number].missing.discard(front.index)
            self._settle(number)

    def lost(self, front: FrontProcess) -> None:
        """It has died, and is among the fronts no more."""
        self._ended = together((self._ended, lasting(front.counts)))
        for number, gathering in list(self._open.items()):
            if gathering.asker is front:
                del self._open[number]
            else:
                gathering.missing.discard(front.index)
                self._settle(number)

    def round(self, now: float) -> None:
        """Now and then: what nobody answers any more is settled without."""
        for number, gathering in list(self._open.items()):
            if gathering.until <= now:
                gathering.missing.clear()
                self._settle(number)

    def left_s(self, now: float) -> float:
        """Seconds until a round is due; infinite where nothing is under way."""
        return min((gathering.until - now for gathering in self._open.values()), default=math.inf)

    def _settle(self, number: int) -> None:
        gathering = self._open[number]
        if not gathering.missing:
            del self._open[number]
            counts = together((self._ended, *(front.counts for front in self._fronts.values())))
            gathering.asker.line.say("counts", number=gathering.number, counts=counts)
