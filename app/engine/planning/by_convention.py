"""What a reply must say of operations whose derivative, by convention, is another than that of their value."""

from __future__ import annotations

from app.catalogue.facts import sentence, short, values
from app.program.function import Function


def conventions(function: Function) -> tuple[tuple[str, str], ...]:
    """(operation, sentence) of those that `function` calls, in the order of their names."""
    known = {**values("convention"), **dict.fromkeys(_TAKEN_FOR_SYMMETRIC, "one_triangle")}
    return tuple((name, sentence(known[short(name)])) for name in sorted(function.operations()) if short(name) in known)


# Of those that read one triangle `pinv` does so only where it is asked to.
_TAKEN_FOR_SYMMETRIC = frozenset(values("reads_triangle")) - {"pinv"}
