"""What the headers say of a body: its media type, its compression, and the media type that the client wants back."""

from __future__ import annotations

import zlib
from typing import Final

from app.errors import PullbackError
from app.protocols.describe import describe

JSON: Final = "application/json"
SAFETENSORS: Final = "application/vnd.safetensors"
OCTETS: Final = "application/octet-stream"

_READ: Final = {JSON: JSON, SAFETENSORS: SAFETENSORS, OCTETS: SAFETENSORS}
# What a client may name in Accept → what it gets; where it leaves the choice, JSON.
_WRITTEN: Final = {**_READ, "application/*": JSON, "*/*": JSON}
_SHORT: Final = {JSON: "JSON", SAFETENSORS: "safetensors"}
_ENCODINGS: Final = ("gzip", "deflate")
_CHARSETS: Final = ("utf-8", "utf8", "us-ascii")
# How zlib calls these forms (its `windowBits`).
_ZLIB_WRAPPED: Final = 15
_GZIP_WRAPPED: Final = 31
_BARE: Final = -15


def media_type(content_type: str | None) -> str:
    """`JSON` or `SAFETENSORS`, the format of a body with this Content-Type; a body without one is JSON.

    Raises `unsupported_media_type`.
    """
    if content_type is None or content_type == JSON:
        return JSON
    name, _, parameters = content_type.partition(";")
    known = _READ.get(name.strip().lower())
    if known is None:
        raise PullbackError(
            "unsupported_media_type",
            f"A body of type {name.strip()[:64]!r} is not read here.",
            at="Content-Type",
            expected=f"{JSON}, or {SAFETENSORS} ({OCTETS} is read as that)",
            given=describe(name.strip()),
            fix=f"Send the header `Content-Type: {JSON}`.",
        )
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset" and value.strip().strip('"').lower() not in _CHARSETS:
            raise PullbackError(
                "unsupported_media_type",
                "The body must be in UTF-8.",
                at="Content-Type",
                expected="charset=utf-8, or none",
                given=describe(value.strip()),
            )
    return known


def negotiate(accept: str | None, written: tuple[str, ...] = (JSON, SAFETENSORS)) -> str:
    """The media type of the reply, one of `written`, that an Accept header prefers: the highest q; among equals the one that is
    named more exactly, then the one named first.

    Raises `not_acceptable`.
    """
    if accept is None or accept in ("", "*/*", JSON):
        return JSON
    weights: dict[str, float] = {}
    for item in accept.split(","):
        name, _, parameters = item.partition(";")
        if (name := name.strip().lower()) in _WRITTEN:
            weights.setdefault(name, _weight(parameters))
    ranked = sorted(weights, key=lambda name: (-weights[name], name.count("*")))
    for name in ranked:
        # `application/json;q=0, */*` leaves the other one to the wildcard.
        choices = written if "*" in name else tuple({_WRITTEN[name]}.intersection(written))
        allowed = [choice for choice in choices if weights[name] > 0 and ("*" not in name or weights.get(choice, 1.0) > 0)]
        if allowed:
            return allowed[0]
    raise PullbackError(
        "not_acceptable",
        f"The answer can be {' or '.join(map(_SHORT.__getitem__, written))}, which the Accept header does not take.",
        at="Accept",
        expected=" or ".join(written),
        given=describe(accept),
    )


def _weight(parameters: str) -> float:
    """The q of a media range; one that cannot be read counts as absent, which RFC 9110 reads as 1."""
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 1.0
    return 1.0


def decompressed(body: memoryview, content_encoding: str | None, limit_bytes: int) -> memoryview:
    """The body without its Content-Encoding; never more than `limit_bytes` of it are made.

    Raises `unsupported_media_type`, `body_too_large`, and `bad_binary` for a stream that is broken, cut short or followed by more.
    """
    codings = (
        []
        if content_encoding is None
        else [c for c in content_encoding.lower().replace(" ", "").split(",") if c not in ("", "identity")]
    )
    if not codings:
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        return body
    coding = codings[0].removeprefix("x-")
    if len(codings) > 1 or coding not in _ENCODINGS:
        raise PullbackError(
            "unsupported_media_type",
            "The body's Content-Encoding is not read here.",
            at="Content-Encoding",
            expected="gzip or deflate, once, or none",
            given=describe(", ".join(codings)),
            fix="Send the body as it is, or compressed once by gzip.",
        )
    return _inflated(body, coding, limit_bytes)


def _inflated(body: memoryview, coding: str, limit_bytes: int) -> memoryview:
    stream = zlib.decompressobj(_window(body, coding))
    try:
        # One byte more than allowed tells "exactly the limit" from "more"; nothing beyond it is ever made.
        inflated = stream.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise _broken(coding, str(error).partition(":")[2].strip() or "it cannot be decompressed") from None
    if len(inflated) > limit_bytes:
        raise _too_large(limit_bytes)
    if not stream.eof:
        raise _broken(coding, "it ends too early")
    if stream.unused_data:
        raise _broken(coding, f"{len(stream.unused_data)} bytes follow its end")
    return memoryview(inflated)


def _window(body: memoryview, coding: str) -> int:
    """`deflate` means zlib's wrapping (RFC 9110, 8.4.1.2), but many clients send the bare stream: its first two bytes tell."""
    if coding == "gzip":
        return _GZIP_WRAPPED
    wrapped = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return _ZLIB_WRAPPED if wrapped else _BARE


def _broken(coding: str, why: str) -> PullbackError:
    return PullbackError(
        "bad_binary",
        f"The {coding} stream of the body is broken: {why}.",
        at="Content-Encoding",
        expected="one complete stream, and nothing after it",
    )


def _too_large(limit_bytes: int) -> PullbackError:
    return PullbackError(
        "body_too_large",
        f"The body is larger than {limit_bytes} bytes, the limit after decompression.",
        expected=f"at most {limit_bytes} bytes",
        fix="Send less, or safetensors instead of JSON.",
    )
