"""The quarantine: of all that was asked, for its time."""

from __future__ import annotations

from app.pool.job import asked_of
from app.pool.queueing.quarantine import Quarantine, fingerprint

JSON = asked_of("query", "application/json", None, None).text


def test_a_fingerprint_is_of_the_content_not_of_its_pieces() -> None:
    assert fingerprint(JSON, [b"ab", b"c"]) == fingerprint(JSON, [b"a", bytearray(b"bc")])
    assert fingerprint(JSON, [b"abc"]) != fingerprint(JSON, [b"abd"])


def test_a_fingerprint_is_of_all_that_was_asked() -> None:
    asked = [
        JSON,
        asked_of("split", "application/json", None, None).text,
        asked_of("query", "text/plain", None, None).text,
        asked_of("query", "application/json", "gzip", None).text,
        asked_of("query", "application/json", None, "*/*").text,
        asked_of("query", None, "application/json", None).text,
    ]
    assert len({fingerprint(one, [b"{}"]) for one in asked}) == len(asked)


def test_what_is_refused_and_for_how_long() -> None:
    quarantine = Quarantine(10)
    assert not quarantine.is_used
    quarantine.add(JSON, [b"{}"], 2, now=100)
    assert quarantine.is_used
    assert quarantine.left_s(JSON, [b"{", b"}"], 2, now=104) == 6
    other = asked_of("query", "application/json", None, "x" * 32_000).text
    assert quarantine.left_s(other, [b"{}"], 2, now=104) == 0
    assert quarantine.left_s(JSON, [b"[]"], 2, now=104) == 0
    assert quarantine.left_s(JSON, [b"{}"], 2, now=110.1) == 0
    assert not quarantine.is_used


def test_no_quarantine_where_it_has_no_time() -> None:
    quarantine = Quarantine(0)
    quarantine.add(JSON, [b"{}"], 2, now=0)
    assert not quarantine.is_used
