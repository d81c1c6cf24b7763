"""The `timeout_s` of a query that has not been decoded yet, so that its deadline holds while it waits for a worker.

It is read as a member of the query's own object, never as text in one of its strings. Where it cannot be known without parsing
megabytes it stays unknown: the worker, which parses them, announces it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from app.pool.frames import Buffer

# Up to here a body is parsed, which takes the event loop some 100 µs; of a larger one its beginning and its end are looked at.
_PARSED_BYTES: Final = 64 << 10
_LENGTH_BYTES: Final = 8
_KEY: Final = b"timeout_s"
_NUMBER: Final = rb"(\d{1,20}(?:\.\d{1,20})?(?:[eE][+-]?\d{1,3})?)"
# A whole string, the beginning of one that is cut off, or what opens and closes objects and lists.
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|"|[{}\[\]]', re.DOTALL)
_VALUE: Final = re.compile(rb"\s*:\s*" + _NUMBER + rb"(?=[\s,}])")
# A number before the last brace of all is the last member of the outermost object, as a string would end with a quote.
_LAST: Final = re.compile(rb'(?<!\\)"timeout_s"\s*:\s*' + _NUMBER + rb"\s*\}\s*\Z")
_BINARY: Final = ("application/vnd.safetensors", "application/octet-stream")


def timeout_of(body: Sequence[Buffer], size: int, content_type: str | None) -> float | None:
    """Seconds, as a query's body in JSON or safetensors names them; None where it names none, or it cannot be known yet.

    `body`: in pieces, of `size` bytes together, not compressed.
    """
    if content_type is not None and content_type.partition(";")[0].strip().lower() in _BINARY:
        header = _header(body)
        return _of_value(_loaded(_query_text(header))) if _KEY in header else None
    start = b"".join(body) if size <= _PARSED_BYTES else _start(body, _PARSED_BYTES)
    if size <= _PARSED_BYTES:
        return _of_value(_loaded(start)) if _KEY in start else None
    return (_in_start(start) if _KEY in start else None) or _at_end(_end(body))


def _header(body: Sequence[Buffer]) -> bytes:
    """The JSON text that a safetensors file begins with, behind its length; empty where it is long."""
    size = int.from_bytes(_start(body, _LENGTH_BYTES), "little")
    return _start(body, _LENGTH_BYTES + size)[_LENGTH_BYTES:] if size <= _PARSED_BYTES - _LENGTH_BYTES else b""


def _start(body: Sequence[Buffer], count: int) -> bytes:
    start = b""
    for piece in body:
        start += piece[: count - len(start)]
        if len(start) == count:
            break
    return start


def _end(body: Sequence[Buffer]) -> bytes:
    end = b""
    for piece in reversed(body):
        end = bytes(piece[-(_PARSED_BYTES - len(end)) :]) + end
        if len(end) >= _PARSED_BYTES:
            break
    return end


def _query_text(text: bytes) -> bytes:
    """The query in the header of a safetensors file."""
    header = _loaded(text)
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    query = metadata.get("query") if isinstance(metadata, dict) else None
    return query.encode() if isinstance(query, str) else b""


def _loaded(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # Refused by the worker, or in a dialect (NaN) that the worker reads.
        return None


def _of_value(query: Any) -> float | None:
    timeout = query.get("timeout_s") if isinstance(query, dict) else None
    return _positive(timeout) if isinstance(timeout, int | float) and not isinstance(timeout, bool) else None


def _in_start(start: bytes) -> float | None:
    depth = 0
    for token in _TOKEN.finditer(start):
        text = token[0]
        if text in b"{[":
            depth += 1
        elif text in b"}]":
            depth -= 1
        elif text == b'"':
            return None
        elif depth == 1 and text == b'"timeout_s"' and (value := _VALUE.match(start, token.end())):
            return _positive(float(value[1]))
    return None


def _at_end(end: bytes) -> float | None:
    value = _LAST.search(end)
    return _positive(float(value[1])) if value else None


def _positive(seconds: float) -> float | None:
    return float(seconds) if seconds > 0 else None
