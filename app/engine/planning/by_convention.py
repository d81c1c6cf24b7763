"""What a reply must say of operations whose derivative, by convention, is another than that of their value."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from app.catalogue.facts import operations_with, sentence, short, values
from app.program.function import Function

_OPERATIONS_KNOWN: Final = 512  # sets of operations, some 200 kB: 384 pasted programs have 368


def conventions(function: Function) -> tuple[tuple[str, str], ...]:
    """(operation, sentence) of those that `function` calls, in the order of their names."""
    return _of(function.operations())


@lru_cache(_OPERATIONS_KNOWN)
def _of(operations: frozenset[str]) -> tuple[tuple[str, str], ...]:
    known = {**values("convention"), **dict.fromkeys(operations_with("reads_triangle", "always"), "one_triangle")}
    return tuple((name, sentence(known[short(name)])) for name in sorted(operations) if short(name) in known)
