"""The OpenAPI document is valid, complete, the one that is served; and every example in it is answered as it says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from app import __version__
from app.catalogue.read import SEARCH_LIMIT
from app.errors import CODES, PullbackError
from app.front.http.http_refusals import HEADER_BYTES_LIMIT, HEADER_COUNT_LIMIT
from app.front.openapi.document import document, text
from app.front.openapi.example_queries import Example, examples
from app.front.openapi.example_refusals import computed, problems
from app.limits import TENSOR_COUNT_LIMIT, Limits
from app.protocols.native.query_body import FIELDS, read_body
from app.query import WANTS
from app.settings import Settings
from tests.browser_numbers import as_a_browser_sends
from tests.front.computed_refusals import asked
from tests.server import Server

DELIVERED = Path(__file__).parent.parent.parent / "openapi" / "openapi.json"
TOLERANCE = 1e-6


def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document(__version__)["components"]})


_QUERY = _validator("Query")


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, verbs in document(__version__)["paths"].items():
        for verb, operation in verbs.items():
            yield path, verb, operation


def test_document_is_valid() -> None:
    validate(document(__version__))


def test_kept_file_is_the_document() -> None:
    assert DELIVERED.read_bytes() == text(__version__), "run `make openapi`"


def test_server_gives_the_document(server: Server) -> None:
    reply = server.http.get("/openapi.json")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.json() == orjson.loads(DELIVERED.read_bytes())


def test_every_endpoint_is_described() -> None:
    for path, verb, operation in _operations():
        assert operation["summary"], path
        assert len(operation["description"]) > 10, path
        assert operation["operationId"], (path, verb)


def test_every_error_code_is_documented() -> None:
    assert set(problems()) == set(CODES)
    shown = {
        code
        for _, _, operation in _operations()
        for status, response in operation["responses"].items()
        if int(status) >= 400
        for code in response["content"]["application/problem+json"]["examples"]
    }
    assert set(CODES) - shown <= {"not_found", "method_not_allowed"}


def test_every_field_of_a_query_is_described() -> None:
    described = document(__version__)["components"]["schemas"]["Query"]["properties"]
    assert set(described) == set(FIELDS)
    assert all(len(schema["description"]) > 10 for schema in described.values())


# Values of a query's fields beside what their schemas bound, and what fits none of them.
_PLAIN = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=3)
_EDGES = st.sampled_from(
    [-1, 0, 1, 5e-324, 2**63 - 1, 2**63, math.inf, "", "float64", "float8", "auto", "base64", "vjp", "sum"]
)
_NAMES = st.lists(st.sampled_from([*WANTS, "x", "y", 1, None]), max_size=4)
_MANY = st.sampled_from([[], [str(i) for i in range(TENSOR_COUNT_LIMIT)], [str(i) for i in range(TENSOR_COUNT_LIMIT + 1)]])
# What is in them is read later, each at its place (tests/protocols).
_TREES = ("inputs", "parameters", "cotangent", "tangent", "expected")


@settings(max_examples=400, deadline=None)
@given(field=st.sampled_from(FIELDS), value=_PLAIN | _EDGES | _NAMES | _MANY | st.dictionaries(st.text(max_size=2), _PLAIN))
@example(field="seed", value=2**63)
@example(field="seed", value=-1)
@example(field="timeout_s", value=0)
@example(field="want", value=["vjp", "vjp"])
def test_the_document_takes_what_the_service_takes(field: str, value: Any) -> None:
    """Bounds, words and kinds of value: where the one refuses, the other does."""
    if value is None or (field == "seed" and isinstance(value, float)) or (field in _TREES and isinstance(value, dict)):
        return  # null is as if left out, which the schema has no word for; and 1.0 is an integer to JSON Schema alone
    query = {"operation": "sin", field: value}
    try:
        read_body(query)
    except PullbackError:
        is_taken = False
    else:
        is_taken = True
    is_infinite = field == "timeout_s" and value in (math.inf, -math.inf)  # which JSON has no number for
    assert is_taken == (_QUERY.is_valid(query) and not is_infinite)


def test_the_limits_that_the_document_names_are_the_services() -> None:
    assert f"{HEADER_COUNT_LIMIT} headers of {HEADER_BYTES_LIMIT} bytes" in problems()["headers_too_large"]["expected"]
    assert Settings.model_fields["cost_limit_flops"].default == Limits().flops
    page = document(__version__)["paths"]["/v1/operations"]["get"]["parameters"]
    assert next(parameter for parameter in page if parameter["name"] == "search")["schema"]["maxLength"] == SEARCH_LIMIT


def test_example_refusals_fit_their_schema() -> None:
    validator = _validator("Problem")
    for code, problem in problems().items():
        validator.validate(problem)
        assert problem["code"] == code


@pytest.mark.parametrize("code", computed())
def test_the_engine_refuses_as_the_document_says(code: str) -> None:
    """`python -m tests.front.computed_refusals` writes anew what the engine says."""
    assert computed()[code]["problem"] == asked(computed()[code]["query"])


def test_example_answers_fit_their_schema() -> None:
    for path, _, operation in _operations():
        for response in operation["responses"].values():
            for media in response["content"].values():
                schema = {**media["schema"], "components": document(__version__)["components"]}
                for sample in media.get("examples", {}).values():
                    assert Draft202012Validator(schema).is_valid(sample["value"]), path


@pytest.mark.parametrize("path", [path for path, verb, _ in _operations() if verb == "get"])
def test_every_get_in_the_document_is_answered(server: Server, path: str) -> None:
    operation = document(__version__)["paths"][path]["get"]
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", parameter["example"])
    reply = server.http.get(path)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-request-id"]
    media_type, media = next(iter(operation["responses"]["200"]["content"].items()))
    assert reply.headers["content-type"].split(";")[0] == media_type
    if media_type == "application/json":
        Draft202012Validator({**media["schema"], "components": document(__version__)["components"]}).validate(reply.json())


def test_examples_show_everything_that_can_be_wanted() -> None:
    shown = {want for example in examples().values() for want in example.query.get("want", ["outputs"])}
    assert shown == set(WANTS)
    assert len(examples()) >= 20


@pytest.mark.parametrize("name", examples())
def test_example_is_a_query(name: str) -> None:
    _validator("Query").validate(examples()[name].query)


def _at(answer: dict[str, Any], path: str) -> Any:
    """The value at a dotted path (a dot in a name is escaped); a tensor's data where it leads to a tensor."""
    value: Any = answer
    for part in re.split(r"(?<!\\)\.", path):
        value = value[part.replace("\\.", ".")]
    return value["data"] if isinstance(value, dict) and "data" in value else value


