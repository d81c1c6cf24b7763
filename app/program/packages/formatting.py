"""Texts that a program makes of plain values: f-strings, `%`, `.format()`, `.join()`; names of modules, keys, and what is printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import torch

from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.values import ClassValue, ErrorValue, Inert, Instance

# Widths of more than three digits would make texts of megabytes.
_SPEC: Final = re.compile(r"(?:.?[<>=^])?[+\- ]?#?0?\d{0,3}[_,]?(?:\.\d{1,2})?[bcdeEfFgGnosxX%]?")
_FIELD: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*|\d*)(![rs])?(?::([^{}]*))?\}")
_PERCENT: Final = re.compile(r"%(?:\((\w+)\))?([#0\- +]*\d{0,3}(?:\.\d{1,2})?)[hlL]?([diouxXeEfFgGcrs%])")
_METHODS: Final = (
    "lower", "upper", "startswith", "endswith", "strip", "lstrip", "rstrip", "split", "replace", "title", "capitalize", "isdigit", "count",
    "removeprefix", "removesuffix", "find", "index", "rfind", "isalpha", "isalnum", "isupper", "islower", "isspace", "splitlines", "zfill",
    "ljust", "rjust", "center", "rsplit", "partition", "rpartition", "swapcase", "casefold",
)  # fmt: skip
# A text that holds tensors: it can be printed, and nothing else.
TEXT: Final = Inert(static.UNKNOWN_TEXT)


def is_plain(value: Any) -> bool:
    return isinstance(value, int | float | complex | str | bool) or value is None


def text_of(value: Any) -> Any:
    """`str(value)`; `TEXT` where that is not written out here."""
    if isinstance(value, torch.dtype) or is_plain(value):
        return str(value)
    if type(value) in (list, dict):
        static.members_in(value)
        return _written_out(value)
    if isinstance(value, Instance) and isinstance(value.kind, ClassValue) and isinstance(value.own.get("args"), tuple):
        raises, arguments = value.kind.builtin, value.own["args"]  # an exception of the program
    elif isinstance(value, ErrorValue) and value.arguments is not None:
        raises, arguments = value.raises, value.arguments
    else:
        return TEXT
    if len(arguments) != 1:
        return TEXT if arguments else ""
    if raises == "KeyError":
        return repr(arguments[0]) if is_plain(arguments[0]) else TEXT
    return text_of(arguments[0])


def _written_out(value: Any) -> Any:
    """Lists and dicts of plain values as Python writes them; a tuple may be a tensor's shape, which PyTorch writes in its own way."""
    if is_plain(value):
        return repr(value) if isinstance(value, str) else str(value)
    if type(value) is dict:
        pairs = [(_written_out(key), _written_out(member)) for key, member in value.items()]
        parts: list[Any] = [TEXT if TEXT in pair else f"{pair[0]}: {pair[1]}" for pair in pairs]
    elif type(value) is list:
        parts = [_written_out(member) for member in value]
    else:
        return TEXT
    if TEXT in parts or sum(map(len, parts)) > static.LENGTH_LIMIT:
        return TEXT
    return f"{{{', '.join(parts)}}}" if type(value) is dict else f"[{', '.join(parts)}]"


def formatted(value: Any, spec: str, conversion: str = "") -> Any:
    """`f"{value:spec}"`; `TEXT` where the value is no plain one."""
    if not is_plain(value):
        value = TEXT if conversion else text_of(value)
        if value is TEXT:
            return TEXT
    if not _SPEC.fullmatch(spec):
        raise Refusal(f"The format `{spec[:20]}` is not in the language.", "Write a format like `.3f`.")
    text = repr(value) if conversion == "r" else value
    return static.computed(format, text, spec, what="The format")


def joined(parts: list[Any]) -> Any:
    """Parts of an f-string as one text."""
    if any(not isinstance(part, str) for part in parts):
        return TEXT
    static.check_length(sum(map(len, parts)))
    return "".join(parts)


def percent(text: str, values: Any) -> Any:
    """`text % values`."""
    named = values if isinstance(values, dict) else {}
    rest = list(values) if isinstance(values, tuple) else [values]
    parts: list[Any] = []
    end = 0
    for match in _PERCENT.finditer(text):
        parts.append(_without_percent(text[end : match.start()]))
        end = match.end()
        key, flags, kind = match[1], match[2], match[3]
        if kind == "%":
            parts.append("%")
            continue
        if (key is None and not rest) or (key is not None and key not in named):
            raise Refusal("This text has more places than there are values.", "Give a value for each `%`.")
        value = named[key] if key is not None else rest.pop(0)
        parts.append(static.computed(lambda f, v: f % v, f"%{flags}{kind}", value, what="`%`") if is_plain(value) else TEXT)
    parts.append(_without_percent(text[end:]))
    if rest and (isinstance(values, tuple) or is_plain(values)):
        raise Refusal("This text has fewer places than there are values.", "Write a `%` for each value.", raises="TypeError")
    return joined(parts)


def _without_percent(text: str) -> str:
    """`text`. Raises a refusal where a `%` stands in it, which is none of those that are understood."""
    if "%" in text:
        raise Refusal(
            "A format of this text is not in the language.", "Write a format like `%.3f`, and `%%` for a percent sign."
        )
    return text


def _filled(text: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """`text.format(…)` with plain fields."""
    parts: list[Any] = []
    end, count = 0, 0
    for match in _FIELD.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        if match[0] in ("{{", "}}"):
            parts.append(match[0][0])
            continue
        key = match[1]
        index = count if key == "" else int(key) if key.isdigit() and len(key) < 4 else None
        count += key == ""
        if (index is None and key not in kwargs) or (index is not None and index >= len(args)):
            raise Refusal("This text has a place for a value that is not there.", "Give a value for each `{}`.")
        value = kwargs[key] if index is None else args[index]
        parts.append(formatted(value, match[3] or "", (match[2] or "")[1:]))
    parts.append(text[end:])
    if any(isinstance(part, str) and ("{" in part or "}" in part) and part not in ("{", "}") for part in parts):
        raise Refusal("Only plain fields stand in a text here: `{}`, `{0}`, `{name:.3f}`.", "Leave the text out.")
    return joined(parts)


def method(text: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Methods of strings."""
    if name in ("mkdir", "unlink", "resolve", "expanduser") and isinstance(text, static.PathText):
        return text if name in ("resolve", "expanduser") else None
    if name == "format":
        return _filled(text, args, kwargs)
    if name == "join" and len(args) == 1 and isinstance(args[0], list | tuple):
        members = [part for member in args[0] for part in (text, member)][1:]
        return joined(members)
    if name in _METHODS and not kwargs and all(isinstance(value, str | int | tuple) for value in args):
        static.plain(list(args))
        static.check_length(_length_after(text, name, args))
        result = static.computed(lambda: getattr(text, name)(*args), what=f"`.{name}()`")
        static.check_length(len(result) if isinstance(result, str | list) else 0)
        return result
    raise Refusal(f"`.{name}()` of a string is not in the language.", "Strings are only modes and keys.")


def _length_after(text: str, name: str, args: tuple[Any, ...]) -> int:
    """How long a method makes the text at most, before it does."""
    if name in ("zfill", "ljust", "rjust", "center") and args and isinstance(args[0], int):
        return max(len(text), args[0])
    if name == "replace" and len(args) > 1 and isinstance(args[0], str) and isinstance(args[1], str):
        return len(text) + text.count(args[0]) * max(0, len(args[1]) - len(args[0]))
    return len(text)
