"""One example refusal for each error code, made by the function that refuses.

The refusals of what computes are kept in `computed_refusals.json`, for this room does not import PyTorch: a query for each code and
what the engine said; a test asks the engine again, and `python -m tests.front.computed_refusals` writes the file anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, Final

import orjson

from app.catalogue.read import find
from app.errors import PullbackError
from app.front.access.keys import ApiKeys
from app.front.access.origins import Origins
from app.front.http import http_refusals
from app.limits import Limits
from app.pool import refusals as pool
from app.protocols import content, strict_json
from app.protocols.json_tensors import tensor
from app.protocols.native import safetensors_format
from app.protocols.native.bodies import read
from app.protocols.native.query_body import read_body

FILE: Final = "computed_refusals.json"

# Each raises, or gives, the refusal of its code.
_REFUSERS: Final[dict[str, Callable[[], Any]]] = {
    "bad_json": lambda: strict_json.parse(b'{"operation": "softmax", "inputs": {"input": [1.0, 2.0'),
    "bad_request": lambda: read_body({"operatoin": "softmax"}),
    "bad_binary": lambda: safetensors_format.read(memoryview(b"\x84\x03\0\0\0\0\0\0" + b"{}" + b" " * 110)),
    "duplicate_key": lambda: strict_json.parse(b'{"shape": [2], "shape": [3]}'),
    "json_depth": lambda: strict_json.parse(b"[" * 101 + b"]" * 101),
    "unauthorized": lambda: ApiKeys(["a key"]).check([]),
    "foreign_origin": lambda: Origins("127.0.0.1", (), ()).check_host([b"elsewhere.example"], "1.1"),
    "not_found": lambda: http_refusals.not_found("/v1/querry"),
    "unknown_operation": lambda: find("sofmax"),
    "method_not_allowed": lambda: http_refusals.method_not_allowed("GET", "POST"),
    "not_acceptable": lambda: content.negotiate("text/csv"),
    "body_timeout": lambda: http_refusals.too_slow(4096, 30.0, 4096.0),
    "body_too_large": lambda: read(memoryview(b"[1, 2, 3]"), None, None, Limits(body_bytes=4)),
    "unsupported_media_type": lambda: read(memoryview(b"a,b"), "text/csv", None, Limits()),
    "bad_tensor": lambda: tensor([[1.0, 2.0, 3.0], [4.0, 5.0]], "inputs.x"),
    "bad_parameter": lambda: read_body({"operation": "dropout", "seed": -1}),
    "queue_full": lambda: pool.queue_full("1024 queries wait already, of 1024 at most"),
    "headers_too_large": http_refusals.headers_too_large,
    "worker_crashed": pool.worker_crashed,
    "internal": http_refusals.broken,
    "starting": pool.starting,
    "draining": pool.draining,
    "deadline_exceeded": lambda: pool.deadline_exceeded(2.0),
    "out_of_memory": lambda: pool.body_without_memory(1 << 32),
}


def _refused(refuser: Callable[[], Any]) -> PullbackError:
    try:
        refusal = refuser()
    except PullbackError as error:
        refusal = error
    if not isinstance(refusal, PullbackError):
        raise TypeError("this is no refusal")
    return refusal


@cache
def computed() -> dict[str, dict[str, Any]]:
    """Code → `query`, and the `problem` that the engine answered."""
    table: dict[str, dict[str, Any]] = orjson.loads((files("app.front.openapi") / FILE).read_bytes())
    return table


@cache
def problems() -> dict[str, dict[str, Any]]:
    """Code → the body of `application/problem+json`, without a request id."""
    by_code = {code: _refused(refuser).problem() for code, refuser in _REFUSERS.items()}
    return by_code | {code: entry["problem"] for code, entry in computed().items()}
