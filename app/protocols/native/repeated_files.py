"""A safetensors file taken apart for repetition: its signature, which is its header as it stands, and its tensors' bytes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import jiter

from app.limits import HEADER_LIMIT_BYTES
from app.protocols.content import OCTETS, SAFETENSORS
from app.protocols.message import BodyTakenApart, Buffer, Message, Repetition
from app.protocols.native.safetensors_format import LENGTH_BYTES

MEDIA_TYPES: Final = frozenset({SAFETENSORS, OCTETS})
_METADATA: Final = "__metadata__"
# Their bytes may be wrong, which the whole road looks for.
_CHECKED: Final = frozenset({"BOOL"})


class _Span(NamedTuple):
    """A tensor's name and the bytes of the data that are its own."""

    name: str
    begin: int
    end: int


def taking_apart(message: Message) -> BodyTakenApart | None:
    """What takes apart the files that come as this one; None where they are compressed."""
    if message.content_encoding is not None:
        return None
    headers = (message.content_type, message.accept)

    def taken_apart(body: Buffer) -> Repetition | None:
        """None for what must be read by the whole road, as is whatever it refuses."""
        start = LENGTH_BYTES + int.from_bytes(body[:LENGTH_BYTES], "little")
        if start > min(len(body), LENGTH_BYTES + HEADER_LIMIT_BYTES):
            return None
        header = bytes(body[LENGTH_BYTES:start])
        spans = _spans(header)
        if spans is None:
            return None
        data = memoryview(body)[start:]
        return Repetition(
            (headers, len(body), header),
            tuple([data[begin:end] for _, begin, end in spans]),
            tuple([name for name, _, _ in spans]),
        )

    return taken_apart


@lru_cache(maxsize=256)
def _spans(header: bytes) -> tuple[_Span, ...] | None:
    """The tensors in the order of their bytes; None where the header is not plain. The whole road has the word on whether it is right."""
    try:
        entries: Any = jiter.from_json(header, catch_duplicate_keys=True)
        spans = [_Span(name, *entry["data_offsets"]) for name, entry in entries.items() if name != _METADATA]
        is_plain = not any(entry.get("dtype") in _CHECKED for entry in entries.values())
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
    are_whole = all(type(span.begin) is int and type(span.end) is int for span in spans)
    return tuple(sorted(spans, key=lambda span: (span.begin, span.end))) if is_plain and are_whole else None
