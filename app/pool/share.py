"""A front's share of the service: all of it, where there is one front; else what it has, and what it knows of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from app.pool.budget import ByteBudget

_Slot = TypeVar("_Slot")


class Share:
    """All of it: one front.

    Attributes:
        index, count: which of how many fronts this is.
    """

    index = 0
    count = 1

    def slots(self, slots: Sequence[_Slot]) -> Sequence[_Slot]:
        """Of all the service's worker slots, those of this front."""
        return slots[self.index :: self.count]

    def too_few(self, workers: int) -> str:
        """Why there is nothing to do here."""
        return (
            f"There are {self.count} fronts for {workers} workers, one for each GPU: set PULLBACK_FRONTS to {workers} at most, or "
            f"PULLBACK_WORKERS to {self.count} at least."
        )

    def worker_number(self, index: int) -> int:
        """A worker's number in the whole service, by its place among this front's."""
        return index * self.count + self.index

    def budget(self, limit_bytes: int) -> ByteBudget:
        """For bytes of bodies and replies, of which all fronts together may hold `limit_bytes`."""
        return ByteBudget(limit_bytes)

    @property
    def waiting_elsewhere(self) -> int:
        """Queries that wait in other fronts."""
        return 0

    def tell_waiting(self, count: int) -> None:
        """So many queries wait here."""

    def tell_quarantined(self, mark: str, size: int) -> None:
        """A query of this fingerprint and size has cost two workers here."""

    def tell_lesson(self, asked: bytes, meta: bytes, body: bytes) -> None:
        """A worker here had to learn for a query, as `Rehearsal.learn` has it."""

    def tell_deadly_lesson(self, mark: bytes) -> None:
        """A worker here has died of a lesson, as `Rehearsal.forget` has it."""

    @property
    def is_ready_elsewhere(self) -> bool:
        """Another front has a worker that answers, and is handed what comes."""
        return False

    async def of_all(self, counts: Mapping[str, float]) -> Mapping[str, float]:
        """The counts of all fronts; `counts`: this one's."""
        return counts
