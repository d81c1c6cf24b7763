"""What the client should know of an answer besides its results, each thing said once."""

from __future__ import annotations

from app.query import Note


class Notes:
    """Collects notes in the order in which they come up."""

    def __init__(self) -> None:
        self._notes: dict[tuple[str, str], Note] = {}

    def say(self, code: str, message: str, at: str = "") -> None:
        """The first note of a code at a place stays."""
        self._notes.setdefault((code, at), Note(code, message, at))

    def all(self) -> tuple[Note, ...]:
        return tuple(self._notes.values())
