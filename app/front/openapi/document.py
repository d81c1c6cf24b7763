"""The OpenAPI document of the service, as one pure function of its version."""

from __future__ import annotations

from typing import Any, Final

import orjson

from app.catalogue.read import SEARCH_LIMIT
from app.errors import CODES, PROBLEM_MEDIA_TYPE
from app.front.http.exchange import REQUEST_ID_PATTERN
from app.front.openapi.example_queries import examples
from app.front.openapi.example_refusals import problems
from app.front.openapi.schema_parts import ref
from app.front.openapi.schemas import SCHEMAS
from app.front.openapi.service_schemas import SERVICE_SCHEMAS
from app.limits import NAME_LIMIT
from app.protocols.native.bodies import QUERY_COUNT_LIMIT

JSON: Final = "application/json"
SAFETENSORS: Final = "application/vnd.safetensors"
OCTETS: Final = "application/octet-stream"

_ABOUT: Final = """\
Pullback answers gradient queries: any of PyTorch's tensor operations, or a few lines made of them; their values, \
gradients, VJPs, JVPs, Jacobians, Hessians and Fisher matrices, a report of where and why there is no derivative, and \
a check of your own.

Start with **POST /v1/query**, choose an example, *Try it out*, *Execute*.

* A body without `Content-Type` is read as JSON. `Content-Encoding: gzip` and `deflate` are accepted; the size limit \
holds for the decompressed body.
* Non-finite numbers are the strings `"NaN"`, `"Infinity"`, `"-Infinity"`, in and out.
* Every refusal has one shape, `application/problem+json`, and says where, what was expected, what was given and how \
to fix it.
* Every reply carries `X-Request-Id`: yours, or ours.
* The same operations and functions are asked through three more protocols, whose clients work unmodified: the Open Inference \
Protocol v2 with binary tensors under `/v2` (a model is an operation, a function, or `program`), UM-Bridge 1.0 at the root (models \
are the kept functions), and Tesseract under `/tesseract/{operation or function}`, each with its own `openapi.json`. Refusals there \
have the protocol's own shape.
"""

_TAGS: Final = (
    ("queries", "Ask for values and derivatives."),
    ("catalogue", "What can be asked about."),
    ("service", "Is it well, what does it do."),
)

_HEADERS: Final = {
    "X-Request-Id": {"description": "The request's id: the client's, or ours.", "schema": {"type": "string"}},
    "Server-Timing": {
        "description": "Where the time went, in milliseconds: `queue;dur=…, compute;dur=…, encode;dur=…`; of a list, its queries' together.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "When to come back, in seconds.", "schema": {"type": "integer"}},
}

_REQUEST_ID: Final = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "A name for this request, to find it again in logs. Left out, or not such a word: the server makes one.",
    "schema": {"type": "string", "pattern": f"^{REQUEST_ID_PATTERN}$"},
}

# What may refuse any request, before it is looked at.
_ENDPOINT_CODES: Final = ("unauthorized", "foreign_origin", "headers_too_large", "internal")
# What may refuse a body. The rest of the table are refusals of addresses.
_ADDRESS_CODES: Final = ("not_found", "method_not_allowed")
_QUERY_CODES: Final = tuple(code for code in CODES if code not in _ADDRESS_CODES)

_EXAMPLE_ID: Final = {"request_id": "b7f3c2a1"}
_LIST_EXAMPLES: Final = ("softmax_jacobian", "argmax_refused")


def _header_refs(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _problem_response(status: int, codes: list[str]) -> dict[str, Any]:
    """One response for all the codes of a status, each with its example."""
    headers = _header_refs("X-Request-Id", *(["Retry-After"] if status in (429, 503) else []))
    return {
        "description": "; ".join(f"`{code}`: {CODES[code][1].lower()}" for code in codes) + ".",
        "headers": headers,
        "content": {
            PROBLEM_MEDIA_TYPE: {
                "schema": ref("Problem"),
                "examples": {code: {"summary": CODES[code][1], "value": problems()[code] | _EXAMPLE_ID} for code in codes},
            }
        },
    }


def _problems(codes: tuple[str, ...]) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code][0], []).append(code)
    return {str(status): _problem_response(status, by_status[status]) for status in sorted(by_status)}


