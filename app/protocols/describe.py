"""One JSON value in a few words, for error messages; never the echo of something large.

Knows JSON's kinds of values. Refuses to know what was expected in their place.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

_TEXT_LIMIT: Final = 64


def describe(value: Any) -> str:
    """`value` in at most about 100 characters; lists and objects by their size alone."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the string {_cut(repr(value[: _TEXT_LIMIT + 1]))}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        keys = ", ".join(_cut(repr(key[:_TEXT_LIMIT]), 24) for key in list(value)[:4])
        return f"an object with the keys {keys}{', …' if len(value) > 4 else ''}" if value else "an empty object"
    if isinstance(value, int) and abs(value) >= 1 << 256:
        return f"an integer of about {int(value.bit_length() * 0.30103) + 1} digits"
    return _cut(repr(value))


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The known word that `word` probably meant, or None."""
    matches = get_close_matches(word[:_TEXT_LIMIT], list(words), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _cut(text: str, limit: int = _TEXT_LIMIT) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
