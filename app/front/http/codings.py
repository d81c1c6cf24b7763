"""Transfer codings: what a body went through on its way besides being cut into chunks."""

from __future__ import annotations

from collections.abc import Iterable

from app.errors import PullbackError


def content_encoding(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The coding that a worker has to undo, from Content-Encoding or, for `Transfer-Encoding: gzip, chunked`, from there.

    A body compressed on its way is undone like one that was compressed before (RFC 9112, section 7); several lines are one list.

    Raises:
        PullbackError: unsupported_media_type, for more than one coding in all.
    """
    transfer, content = [], []
    for name, value in headers:
        if name == b"transfer-encoding":
            transfer += value.lower().split(b",")
        elif name == b"content-encoding":
            content += value.lower().split(b",")
    # The parser has seen to it that `chunked` is the last (RFC 9112, section 6.1).
    codings = [coding.strip() for coding in (*content, *transfer[:-1])]
    codings = [coding for coding in codings if coding not in (b"", b"identity")]
    if not codings:
        return None
    if len(codings) > 1 and transfer[:-1]:
        raise PullbackError(
            "unsupported_media_type",
            "The body is coded more than once on its way.",
            at="Transfer-Encoding",
            expected="chunked, or gzip or deflate once and then chunked",
            given=b", ".join(codings).decode("latin-1"),
            fix="Send the body chunked and nothing else, or with a Content-Length.",
        )
    return b", ".join(codings)