def _answered(content: dict[str, Any], description: str, *headers: str) -> dict[str, Any]:
    return {"description": description, "headers": _header_refs("X-Request-Id", *headers), "content": content}


def _json(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {JSON: {"schema": schema, **more}}


def _binary(description: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary", "description": description}}


def _query_examples() -> dict[str, Any]:
    return {
        name: {"summary": example.summary, "description": example.description, "value": example.query}
        for name, example in examples().items()
    }


def _tensor(value: Any) -> dict[str, Any]:
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0]
    return {"shape": shape, "dtype": "float64", "data": value}


def _softmax_answer() -> dict[str, Any]:
    """The answer to the first example, from the values that its file states."""
    expect = examples()["softmax_jacobian"].expect
    return {
        "outputs": {"output": _tensor(expect["outputs.output"])},
        "jacobian": {"output": {"input": _tensor(expect["jacobian.output.input"])}},
        "notes": [],
        "plan": {"method": "reverse", "passes": 3, "flops": 21, "peak_bytes": 144, "device": "cpu"},
    }


_QUERY_TEXT: Final = """\
One query, one answer; one forward pass serves all that is wanted.

* As JSON; or as a safetensors file whose `__metadata__` has the key `query` (the JSON query without the tensors) and \
whose tensors are named `inputs.NAME`, `cotangent.NAME`, `tangent.NAME`, `expected.NAME`. `application/octet-stream` \
is read as safetensors too.
* With `Accept: application/vnd.safetensors` the answer is a safetensors file whose tensors are named like the paths \
of the JSON answer (`vjp.input`, `jacobian.output.input`) and whose `__metadata__["answer"]` is the rest. `complex128` \
goes as `float64` with a trailing axis of 2, and its name is listed in `answer.complex`. Any mixture in and out works.
* A non-finite derivative is answered, not refused; a note names the first step that made it.
* Complex gradients follow PyTorch's convention (the conjugate Wirtinger derivative); a note says so.
"""

_LIST_TEXT: Final = """\
Answers a JSON list of queries, in order. A query that fails is an error object (`Problem`, with its own `status`) in \
its place; the others are answered, and the list as a whole is 200. Each query has its own deadline. JSON in and out \
only.
"""


def _query_endpoint() -> dict[str, Any]:
    answer = _json(ref("Answer"), examples={"softmax_jacobian": {"value": _softmax_answer()}})
    answer[SAFETENSORS] = _binary("Tensors named like the answer's paths; the rest in `__metadata__.answer`.")
    body = _json(ref("Query"), examples=_query_examples())
    for media_type in (SAFETENSORS, OCTETS):
        body[media_type] = _binary("A safetensors file with the query in `__metadata__.query`.")
    return {
        "operationId": "query",
        "tags": ["queries"],
        "summary": "Answer one query",
        "description": _QUERY_TEXT,
        "parameters": [_REQUEST_ID],
        "requestBody": {"required": True, "content": body},
        "responses": {"200": _answered(answer, "The answer.", "Server-Timing"), **_problems(_QUERY_CODES)},
    }


def _batch_endpoint() -> dict[str, Any]:
    both = {"type": "array", "items": {"anyOf": [ref("Answer"), ref("Problem")]}}
    chosen = [examples()[name].query for name in _LIST_EXAMPLES]
    shown = [_softmax_answer(), problems()["not_differentiable"] | _EXAMPLE_ID]
    return {
        "operationId": "queries",
        "tags": ["queries"],
        "summary": "Answer a list of queries",
        "description": _LIST_TEXT,
        "parameters": [_REQUEST_ID],
        "requestBody": {
            "required": True,
            "content": _json(
                {"type": "array", "items": ref("Query"), "maxItems": QUERY_COUNT_LIMIT},
                examples={"one_fails": {"summary": "Two queries, the second of which is refused", "value": chosen}},
            ),
        },
        "responses": {
            "200": _answered(
                _json(both, examples={"one_fails": {"value": shown}}),
                "An answer or a problem for each query, in order.",
                "Server-Timing",
            ),
            **_problems(_QUERY_CODES),
        },
    }


def _get(
    name: str,
    tag: str,
    summary: str,
    content: dict[str, Any],
    *,
    description: str = "",
    parameters: tuple[dict[str, Any], ...] = (),
    codes: tuple[str, ...] = (),
) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "description": description or f"{summary}.",
        "parameters": [*parameters, _REQUEST_ID],
        "responses": {"200": _answered(content, "Found."), **_problems((*codes, *_ENDPOINT_CODES))},
    }


