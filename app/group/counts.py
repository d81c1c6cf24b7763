"""Counts of several fronts as those of one: numbers by name, whose first letter says how they come together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

Counts = Mapping[str, float]

# First letter of a name → what becomes of the number.
COUNTER: Final = "c"  # summed, and stays in the sum when its front has died, as no counter may ever fall
GAUGE: Final = "g"  # summed over the fronts that live
LEAST: Final = "<"
LARGEST: Final = ">"


def together(counts: Iterable[Counts]) -> dict[str, float]:
    """The numbers of all, joined by their names."""
    joined: dict[str, float] = {}
    for numbers in counts:
        for name, number in numbers.items():
            if name not in joined:
                joined[name] = number
            elif name[0] == LEAST:
                joined[name] = min(joined[name], number)
            elif name[0] == LARGEST:
                joined[name] = max(joined[name], number)
            else:
                joined[name] += number
    return joined


def lasting(counts: Counts) -> dict[str, float]:
    """What of a front's numbers stays when it has died."""
    return {name: number for name, number in counts.items() if name[0] == COUNTER}
