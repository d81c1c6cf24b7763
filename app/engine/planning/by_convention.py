"""What a reply must say of operations whose derivative, by convention, is another than that of their value."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from torch import fx

from app.catalogue.facts import operations_with, sentence, short, values
from app.program.function import Function

_OPERATIONS_KNOWN: Final = 512  # sets of operations, some 200 kB: 384 pasted programs have 368


def conventions(function: Function) -> tuple[tuple[str, str], ...]:
    """(operation, sentence) of those that `function` calls, in the order of their names."""
    said = _of(function.operations())
    asked = {name for name in function.operations() if short(name) in operations_with("reads_triangle", "asked")}
    if not asked or not any(_is_asked(node) for node in function.graph.nodes):
        return said
    return tuple(sorted({*said, *((name, sentence("one_triangle")) for name in asked)}))


def _is_asked(node: fx.Node) -> bool:
    """Whether a call says that its matrix is Hermitian: by name, or third as in `pinv(A, rcond, hermitian)`."""
    is_able = getattr(node.target, "__name__", "") in operations_with("reads_triangle", "asked")
    return is_able and (node.kwargs.get("hermitian") is True or (len(node.args) > 2 and node.args[2] is True))


@lru_cache(_OPERATIONS_KNOWN)
def _of(operations: frozenset[str]) -> tuple[tuple[str, str], ...]:
    known = {**values("convention"), **dict.fromkeys(operations_with("reads_triangle", "always"), "one_triangle")}
    return tuple((name, sentence(known[short(name)])) for name in sorted(operations) if short(name) in known)
