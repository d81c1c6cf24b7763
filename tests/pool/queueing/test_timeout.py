"""The timeout of a query before it is decoded: a member of the query's object, wherever it stands; never a text in a string."""

from __future__ import annotations

import json

import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pool.queueing.timeout import timeout_of

FAR = b" " * 200_000
COMMENT = '# {"timeout_s": 0.001}\nreturn x.sum()'
BINARY = "application/vnd.safetensors"


def named(*body: bytes | bytearray, content_type: str | None = None) -> float | None:
    return timeout_of(body, sum(map(len, body)), content_type)


def file_of(query: object, **metadata: str) -> bytes:
    return bytes(safetensors.numpy.save({}, metadata={"query": json.dumps(query), **metadata}))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([b'{"timeout_s": 2}'], 2.0),
        ([b'{"timeout_s":0.25, "x": 1}'], 0.25),
        ([b'{"timeout_s" : 1e1}'], 10.0),
        ([b'{"timeout_s": 4' + FAR + b"}"], 4.0),
        ([b'{"inputs": {"timeout_s": 9, "x": [1, 2]}, "timeout_s": 4, "y": "' + FAR + b'"}'], 4.0),
        ([b"{" + FAR + b'"timeout_s": 5}'], 5.0),
        ([b'{"x": "' + FAR + b'", "timeout_s": 5.5} \n'], 5.5),
        ([b"{" + FAR, FAR, b'"timeout_s": 6}'], 6.0),
        ([b"{" + FAR, FAR, b'"time', b'out_s"', b": 6", b"1 }"], 61.0),
        ([bytearray(b'{"time'), bytearray(b'out_s": 7}')], 7.0),
        ([b'{"operation": "exp"}'], None),
        ([b'{"timeout_s": "soon"}'], None),
        ([b'{"timeout_s": null}'], None),
        ([b'{"timeout_s": true, "x": 3}'], None),
        ([b'{"timeout_s": -1}'], None),
        ([b'{"timeout_s": 0}'], None),
        ([b'{"timeout_s": 1.2.3}'], None),
        ([b'{"timeout_s": 2, "x": NaN}'], None),
        ([b'{"inputs": {"timeout_s": 2}}'], None),
        ([b'[{"timeout_s": 2}]'], None),
        ([b"", b""], None),
        ([], None),
    ],
)
def test_in_json(body: list[bytes], expected: float | None) -> None:
    assert named(*body) == expected


@pytest.mark.parametrize("length", [0, 60_000, 70_000, 140_000, 500_000])
@pytest.mark.parametrize(
    "text", [COMMENT, '"timeout_s": 1', '{"timeout_s": 1}', 'x = "timeout_s" # : 3}', '\\", "timeout_s": 1}']
)
def test_a_text_in_a_program_is_no_timeout(text: str, length: int) -> None:
    """Before and behind much other text, where only the beginning and the end of a body are looked at."""
    for program in (text, text + "#" * length, "#" * length + text, "#" * length + text + "#" * length):
        for query in ({"program": program}, {"program": program, "inputs": {}}, {"inputs": {"x": [[1.0]]}, "program": program}):
            assert named(json.dumps(query).encode()) is None
            assert named(json.dumps([query]).encode()) is None
            assert named(file_of(query), content_type=BINARY) is None
            asked = {**query, "timeout_s": 8.5}
            assert named(json.dumps(asked).encode()) == 8.5


def test_in_safetensors() -> None:
    assert named(file_of({"timeout_s": 3.5}), content_type=BINARY) == 3.5
    assert named(file_of({"timeout_s": 3.5}), content_type="Application/Octet-Stream; x=y") == 3.5
    assert named(file_of({"timeout_s": 3.5})[:40], b"", content_type=BINARY) is None
    assert named(file_of({"program": "x"}, timeout_s="2"), content_type=BINARY) is None
    assert named(b"\xff" * 30 + b"timeout_s", content_type=BINARY) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.just("timeout_s") | st.just(COMMENT),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("timeout_s"), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=3) | st.just("program"), json_values, max_size=4), st.floats(0.001, 1e6), st.booleans())
def test_what_is_said_of_a_large_body_is_what_it_says(query: dict[str, object], timeout: float, last: bool) -> None:
    """By its beginning or its end, a large body is read as parsing it would; or not at all."""
    query.pop("timeout_s", None)
    asked = {**query, "timeout_s": timeout} if last else {"timeout_s": timeout, **query}
    for space in (b"", b" " * 70_000):
        body = json.dumps(asked).encode()
        assert named(body[:-1] + space + body[-1:]) == timeout
        silent = json.dumps(query).encode()
        assert named(silent[:-1] + space + silent[-1:]) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=5), st.sampled_from([None, "application/json", BINARY]))
def test_nothing_that_is_sent_breaks_it(pieces: list[bytes], content_type: str | None) -> None:
    named(*pieces, content_type=content_type)
    named(*pieces, b'"timeout_s": 3}', content_type=content_type)
    named(*pieces, b'{"timeout_s": 3' + FAR, content_type=content_type)
