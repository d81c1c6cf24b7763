"""What headers say: media types, compression within the limit, and the choice that Accept makes."""

from __future__ import annotations

import gzip
import resource
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import PullbackError
from app.protocols.content import JSON, SAFETENSORS, decompressed, media_type, negotiate

LIMIT = 1000


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (None, JSON),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ('application/json;charset="UTF-8"; version=1', JSON),
        ("application/json;", JSON),
        ("application/vnd.safetensors", SAFETENSORS),
        ("application/octet-stream", SAFETENSORS),
        (" application/octet-stream ; x=y", SAFETENSORS),
    ],
)
def test_media_types(content_type: str | None, expected: str) -> None:
    assert media_type(content_type) == expected


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-python-pickle",
        "application/vnd.bentoml+pickle",
        "multipart/form-data; boundary=x",
        "text/xml",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "json",
        "",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "x" * 100_000,
        "a\nb",
    ],
)
def test_other_media_types_are_refused(content_type: str) -> None:
    with pytest.raises(PullbackError) as refused:
        media_type(content_type)
    assert refused.value.code == "unsupported_media_type"
    assert refused.value.at == "Content-Type"
    assert len(str(refused.value.problem())) < 2048


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/*", JSON),
        ("application/json, text/plain, */*", JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
        ("application/vnd.safetensors", SAFETENSORS),
        ("APPLICATION/VND.SAFETENSORS", SAFETENSORS),
        ("application/octet-stream", SAFETENSORS),
        ("application/vnd.safetensors, */*", SAFETENSORS),
        ("*/*, application/vnd.safetensors", SAFETENSORS),
        ("application/vnd.safetensors, application/json", SAFETENSORS),
        ("application/json, application/vnd.safetensors", JSON),
        ("application/vnd.safetensors;q=0.5, application/json", JSON),
        ("application/json;q=0.1,application/vnd.safetensors;q=0.2", SAFETENSORS),
        ("application/json;q=0, */*", SAFETENSORS),
        ("application/vnd.safetensors;q=0, */*;q=0.1", JSON),
        ("application/json; q=0.5; x=y, application/octet-stream; q=oops", SAFETENSORS),
        (",,application/json", JSON),
    ],
)
def test_accept(accept: str | None, expected: str) -> None:
    assert negotiate(accept) == expected


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0", "*/*;q=0", "image/*, text/*", "application/x-python-pickle", "json"]
)
def test_not_acceptable(accept: str) -> None:
    with pytest.raises(PullbackError) as refused:
        negotiate(accept)
    assert refused.value.code == "not_acceptable"


def _bare(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("GZIP", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", _bare),
]


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=LIMIT))
def test_compressed_bodies_come_out_whole(data: bytes) -> None:
    for coding, compress in CODINGS:
        assert bytes(decompressed(memoryview(compress(data)), coding, LIMIT)) == data


@pytest.mark.parametrize("coding", [None, "", "identity", " Identity "])
def test_plain_bodies_are_not_copied(coding: str | None) -> None:
    body = memoryview(b"abc")
    assert decompressed(body, coding, 3) is body
    with pytest.raises(PullbackError) as refused:
        decompressed(body, coding, 2)
    assert refused.value.code == "body_too_large"


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
def test_the_limit_is_exact(coding: str, compress: Callable[[bytes], bytes]) -> None:
    assert len(decompressed(memoryview(compress(b"0" * LIMIT)), coding, LIMIT)) == LIMIT
    with pytest.raises(PullbackError) as refused:
        decompressed(memoryview(compress(b"0" * (LIMIT + 1))), coding, LIMIT)
    assert refused.value.code == "body_too_large"


def test_a_bomb_is_refused_without_its_memory() -> None:
    stream = zlib.compressobj(9, wbits=31)
    bomb = b"".join(stream.compress(bytes(1 << 20)) for _ in range(1024)) + stream.flush()
    assert len(bomb) < 2 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PullbackError) as refused:
        decompressed(memoryview(bomb), "gzip", 8 << 20)
    assert refused.value.code == "body_too_large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
def test_broken_streams_are_refused(coding: str, compress: Callable[[bytes], bytes]) -> None:
    whole = compress(b'{"operation": "softmax"}' * 20)
    for broken in (whole[:-1], whole[: len(whole) // 2], whole[:3], b"", whole + b"x", whole + whole, b"{}" + whole):
        with pytest.raises(PullbackError) as refused:
            decompressed(memoryview(broken), coding, LIMIT)
        assert refused.value.code == "bad_binary"


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "deflate, gzip", "compress", "pack200-gzip", "x" * 10_000])
def test_other_codings_are_refused(coding: str) -> None:
    with pytest.raises(PullbackError) as refused:
        decompressed(memoryview(b""), coding, LIMIT)
    assert refused.value.code == "unsupported_media_type"
    assert "gzip or deflate" in str(refused.value.expected)
    assert len(str(refused.value.problem())) < 2048