def _numbers(value: Any) -> Any:
    return np.asarray(value, dtype=np.float64)  # reads the strings "NaN" and "Infinity" too


def assert_answered(example: Example, reply: httpx.Response) -> None:
    assert reply.status_code == example.status, reply.text
    if example.code is not None:
        _validator("Problem").validate(reply.json())
        assert reply.json()["code"] == example.code
        return
    _validator("Answer").validate(reply.json())
    for path, expected in example.expect.items():
        got = _at(reply.json(), path)
        if isinstance(expected, str | bool):
            assert got == expected, path
        else:
            np.testing.assert_allclose(_numbers(got), _numbers(expected), rtol=TOLERANCE, atol=TOLERANCE, err_msg=path)


@pytest.mark.parametrize("name", examples())
def test_example_is_answered_as_it_says(server: Server, name: str) -> None:
    example = examples()[name]
    assert_answered(example, server.http.post("/v1/query", json=example.query))


@pytest.mark.parametrize("name", examples())
def test_example_is_answered_from_a_browser(server: Server, name: str) -> None:
    example = examples()[name]
    assert_answered(example, server.http.post("/v1/query", json=as_a_browser_sends(example.query)))


def test_all_examples_in_one_list(server: Server) -> None:
    reply = server.http.post("/v1/queries", json=[example.query for example in examples().values()])
    assert reply.status_code == 200
    statuses = [answer.get("status", 200) for answer in reply.json()]
    assert statuses == [example.status for example in examples().values()]
