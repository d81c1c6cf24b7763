"""Strict JSON: a table of texts with their verdicts, and the fast road against the exact one on texts of any kind."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import PullbackError
from app.limits import JSON_DEPTH_LIMIT
from app.protocols import strict_json
from app.protocols.strict_json import OutOfRange, elements, parse

# Blanks before the text make it long enough for the fast road and change nothing else.
PADDING = b" " * 5000
ROADS = pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "big"])

REFUSED = [
    (b"", "bad_json", "empty"),
    (b" \n\t ", "bad_json", "empty"),
    (b"{", "bad_json", "byte"),
    (b'{"a": 1', "bad_json", "byte"),
    (b'{"a": 1} x', "bad_json", "Extra data"),
    (b"{} {}", "bad_json", "Extra data"),
    (b"[1,]", "bad_json", "byte"),
    (b'{"a": 1,}', "bad_json", "byte"),
    (b"[01]", "bad_json", "byte"),
    (b"[+1]", "bad_json", "byte"),
    (b"[.5]", "bad_json", "byte"),
    (b"[1.]", "bad_json", "byte"),
    (b"nan", "bad_json", "byte"),
    (b"[-NaN]", "bad_json", "byte"),
    (b"'a'", "bad_json", "byte"),
    (b'"a\nb"', "bad_json", "control character"),
    (b'"\\x"', "bad_json", "escape"),
    (b'"abc', "bad_json", "Unterminated"),
    (b"// no\n1", "bad_json", "byte"),
    (b"\xff", "bad_json", "UTF-8"),
    (b'"\xed\xa0\x80"', "bad_json", "UTF-8"),
    (b'"\xc0\xaf"', "bad_json", "UTF-8"),
    (b'"\xc3', "bad_json", "UTF-8"),
    ('{"a": 1}'.encode("utf-16"), "bad_json", "UTF-8"),
    (rb'"\ud800"', "bad_json", "surrogate"),
    (rb'["\ude00\ud83d"]', "bad_json", "surrogate"),
    (rb'{"\ud800": 1}', "bad_json", "surrogate"),
    (b'{"shape": 1, "shape": 1}', "duplicate_key", "shape"),
    (b'[{"a": {"b": 1, "c": 2, "b": 3}}]', "duplicate_key", "'b'"),
    (rb'{"a": 1, "\u0061": 2}', "duplicate_key", "'a'"),
    (b'{"a" : 1, "a"\n: 2}', "duplicate_key", "'a'"),
    (b"[" * 101 + b"]" * 101, "json_depth", "deeply"),
    (b'{"a":' * 101 + b"1" + b"}" * 101, "json_depth", "deeply"),
    (b"[" * 2000 + b"]" * 2000, "json_depth", "deeply"),
    (b"[" * 100_000, "json_depth", "deeply"),
    (b'{"a":' * 100_000, "json_depth", "deeply"),
]


@ROADS
@pytest.mark.parametrize(("text", "code", "words"), REFUSED)
def test_refused(text: bytes, code: str, words: str, padding: bytes) -> None:
    with pytest.raises(PullbackError) as refused:
        parse(padding + text)
    assert refused.value.code == code
    assert words in refused.value.detail
    assert len(json.dumps(refused.value.problem())) < 2048


def test_byte_order_mark() -> None:
    with pytest.raises(PullbackError, match="byte order mark"):
        parse(b"\xef\xbb\xbf{}")
    with pytest.raises(PullbackError, match="byte order mark"):
        parse(b"\xef\xbb\xbf" + PADDING + b"{}")


def test_the_offset_counts_bytes() -> None:
    with pytest.raises(PullbackError, match="at byte 6 "):
        parse('"éé"x'.encode())
    with pytest.raises(PullbackError, match="byte 5003"):
        parse(PADDING + b"[1 1]")


ACCEPTED = [
    (b"[NaN, Infinity, -Infinity]", "[nan, inf, -inf]"),
    (b"[-0.0, 0, -0, 1e-400, 5e-324]", "[-0.0, 0, 0, 0.0, 5e-324]"),
    (b"[1e22, 1E+2, 1e0003, 1.7976931348623157e308]", "[1e+22, 100.0, 1000.0, 1.7976931348623157e+308]"),
    (
        b"[9223372036854775807, -9223372036854775808, 18446744073709551615]",
        "[9223372036854775807, -9223372036854775808, 18446744073709551615]",
    ),
    (b"[18446744073709551616, -9223372036854775809]", "[18446744073709551616, -9223372036854775809]"),
    (b"100000000000000000000", "100000000000000000000"),
    (b"[0.00012345678901234567890123, 12345678901234567890.5]", "[0.00012345678901234567, 1.2345678901234567e+19]"),
    (rb'["\ud83d\ude00", "\\ud800", "\u0000"]', "['😀', '\\\\ud800', '\\x00']"),
    (b'[{"a": 1}, {"a": 2}]', "[{'a': 1}, {'a': 2}]"),
    (b'[":", "a\\":", ": :"]', "[':', 'a\":', ': :']"),
    (b'{"__proto__": {"": null}}', "{'__proto__': {'': None}}"),
    (b"[" * 100 + b"]" * 100, "[" * 100 + "]" * 100),
    (b" true ", "True"),
]


@ROADS
@pytest.mark.parametrize(("text", "value"), ACCEPTED)
def test_accepted(text: bytes, value: str, padding: bytes) -> None:
    assert repr(parse(padding + text)) == value
    assert repr(parse(memoryview(padding + text))) == value


@ROADS
def test_numbers_beyond_float64_are_neither_numbers_nor_strings(padding: bytes) -> None:
    texts = ["1e999", "-1e999", "1" * 5000, "-" + "9" * 4301, "1" * 310 + ".5", "1" * 300 + "e99"]
    value = parse(padding + f"[{','.join(texts)}]".encode())
    assert value == [OutOfRange(text) for text in texts]
    assert all(len(repr(number)) < 80 for number in value)


def test_the_depth_limit_is_a_choice() -> None:
    assert parse(b"[[]]", depth_limit=2) == [[]]
    for padding in (b"", PADDING):
        with pytest.raises(PullbackError) as refused:
            parse(padding + b"[[[]]]", depth_limit=2)
        assert refused.value.code == "json_depth"


# --- the two roads agree ---------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(lambda x: json.dumps(x)),
    st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)
STRINGS = st.one_of(
    st.text(max_size=8).map(json.dumps),
    st.text(max_size=8).map(lambda t: json.dumps(t, ensure_ascii=False)),
    st.sampled_from(
        ['":"', '"\\":"', '"\\ud800"', '"\\ud83d\\ude00"', '"12345678901234567890"', '"a"', '"\\u0061"', '"[{"', '"\\\\"']
    ),
)
SPACES = st.sampled_from(["", " ", "\n\t", "\r"])


def _object(pairs: list[tuple[str, str]], space: str) -> str:
    return "{" + ",".join(f"{space}{key}{space}:{value}" for key, value in pairs) + "}"


TEXTS = st.recursive(
    st.one_of(NUMBERS, STRINGS, st.sampled_from(["true", "false", "null", "NaN", "-Infinity"])),
    lambda inner: st.one_of(
        st.tuples(st.lists(inner, max_size=4), SPACES).map(lambda t: "[" + f"{t[1]},".join(t[0]) + t[1] + "]"),
        st.builds(_object, st.lists(st.tuples(STRINGS, inner), max_size=4), SPACES),
    ),
    max_leaves=20,
)


def _verdict(text: bytes, limit: int) -> str:
    try:
        return repr(parse(text, depth_limit=limit))
    except PullbackError as refused:
        return refused.code


@settings(max_examples=400, deadline=None)
@given(
    TEXTS,
    st.integers(0, 200),
    st.sampled_from(["", "", '"', ",", "[", "}", ":", "\\", "1", "é", "\x00"]),
    st.sampled_from([3, 100]),
)
@example('{"a":1,"a":1}', 0, "", 100)
@example("[9999999999999999999999]", 0, "", 100)
@example("[123456789012345678.25]", 0, "", 100)
def test_both_roads_give_one_verdict(text: str, position: int, inserted: str, limit: int) -> None:
    changed = (text[:position] + inserted + text[position:] if inserted else text).encode("utf-8", "surrogatepass")
    assert _verdict(changed, limit) == _verdict(PADDING + changed, limit)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_what_is_accepted_is_what_json_reads(text: str) -> None:
    try:
        value = parse(text.encode())
    except PullbackError:
        return
    if "beyond the range" not in repr(value):
        assert repr(value) == repr(json.loads(text))


@pytest.mark.parametrize("offset", range(-40, 41, 8))
def test_a_long_integer_at_a_block_border(offset: int) -> None:
    number = b"18446744073709551617"
    text = b"[" + b"1," * ((1 << 16) + offset // 2) + number + b"," + b"1," * 1000 + b"1]"
    assert parse(text).count(18446744073709551617) == 1
    text = number + b" " * (1 << 18)
    assert parse(text) == 18446744073709551617


@pytest.mark.parametrize(
    "value",
    [
        [0.123456789, -2e-7, 0.00012345678901234567] * 9999,
        [[1, -2], [3, 4]] * 999,
        {"a": ["NaN", "Infinity"] * 999, "b": "x" * 9999},
    ],
)
def test_a_large_body_is_read_once(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "_explained", lambda *_: pytest.fail("it was read twice"))
    assert parse(orjson.dumps(value)) == value


# --- lists cut into their elements -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (b"[]", []),
        (b" [ ] ", []),
        (b'[{"a": [1, 2]} , "],[" ,NaN,1e999 ]', [b'{"a": [1, 2]}', b'"],["', b"NaN", b"1e999"]),
        ('["é", 2]'.encode(), ['"é"'.encode(), b"2"]),
        (b'[{"a": 1, "a": 2}, ' + b"1" * 5000 + b"]", [b'{"a": 1, "a": 2}', b"1" * 5000]),
    ],
)
def test_elements_are_cut_unchanged(text: bytes, pieces: list[bytes]) -> None:
    assert elements(text) == pieces


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "bad_json"),
        (b"{}", "bad_request"),
        (b"1", "bad_request"),
        (b"[", "bad_json"),
        (b"[1", "bad_json"),
        (b"[1,]", "bad_json"),
        (b"[,]", "bad_json"),
        (b"[1 2]", "bad_json"),
        (b"[1] 2", "bad_json"),
        (b'[{"a": }]', "bad_json"),
        (b"[\xff]", "bad_json"),
        (b"[" * 100_000, "json_depth"),
    ],
)
def test_a_broken_list_is_refused(text: bytes, code: str) -> None:
    with pytest.raises(PullbackError) as refused:
        elements(text)
    assert refused.value.code == code


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.recursive(st.none() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s), max_leaves=8)
    )
)
def test_elements_of_what_json_wrote(values: list[Any]) -> None:
    text = json.dumps(values, ensure_ascii=False).encode()
    assert [repr(json.loads(piece)) for piece in elements(text)] == [repr(value) for value in json.loads(text)]


def test_the_limit_is_the_contracts() -> None:
    assert JSON_DEPTH_LIMIT == 100


@pytest.mark.parametrize(
    "text",
    [b'{"a": [1, 2.5, {"b": [null, true]}], "c": "\\u00e9"}', b'{"a": [' + b"1e-3, " * 2000 + b"7]}"],
    ids=["short", "long"],
)
def test_what_has_been_read_as_a_plain_object_is_what_is_parsed(text: bytes) -> None:
    value = strict_json.plain_object(text)
    assert value is not None
    assert strict_json.again(text, value) == strict_json.parse(text)


@pytest.mark.parametrize("filling", [b"", b"1, " * 2000], ids=["short", "long"])
def test_a_plain_object_may_be_too_deep(filling: bytes) -> None:
    text = b'{"a": [' + filling + b"[" * 100 + b"]" * 100 + b"]}"
    value = strict_json.plain_object(text)
    assert value is not None
    refusals = []
    for read in (strict_json.parse, lambda text: strict_json.again(text, value)):
        with pytest.raises(PullbackError) as refused:
            read(text)
        refusals.append(refused.value.problem(None))
    assert refusals[0] == refusals[1]
    assert refusals[0]["code"] == "json_depth"
