"""The refusals of HTTP itself: of an address or a verb, of a connection, and of what broke on our side."""

from __future__ import annotations

from typing import Final

from app.errors import PullbackError

HEADER_COUNT_LIMIT: Final = 100  # Apache's default (LimitRequestFields)
HEADER_BYTES_LIMIT: Final = 32 << 10  # nginx's default for large headers: four buffers of 8 kB (large_client_header_buffers)
# Triton's cap on the chunks of one body, after CVE-2025-23310.
CHUNK_LIMIT: Final = 65_536
# Of every page; what takes POST is led past the pages by the middleware.
PAGE_METHODS: Final = "GET, HEAD"


def headers_too_large() -> PullbackError:
    return PullbackError(
        "headers_too_large",
        "The request's headers, trailers and chunk extensions are larger than this server takes.",
        expected=f"at most {HEADER_COUNT_LIMIT} headers of {HEADER_BYTES_LIMIT} bytes in all",
        fix="Send fewer and shorter headers; tensors belong into the body.",
    )


def too_many_chunks() -> PullbackError:
    return PullbackError(
        "bad_request",
        "The body comes in too many chunks.",
        expected=f"at most {CHUNK_LIMIT} chunks",
        fix="Send larger chunks, or the whole body with a Content-Length.",
    )


def not_http() -> PullbackError:
    return PullbackError("bad_request", "Invalid HTTP request received.", fix="Send HTTP/1.1 as RFC 9112 has it.")


def ended_early() -> PullbackError:
    return PullbackError(
        "bad_request",
        "The connection ended in the middle of the request.",
        fix="Send all of the body that Content-Length declares, or the last chunk of a chunked one.",
    )


def in_the_way() -> PullbackError:
    """Not the client's fault: it may be as slow as this when there is room."""
    return PullbackError(
        "queue_full",
        "The room for bodies and replies is nearly full, and this body comes too slowly to keep its part of it.",
        fix="Try again in a moment.",
        retry_after_s=5,
    )


def too_slow(received: int, window_s: float, bytes_per_s: float) -> PullbackError:
    return PullbackError(
        "body_timeout",
        f"After {received} bytes, the rest of the request did not come in time.",
        expected=f"the next bytes within {window_s:g} s, and at least {bytes_per_s:g} bytes a second",
        fix="Check that Content-Length is the length of what is sent, and send without pauses.",
    )


def too_many_connections() -> PullbackError:
    return PullbackError(
        "queue_full",
        "As many connections are open as this server takes.",
        fix="Send several requests over one connection, and try again in a moment.",
        retry_after_s=1,
    )


def not_found(path: str) -> PullbackError:
    return PullbackError("not_found", "There is nothing at this address.", given=path, fix="See /docs for what there is.")


def method_not_allowed(method: str, allowed: str) -> PullbackError:
    return PullbackError(
        "method_not_allowed",
        f"This address takes {allowed}, not {method}.",
        expected=allowed,
        given=method,
        fix=f"Send {allowed}.",
    )


def broken() -> PullbackError:
    return PullbackError("internal", "Something broke on our side; it has been logged under the request id.")
