"""Fuzzes a running server from its own OpenAPI document: whatever is sent, the answer is one that the document promises."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks

from app import __version__
from app.front.openapi.document import document
from app.front.openapi.example_queries import examples
from tests.server import Server
from tests.share import is_whole

CHECKS: Final = [
    checks.status_code_conformance, checks.content_type_conformance, checks.response_headers_conformance,
    checks.response_schema_conformance,
]  # fmt: skip
BROKEN: Final = ("internal", "worker_crashed")
# The same cases on every run, so that a failure is one of the change at hand.
SETTINGS: Final = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module")
def api(server: Server) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def send(case: schemathesis.Case[Any], session: requests.Session) -> None:
    """Deadlines and memory have statuses above 500 of their own; what must not happen is that something of ours breaks."""
    response = case.call_and_validate(session=session, checks=CHECKS)
    assert response.status_code != 500, response.text
    assert not any(f'"code":"{code}"' in response.text for code in BROKEN), response.text


# With those of the mangled examples at least two thousand, the first half of each by `make test`; most where most can be asked.
# Of lists fewer, and more of the mangled: to draw one takes 40 ms, four fifths of what it costs.
CASES: Final = {"/v1/query": 260, "/v1/queries": 40}
OTHER_CASES: Final = 100
MANGLED_CASES: Final = 900
HALF: Final = 1 if is_whole() else 2
ENDPOINTS: Final = [(path, verb) for path, verbs in document(__version__)["paths"].items() for verb in verbs]


def test_there_are_two_thousand_cases() -> None:
    assert sum(CASES.get(path, OTHER_CASES) for path, _ in ENDPOINTS) + MANGLED_CASES >= 2000


@pytest.mark.parametrize(("path", "verb"), ENDPOINTS)
def test_every_endpoint_keeps_its_promises(api: Any, session: requests.Session, path: str, verb: str) -> None:
    @settings(SETTINGS, max_examples=CASES.get(path, OTHER_CASES) // HALF)
    @given(case=api[path][verb.upper()].as_strategy())
    def keeps(case: schemathesis.Case[Any]) -> None:
        send(case, session)

    keeps()


def _places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place inside a JSON value, as a path."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


_NUMBERS: Final = st.one_of(st.integers(-3, 5), st.sampled_from([2**63, -(2**70), 1e308, 0.5, "NaN", "-Infinity"]))
_INSTEAD: Final = st.recursive(
    st.one_of(
        st.none(), st.booleans(), _NUMBERS, st.text(max_size=6), st.sampled_from(["float64", "int8", "base64", "auto", "x[0]"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["data", "dtype", "shape"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def mangled_queries(draw: st.DrawFn) -> Any:
    """An example query in which up to three places hold something else, or nothing."""
    query: Any = copy.deepcopy(draw(st.sampled_from([example.query for example in examples().values()])))
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(list(_places(query))))
        holder = query
        for key in path:
            holder = holder[key]
        if draw(st.booleans()):
            holder[last] = draw(_INSTEAD)
        else:
            del holder[last]
        if not query:
            break
    return query


@settings(SETTINGS, max_examples=MANGLED_CASES // HALF)
@given(query=mangled_queries())
def test_mangled_examples_are_answered_or_refused(api: Any, session: requests.Session, query: Any) -> None:
    operation = api["/v1/query"]["POST"]
    send(operation.Case(body=query, media_type="application/json"), session)


def test_document_is_the_one_that_is_fuzzed(api: Any) -> None:
    assert {operation.ok().label for operation in api.get_all_operations()} == {
        f"{verb.upper()} {path}" for path, verbs in document(__version__)["paths"].items() for verb in verbs
    }