def _path_name(of: str, example: str) -> dict[str, Any]:
    return {
        "name": "name",
        "in": "path",
        "required": True,
        "description": f"The {of}'s name.",
        "schema": {"type": "string", "minLength": 1, "maxLength": NAME_LIMIT},
        "example": example,
    }


_SEARCH: Final = {
    "name": "search",
    "in": "query",
    "required": False,
    "description": "Words that the name or the meaning must contain.",
    "schema": {"type": "string", "maxLength": SEARCH_LIMIT},
}
_DIFFERENTIABLE: Final = {
    "name": "differentiable",
    "in": "query",
    "required": False,
    "description": "`true`: only operations with a derivative; `false`: only those without.",
    "schema": {"type": "boolean"},
}


def _catalogue_endpoints() -> dict[str, Any]:
    return {
        "/v1/operations": _get(
            "operations",
            "catalogue",
            "Find operations",
            _json(ref("OperationList")),
            description="Every operation that a query or a program may name, filtered by name and meaning.",
            parameters=(_SEARCH, _DIFFERENTIABLE),
            codes=("bad_request",),
        ),
        "/v1/operations/{name}": _get(
            "operation",
            "catalogue",
            "Read about one operation",
            _json(ref("Operation")),
            description="Its signatures, what is differentiable, the derivative formula as PyTorch has it, and a query that "
            "works as it stands. Short names and other spellings (`F.softmax`) are found where they are unambiguous.",
            parameters=(_path_name("operation", "softmax"),),
            codes=("unknown_operation", "not_found"),
        ),
        "/v1/functions": _get(
            "functions", "catalogue", "List the functions kept on this server", _json(ref("FunctionList")), codes=("starting",)
        ),
        "/v1/functions/{name}": _get(
            "function",
            "catalogue",
            "Read one kept function",
            _json(ref("Function")),
            description="Its program text and signature.",
            parameters=(_path_name("function", "rosenbrock"),),
            codes=("unknown_function", "not_found", "starting"),
        ),
    }


def _service_endpoints() -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "/health/live": _get("live", "service", "Is the process alive", _json(ref("Health"))),
        "/health/ready": _get(
            "ready",
            "service",
            "Can it answer",
            _json(ref("Health")),
            description="Ready = not draining, and at least one worker whose last probe gradient succeeded.",
            codes=("starting", "draining"),
        ),
        "/v1/limits": _get(
            "limits",
            "service",
            "What does it take",
            _json(ref("Limits")),
            description="Bytes of a body, of an answer's tensors and of the queue, deadlines, workers by device; and the memory and "
            "cores from which the server has derived what its settings leave open.",
            codes=("starting",),
        ),
        "/metrics": _get("metrics", "service", "Prometheus metrics", text),
    }


def document(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the service at `version`, as served at `/openapi.json`."""
    gets = _catalogue_endpoints() | _service_endpoints()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pullback",
            "version": version,
            "summary": "Gradient queries over HTTP",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS],
        # A server without keys is open; the empty requirement says so.
        "security": [{}, {"bearer": []}, {"key": []}, {"basic": []}],
        "paths": {
            "/v1/query": {"post": _query_endpoint()},
            "/v1/queries": {"post": _batch_endpoint()},
            **{path: {"get": operation} for path, operation in gets.items()},
        },
        "components": {
            "schemas": SCHEMAS | SERVICE_SCHEMAS,
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "One of the server's API keys."},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "One of the server's API keys."},
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "Any user; the password is one of the server's API keys.",
                },
            },
        },
    }


def text(version: str) -> bytes:
    """The document as the repository keeps it: indented, one newline at the end."""
    return orjson.dumps(document(version), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
