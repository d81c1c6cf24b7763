"""Asks a road in this process by an endpoint's name, as a worker does, so that wide tables of cases cost no sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.limits import Limits
from app.road import Request, Road


@dataclass(frozen=True)
class Reply:
    """A reply: `raw` is its body."""

    status: int
    media_type: str
    headers: Mapping[str, str]
    raw: bytes

    def json(self) -> Any:
        return json.loads(self.raw)


@cache
def road() -> Road:
    return Road(Limits(body_bytes=1 << 20, result_bytes=1 << 24), "cpu")


def ask(
    endpoint: str,
    body: Any,
    *,
    accept: str | None = None,
    encoding: str | None = None,
    content_type: str | None = None,
    **parameters: str,
) -> Reply:
    """The reply to a body: bytes as they are, whatever else as JSON. `parameters`: with `_` for `-`."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in parameters.items()}
    request = Request(endpoint, "test", content_type, encoding, accept, memoryview(raw), named)
    reply = road().answer(request, lambda _: None)
    return Reply(reply.status, reply.media_type, dict(reply.headers), b"".join(bytes(piece) for piece in reply.buffers))
