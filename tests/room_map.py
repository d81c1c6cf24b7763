"""The map of the source in docs/architecture.md, written from the docstrings: `python -m tests.room_map` (`make map`)."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

from tests.test_floors import ROOT, modules

DOCUMENT: Final = ROOT / "docs" / "architecture.md"
_TABLE: Final = re.compile(r"(?<=\| room \| what \| modules \|\n\|---\|---\|---\|\n)(?:\|.*\n)*")


def rows() -> str:
    """A row for each room: where, what its docstring says first, its modules."""
    rooms: dict[Path, list[str]] = {}
    words = {}
    for module in modules().values():
        if module.path.name == "__init__.py":
            words[module.path.parent] = (ast.get_docstring(module.tree) or "").split("\n")[0]
        else:
            rooms.setdefault(module.path.parent, []).append(module.path.stem)
    names = {room: str(room.relative_to(ROOT)) for room in rooms}
    return "".join(
        f"| [{names[room]}](../{names[room]}) | {words.get(room, '')} | {', '.join(sorted(rooms[room]))} |\n"
        for room in sorted(rooms)
    )


def drawn() -> str:
    """The rows that the document has."""
    table = _TABLE.search(DOCUMENT.read_text())
    assert table is not None
    return table[0]


if __name__ == "__main__":
    DOCUMENT.write_text(_TABLE.sub(lambda _: rows(), DOCUMENT.read_text(), count=1))
