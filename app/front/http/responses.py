"""A response's head, as bytes, for the responses that leave in one write."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

from app.errors import PullbackError
from app.front.http.wire import REQUEST_ID
from app.protocols.registry import refused_at

CLOSING = b"connection: close\r\n"


@cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


def head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The status line and the headers, without the empty line that ends them."""
    lines = [_status_line(status)]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    return b"".join(lines)


def retry_after(error: PullbackError) -> list[tuple[bytes, bytes]]:
    """When to come back, as a header, where the refusal says so."""
    if error.retry_after_s is None:
        return []
    return [(b"retry-after", b"%d" % error.retry_after_s)]


def refusal(error: PullbackError, scope: Mapping[str, Any]) -> bytes:
    """The whole response to a request that cannot be read on; `scope` is empty, and the shape our own, where not even its head could."""
    request_id = scope.get(REQUEST_ID) or secrets.token_hex(6)
    refused = refused_at(scope.get("path", ""), error, request_id)
    body = b"".join(refused.buffers)
    headers = [
        (b"content-type", refused.media_type.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        *retry_after(error),
    ]
    return head(refused.status, headers) + CLOSING + b"\r\n" + body
