"""One JSON value in a few words, for error messages; never the echo of something large."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

from app.errors import PullbackError
from app.query import Parameter

_TEXT_LIMIT: Final = 64  # characters of what a client sent that a refusal shows again: the longest operation's name has 47


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


def plain_parameter(value: Any, at: str, expected: str) -> Parameter:
    """The value, its lists as tuples.

    Arguments:
        expected: the plain values, in the words of the protocol.

    Raises:
        PullbackError: `bad_parameter`.
    """
    if value is None or type(value) in (str, bool, float) or (type(value) is int and -(1 << 63) <= value < 1 << 63):
        return value  # type: ignore[no-any-return]
    if type(value) is list:
        return tuple(plain_parameter(member, at, expected) for member in value)
    raise PullbackError("bad_parameter", "A parameter is a plain value.", at=at, expected=expected, given=describe(value))
