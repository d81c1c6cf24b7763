"""The ready example queries, one file each, and one example refusal for each error code.

Knows where the examples lie and what each shows. Refuses to know how they are answered; a test sends every one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

import orjson

from app.errors import PullbackError


@dataclass(frozen=True, slots=True)
class Example:
    """One ready query.

    Attributes:
        summary, description: for people.
        query: the body of `POST /v1/query`.
        status: the HTTP status of its answer.
        expect: dotted path into the answer → the value there, found without PyTorch (closed forms, central differences).
        code: the error code, where it is refused.
    """

    summary: str
    description: str
    query: dict[str, Any]
    status: int
    expect: dict[str, Any]
    code: str | None = None


@cache
def examples() -> MappingProxyType[str, Example]:
    """Name → example, in the order in which Swagger UI offers them."""
    folder = files("app.front.openapi") / "examples"
    found = sorted((path for path in folder.iterdir() if path.name.endswith(".json")), key=lambda path: path.name)
    return MappingProxyType({path.name[3:-5]: Example(**orjson.loads(path.read_bytes())) for path in found})


def _refusal(code: str, detail: str, **fields: Any) -> PullbackError:
    return PullbackError(code, detail, **fields)


# One for each key of `errors.CODES`; a test compares the two tables.
_REFUSALS: Final = (
    _refusal("bad_json", "The JSON breaks off at byte 27.", at="byte 27", fix="Send one complete JSON object."),
    _refusal(
        "bad_request",
        "The query has a field that is not known: `operatoin`.",
        at="operatoin",
        expected="one of operation, program, function, inputs, parameters, want…",
        given="operatoin",
        fix="Write `operation`.",
    ),
    _refusal("bad_binary", "The safetensors header says 900 bytes, the body has 120.", expected="900 bytes", given="120 bytes"),
    _refusal("duplicate_key", "The key `shape` stands twice in one object.", at="inputs.x", fix="Send each key once."),
    _refusal("json_depth", "The JSON is nested deeper than 100 levels.", expected="at most 100 levels"),
    _refusal("unauthorized", "This server wants an API key.", fix="Send `Authorization: Bearer KEY` or `X-API-Key: KEY`."),
    _refusal(
        "foreign_origin",
        "Pages of this origin may not call the server.",
        given="https://elsewhere.example",
        fix="Add the origin to PULLBACK_ALLOWED_ORIGINS.",
    ),
    _refusal("not_found", "There is nothing at this address.", given="/v1/querry", fix="GET /docs lists the addresses."),
    _refusal(
        "unknown_operation",
        "No operation is called `sofmax`; near it: softmax, softmin.",
        at="operation",
        given="sofmax",
        fix="GET /v1/operations?search=sofmax finds names.",
    ),
    _refusal("unknown_function", "No function is called `rosenbrok`; near it: rosenbrock.", at="function", given="rosenbrok"),
    _refusal("method_not_allowed", "This address takes POST.", expected="POST", given="GET"),
    _refusal(
        "not_acceptable",
        "The answer cannot be given as text/csv.",
        at="Accept",
        expected="application/json or application/vnd.safetensors",
        given="text/csv",
    ),
    _refusal("body_timeout", "No byte of the body arrived for 30 s.", fix="Send the body without pauses."),
    _refusal("body_too_large", "The body is larger than 268435456 bytes.", expected="at most 268435456 bytes"),
    _refusal(
        "result_too_large",
        "The Jacobian would have 80000000000 bytes.",
        at="want",
        expected="at most 268435456 bytes",
        given="80000000000 bytes",
        fix="Want `vjp` or `jvp`, or `format: auto` for its diagonal.",
    ),
    _refusal("too_costly", "The query would take 2.1e15 flops.", expected="at most 1e13 flops", given="2.1e15 flops"),
    _refusal(
        "unsupported_media_type",
        "Bodies of text/csv are not read.",
        at="Content-Type",
        expected="application/json, application/vnd.safetensors or application/octet-stream",
        given="text/csv",
    ),
    _refusal(
        "bad_tensor",
        "The rows of `inputs.x` have different lengths.",
        at="inputs.x[1]",
        expected="3 elements, as in the first row",
        given="2 elements",
    ),
    _refusal("bad_parameter", "`dim` must be an integer.", at="parameters.dim", expected="integer", given="'last'"),
    _refusal(
        "bad_program",
        "`import` is not in the language.",
        at="1:1",
        given="import os",
        fix="Call operations by name: softmax(x, dim=-1).",
    ),
    _refusal(
        "shape_mismatch",
        "conv2d reads input[N, C, H, W] and input is [1, 2, 5, 5], so the weight needs 2 in-channels.",
        at="inputs.weight",
        expected="shape [*, 2, *, *]",
        given="[3, 4, 3, 3]",
        fix="Send a weight with 2 in-channels, or set parameters.groups.",
    ),
    _refusal(
        "not_differentiable",
        "argmax gives integers (int64), so there is no derivative.",
        at="operation",
        given="argmax",
        fix="Weigh the elements by softmax(input / temperature) instead, or want `outputs` only.",
    ),
    _refusal(
        "not_scalar",
        "A gradient is of one number, and the output has shape [8, 3].",
        at="want",
        expected="an output of one real element",
        given="shape [8, 3]",
        fix="End with sum() or mean(), or want `vjp` with a cotangent, or `jacobian`.",
    ),
    _refusal(
        "bad_cotangent",
        "The cotangent must have the output's shape.",
        at="cotangent.output",
        expected="[1, 3], or [*, 1, 3] for several",
        given="[3]",
    ),
    _refusal("operation_failed", "linalg.cholesky: the matrix is not positive-definite.", at="operation"),
    _refusal("queue_full", "1024 queries wait already.", retry_after_s=1, fix="Send it again after the time in Retry-After."),
    _refusal("headers_too_large", "The headers are larger than 65536 bytes.", expected="at most 65536 bytes"),
    _refusal("worker_crashed", "Two workers died while they answered this query; it is refused for a while."),
    _refusal("internal", "Something broke on our side; the log has it under the request's id."),
    _refusal("starting", "The workers are starting.", retry_after_s=1),
    _refusal("draining", "The service is shutting down.", retry_after_s=5),
    _refusal(
        "deadline_exceeded",
        "The query was not answered within 2 s.",
        at="timeout_s",
        fix="Ask for less, or for a longer timeout_s.",
    ),
    _refusal("out_of_memory", "The query needs more memory than its worker may take (4294967296 bytes)."),
)


def refusals() -> dict[str, PullbackError]:
    """Error code → an example of it."""
    return {refusal.code: refusal for refusal in _REFUSALS}
