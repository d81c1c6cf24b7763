"""Named tuples of a program: those of its own classes, and what PyTorch gives as one."""

from __future__ import annotations

from collections.abc import Iterable

from app.program.semantics.graph_values import Value
from app.program.semantics.values import ClassValue


class Record(tuple):  # type: ignore[type-arg]
    """A named tuple of the program.

    Attributes:
        kind: the class of the program that it is an object of; None of what PyTorch gives.
    """

    fields: tuple[str, ...]
    kind: ClassValue | None = None


def named_tuple(members: Iterable[Value], fields: tuple[str, ...], kind: ClassValue | None = None) -> Record:
    """One with these members."""
    record = Record(members)
    record.fields, record.kind = fields, kind
    return record
