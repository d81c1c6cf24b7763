"""What a reply must say of operations whose derivative, by convention, is another than that of their value."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from app.catalogue.facts import sentence, short, values
from app.program.function import Function

_OPERATIONS_KNOWN: Final = 512  # sets of operations, some 200 kB: 384 pasted programs have 368


def conventions(function: Function) -> tuple[tuple[str, str], ...]:
    """(operation, sentence) of those that `function` calls, in the order of their names."""
    return _of(function.operations())


@lru_cache(_OPERATIONS_KNOWN)
def _of(operations: frozenset[str]) -> tuple[tuple[str, str], ...]:
    known = {**values("convention"), **dict.fromkeys(_TAKEN_FOR_SYMMETRIC, "one_triangle")}
    return tuple((name, sentence(known[short(name)])) for name in sorted(operations) if short(name) in known)


# Of those that read one triangle `pinv` does so only where it is asked to.
_TAKEN_FOR_SYMMETRIC = frozenset(values("reads_triangle")) - {"pinv"}
