"""Lines of the log: their form, as JSON or as text. Imports next to nothing, as the parent of several fronts writes them too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal

import orjson

Form = Literal["json", "text"]


def stamp(now_s: float) -> str:
    """A time as RFC 3339 in UTC, to the millisecond."""
    seconds, microseconds = divmod(round(now_s * 1e6), 1_000_000)
    return f"{_second(seconds)}.{microseconds // 1000:03d}Z"


@lru_cache(1)  # the lines of one second come together
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def event_fields(event: str, facts: Mapping[str, Any], now_s: float) -> dict[str, Any]:
    """The fields of something that an operator wants to read."""
    return {"ts": stamp(now_s), "level": facts.get("level", "info"), "event": event, **facts}


def json_line(fields: Mapping[str, Any]) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def text_line(fields: Mapping[str, Any]) -> bytes:
    rest = (f"{name}={value}" for name, value in fields.items() if name not in ("ts", "level", "event") and value != "")
    line = f"{fields['ts']} {fields['level']} {fields['event']} {' '.join(rest)}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line).encode("utf-8", "replace") + b"\n"


LINE: Final[Mapping[Form, Callable[[Mapping[str, Any]], bytes]]] = {"json": json_line, "text": text_line}
