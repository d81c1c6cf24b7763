"""Strict JSON text (RFC 8259, with the literals NaN, Infinity and -Infinity) → Python values: nothing is lost or silently changed.

jiter reads it. Where jiter refuses, or would make an infinity of a number that is only too large, the standard library's scanner
reads it again: it says what is wrong at which byte, and its hooks keep such a number as it was written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import jiter
import numpy as np

from app.errors import PullbackError
from app.limits import JSON_DEPTH_LIMIT

Body = bytes | bytearray | memoryview

_INTEGER_DIGITS_LIMIT: Final = 4300  # Python's own limit against quadratic conversion
# A number of which digits and exponent together reach float64's limit, 10^308, has an exponent of three digits or 200 digits at
# least. All digits become 0 and E becomes e before these are searched for.
_DIGITS: Final = bytes.maketrans(b"123456789E", b"000000000e")
_EXPONENTS: Final = (b"e000", b"e+000")
_LONG: Final = b"0" * 200  # the digits
# Below this size searching the text (1 ns a byte) costs less than walking the tree (some 3 µs and 10 ns a number).
_SMALL_BYTES: Final = 3 << 10
# From this size on it is asked first whether the values of a text find room.
_LARGE_BYTES: Final = 256 << 10
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """Stands in the tree for a number that no float64 and no integer of 4300 digits holds (`1e999`).

    It is no number and no string, so whoever reads a value of some type refuses it, at its exact place.
    """

    text: str

    def __repr__(self) -> str:
        return f"{self.text[:24]}{'…' if len(self.text) > 24 else ''} (beyond the range of float64)"


class _RepeatedKeyError(ValueError):
    pass


def parse(body: Body, *, name: str = "the body", depth_limit: int = JSON_DEPTH_LIMIT) -> Any:
    """The value that `body` spells, in dicts, lists, strings, ints, floats, bools, None and `OutOfRange`.

    Arguments:
        body: UTF-8 text, without a byte order mark.
        name: what the text is, for the error messages.
        depth_limit: how many lists and objects may stand inside each other.

    Raises `bad_json` (with the byte offset), `duplicate_key`, `json_depth`; MemoryError where its values would find no room.
    """
    _check_memory(body)
    try:
        value = jiter.from_json(bytes(body), catch_duplicate_keys=True, cache_mode="keys")
    except ValueError:
        return _explained(body, name, depth_limit)
    return _checked(value, body, name, depth_limit, may_be_infinite=True)


def again(body: Body, value: dict[str, Any], unread: dict[str, Any] | None = None) -> Any:
    """What `parse` gives, of a text that `plain_object` has read as this `value`; `unread`: without what is known not to be too deep."""
    if unread is None:
        return _checked(value, body, "the body", JSON_DEPTH_LIMIT, may_be_infinite=False)
    is_deep = _depth_and_finiteness(unread)[0] > JSON_DEPTH_LIMIT
    return _explained(body, "the body", JSON_DEPTH_LIMIT) if is_deep else value


def _checked(value: Any, body: Body, name: str, depth_limit: int, *, may_be_infinite: bool) -> Any:
    if len(body) <= _SMALL_BYTES:
        depth = _brackets(body)
        finite = False
    else:
        depth, finite = _depth_and_finiteness(value)
    if depth > depth_limit or (may_be_infinite and not finite and may_overflow(bytes(body))):
        return _explained(body, name, depth_limit)
    return value


def _check_memory(body: Body) -> None:
    """Raises MemoryError where the values that `body` spells would find no memory: jiter, being Rust, ends the process then.

    An element is a place in its list, twice while that grows, and an object of 24 or 32 bytes; a list or dict has some 100 or 250 bytes
    of its own (measured: a parse needs 8 to 47 bytes of address space an element, 95 where each is a list).
    """
    if len(body) < _LARGE_BYTES:
        return
    text = bytes(body)
    np.empty(2 * len(text) + 56 * text.count(b",") + 128 * text.count(b"[") + 256 * text.count(b"{"), np.uint8)


def _brackets(body: Body) -> int:
    """At least as many as containers stand inside each other."""
    text = bytes(body)
    return text.count(b"[") + text.count(b"{")


def may_overflow(body: bytes) -> bool:
    """Whether a number in the text may be too large for float64."""
    digits = body.translate(_DIGITS)
    return any(exponent in digits for exponent in _EXPONENTS) or _LONG in digits


def plain_object(text: bytes) -> dict[str, Any] | None:
    """The object that `text` spells; None for another value, and for a text of which `parse` may have more to say."""
    if may_overflow(text):
        return None
    try:
        value = jiter.from_json(text, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError:
        return None
    return value if type(value) is dict else None


def _depth_and_finiteness(value: Any) -> tuple[int, bool]:
    """How many containers stand inside each other, and whether every float is finite for certain."""
    depth, finite = 0, True
    level: Sequence[Any] = [value]
    while True:
        kinds = set(map(type, level))
        if float in kinds:
            floats = level if len(kinds) == 1 else [v for v in level if type(v) is float]
            finite = finite and math.isfinite(sum(floats))
        if list not in kinds and dict not in kinds:
            return depth, finite
        depth += 1
        objects: Sequence[dict[str, Any]] = [v for v in level if type(v) is dict] if dict in kinds else ()
        lists: Sequence[list[Any]] = [v for v in level if type(v) is list] if len(kinds) > 1 else () if objects else level
        level = list(chain(chain.from_iterable(lists), chain.from_iterable([o.values() for o in objects])))


def elements(body: Body, *, name: str = "the body") -> list[bytes]:
    """The elements of the JSON list that `body` spells, each as its own text, cut from the body unchanged.

    Checks the syntax alone: each element is parsed by whoever takes it. Raises `bad_json`, `json_depth`, and `bad_request` when
    the value is not a list.
    """
    text = _decode(body, name)
    start = _skip_space(text, 0)
    if text[start : start + 1] != "[":
        raise PullbackError(
            "bad_request",
            f"{_capital(name)} must be a JSON list.",
            expected="a list",
            given=_head(text),
            fix="Send [query, query, …].",
        )
    pieces: list[bytes] = []
    try:
        end = _skip_space(text, start + 1)
        closed = text[end : end + 1] == "]"
        while not closed:
            begin = end
            end = _scan_syntax(text, begin)
            pieces.append(text[begin:end].encode())
            end = _skip_space(text, end)
            closed = text[end : end + 1] == "]"
            if not closed:
                if text[end : end + 1] != ",":
                    raise json.JSONDecodeError("Expecting ',' delimiter", text, end)
                end = _skip_space(text, end + 1)
        if _skip_space(text, end + 1) != len(text):
            raise json.JSONDecodeError("Extra data", text, _skip_space(text, end + 1))
    except json.JSONDecodeError as error:
        raise _syntax(error, name) from None
    except RecursionError:
        raise _too_deep(name, JSON_DEPTH_LIMIT) from None
    return pieces


# --- what jiter does not say, or not exactly -------------------------------------------------------------------------


def _explained(body: Body, name: str, depth_limit: int) -> Any:
    text = _decode(body, name)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _syntax(error, name) from None
    except _RepeatedKeyError as error:
        raise _repeated(str(error.args[0]), name) from None
    except RecursionError:
        raise _too_deep(name, depth_limit) from None
    if _brackets(body) > depth_limit and _depth_and_finiteness(value)[0] > depth_limit:
        raise _too_deep(name, depth_limit)
    if _SURROGATE.search(body):
        _refuse_lone_surrogates(value, text, name)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RepeatedKeyError(_first_repeated(pairs))
    return members


def _first_repeated(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    raise ValueError("no key is repeated")


def _float(text: str) -> float | OutOfRange:
    number = float(text)
    return OutOfRange(text) if number - number != 0.0 else number


def _integer(text: str) -> int | OutOfRange:
    return int(text) if len(text) <= _INTEGER_DIGITS_LIMIT else OutOfRange(text)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_integer)
# Numbers become `bool("12")`: the cheapest call that makes nothing, where only the syntax matters.
_SYNTAX: Final = json.JSONDecoder(parse_float=bool, parse_int=bool)


def _scan_syntax(text: str, begin: int) -> int:
    """Where the value that begins at `begin` ends."""
    return _SYNTAX.raw_decode(text, begin)[1]


def _decode(body: Body, name: str) -> str:
    try:
        text = str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise PullbackError(
            "bad_json",
            f"{_capital(name)} is not UTF-8: byte {error.start} is wrong.",
            expected="JSON text in UTF-8",
            given=f"the byte 0x{error.object[error.start]:02x} at byte {error.start}",
        ) from None
    if text.startswith("\ufeff"):
        raise PullbackError(
            "bad_json",
            f"{_capital(name)} begins with a byte order mark, which JSON forbids.",
            fix="Send UTF-8 without the first three bytes.",
        )
    if _skip_space(text, 0) == len(text):
        raise PullbackError("bad_json", f"{_capital(name)} is empty.", expected="JSON text", given="nothing")
    return text


def _skip_space(text: str, begin: int) -> int:
    spaces = _SPACE.match(text, begin)
    return spaces.end() if spaces else begin


def _refuse_lone_surrogates(value: Any, text: str, name: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False, default=repr).encode()
    except UnicodeEncodeError:
        begin = next(string.start() for string in _STRING.finditer(text) if _is_broken(string[0]))
        raise PullbackError(
            "bad_json",
            f"{_capital(name)} has half of a surrogate pair in the string at byte {len(text[:begin].encode())}: it is no character.",
            fix="Write both halves (\\ud83d\\ude00), or the character itself.",
        ) from None


def _is_broken(literal: str) -> bool:
    try:
        json.loads(literal).encode()
    except UnicodeEncodeError:
        return True
    return False


# --- what is said ----------------------------------------------------------------------------------------------------


def _syntax(error: json.JSONDecodeError, name: str) -> PullbackError:
    offset = len(error.doc[: error.pos].encode())
    return PullbackError(
        "bad_json",
        f"{_capital(name)} is not valid JSON: {error.msg.removesuffix(' at')} at byte {offset} (line {error.lineno}, column {error.colno}).",
        given=_head(error.doc[error.pos : error.pos + 25]),
    )


def _head(text: str) -> str:
    return repr(text[:24]) if text else "the end of the text"


def _repeated(key: str, name: str) -> PullbackError:
    return PullbackError(
        "duplicate_key",
        f"The key {key[:64]!r} stands twice in one object of {name}, so one value would be lost.",
        at=key,
        fix="Send each key once.",
    )


def _too_deep(name: str, limit: int) -> PullbackError:
    return PullbackError(
        "json_depth",
        f"{_capital(name)} is nested too deeply.",
        expected=f"at most {limit} lists and objects inside each other",
        fix="Send a flat list with `shape`.",
    )


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
