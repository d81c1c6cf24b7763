"""The tree of errors: where, what was expected, what was given, how to fix it, and the status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

# code → (HTTP status, title). Documentation, OpenAPI and tests are made from this table.
CODES: Final[dict[str, tuple[int, str]]] = {
    "bad_json": (400, "The body is not valid JSON"),
    "bad_request": (400, "The request is not a query"),
    "bad_binary": (400, "The binary body cannot be read"),
    "duplicate_key": (400, "A key stands twice in one JSON object"),
    "json_depth": (400, "The JSON is nested too deeply"),
    "unauthorized": (401, "An API key is needed"),
    "foreign_origin": (403, "The page that sent this is not on the allow-list"),
    "not_found": (404, "There is nothing at this address"),
    "unknown_operation": (404, "No operation has this name"),
    "unknown_function": (404, "No function has this name"),
    "method_not_allowed": (405, "The address does not take this verb"),
    "not_acceptable": (406, "The answer cannot be given in the media type asked for"),
    "body_timeout": (408, "The body did not arrive in time"),
    "body_too_large": (413, "The body is too large"),
    "result_too_large": (413, "The result would be too large"),
    "too_costly": (413, "The computation would be too costly"),
    "unsupported_media_type": (415, "The body's media type or encoding is not supported"),
    "bad_tensor": (422, "A tensor cannot be read"),
    "bad_parameter": (422, "A parameter is wrong"),
    "bad_program": (422, "The program is not in the language"),
    "shape_mismatch": (422, "Shapes do not fit together"),
    "not_differentiable": (422, "There is no derivative here"),
    "not_scalar": (422, "The output is not a scalar"),
    "bad_cotangent": (422, "A cotangent or tangent does not fit"),
    "operation_failed": (422, "PyTorch refused the operation"),
    "queue_full": (429, "The queue is full"),
    "headers_too_large": (431, "The request's headers are too large"),
    "worker_crashed": (500, "The worker died while answering"),
    "internal": (500, "Something broke on our side"),
    "starting": (503, "The service is starting"),
    "draining": (503, "The service is shutting down"),
    "deadline_exceeded": (504, "The deadline passed"),
    "out_of_memory": (507, "The query needs more memory than a worker has"),
}

# code → what to do where whoever refuses knows nothing better, and `expected` is nothing that can be sent.
_WAYS_OUT: Final[dict[str, str]] = {
    "bad_json": "Write the text with a JSON library, as json.dumps does.",
    "bad_request": "Compare the request with the examples in /docs.",
    "bad_binary": "Write the body with the library of its format, and send its bytes unchanged.",
    "duplicate_key": "Send each key once.",
    "json_depth": "Send a flat list with `shape`.",
    "unauthorized": "Send a key: Authorization: Bearer KEY, or X-API-Key.",
    "foreign_origin": "Add the page's origin to PULLBACK_ALLOWED_ORIGINS.",
    "not_found": "See /docs for what there is.",
    "unknown_operation": "Look it up: GET /v1/operations?search=….",
    "unknown_function": "GET /v1/functions lists them.",
    "method_not_allowed": "Send the verb that the header Allow names.",
    "not_acceptable": "Name one of these in Accept, or leave Accept out.",
    "body_timeout": "Send the whole body without pauses.",
    "body_too_large": "Send less, or binary tensors instead of JSON.",
    "result_too_large": "Send smaller inputs, or reduce the result before it is returned.",
    "too_costly": "Send smaller inputs, or split the query.",
    "unsupported_media_type": "Send JSON as application/json, or a safetensors file as application/vnd.safetensors.",
    "bad_tensor": "Send a number, a nested list, or a tensor with its data, dtype and shape.",
    "bad_parameter": "Compare it with the signature: GET /v1/operations/NAME or /v1/functions/NAME.",
    "bad_program": "Write the line as plain Python: assignments, operators, calls of the catalogue's operations, and a `return`.",
    "shape_mismatch": "Change the shape of one of these tensors, so that they fit.",
    "not_differentiable": "Leave out the input that has no derivative, or want `explain`, which says what cuts the path.",
    "not_scalar": "Reduce the output with sum() or mean(), or want `vjp` or `jacobian`.",
    "bad_cotangent": "Send one with the shape and dtype of what it belongs to.",
    "operation_failed": "Change what PyTorch names; GET /v1/operations/NAME has the signature, and an example that is answered.",
    "queue_full": "Try again in a moment.",
    "headers_too_large": "Send fewer and shorter headers.",
    "worker_crashed": "Send smaller inputs, or other values; the same query would end a worker again.",
    "internal": "Try it once more; if it fails again, report it with the request id.",
    "starting": "Try again in a moment.",
    "draining": "Send the query again, to another server.",
    "deadline_exceeded": "Ask for less, or for more time with `timeout_s`.",
    "out_of_memory": "Send smaller tensors, or split the query.",
}
# Codes whose `expected` says how the right one looks, not what to send.
_NOT_SENT: Final = frozenset({"bad_json", "bad_binary", "not_acceptable", "operation_failed", "shape_mismatch"})

# Exit statuses of `pullback serve` where it cannot start or go on until a person changes something.
EXIT_SETTINGS: Final = 2  # the settings, or what they ask for is not here
EXIT_THREADS: Final = 3  # the parent of the workers has threads, so it must not fork
EXIT_WORKERS: Final = 4  # the parent of the workers, or every worker, dies again and again before it is ready

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
# A reply must never carry a large part of what was sent (docs/contract.md, section 6).
_ECHO_LIMIT: Final = 300
_DETAIL_LIMIT: Final = 1200  # the longest advice of ours, some 500 characters, with two echoes


def shortened(value: Any, limit: int = _ECHO_LIMIT) -> str:
    """`value` as printable text of at most `limit` characters, its control characters escaped."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


class LostDeviceError(Exception):
    """This process can compute nothing more on its device: a kernel has poisoned the CUDA context, so it must end like one that crashed."""


class PullbackError(Exception):
    """One refusal, as a client reads it.

    Arguments:
        code: a key of `CODES`; it decides the HTTP status.
        detail: one sentence that a person can act on.
        at: a path into the query (`inputs.weight`), or `line:column` in a program.
        expected, given: what should have stood there, and what did, in words.
        fix: what to send instead; where it is left out, it follows from `expected` or the code.
        retry_after_s: when to come back, in seconds (429 and 503).
        problems: every refusal of a program, this one first, where several lines cannot be read.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        at: str | None = None,
        expected: str | None = None,
        given: Any = None,
        fix: str | None = None,
        retry_after_s: int | None = None,
        problems: Sequence[PullbackError] = (),
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = shortened(detail, _DETAIL_LIMIT)
        self.at = None if at is None else shortened(at)
        self.expected = None if expected is None else shortened(expected, _DETAIL_LIMIT)
        self.given = None if given is None else shortened(given)
        self.fix = shortened(fix or self._way_out(), _DETAIL_LIMIT)
        self.retry_after_s = retry_after_s
        self.problems = tuple(problems)

    def _way_out(self) -> str:
        if self.expected is None or self.code in _NOT_SENT:
            return _WAYS_OUT[self.code]
        return f"Send {self.expected}."

    def placed(self, at: str) -> PullbackError:
        """This refusal at the place that another protocol has for it."""
        return PullbackError(self.code, self.detail, at=at, expected=self.expected, given=self.given, fix=self.fix)

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    def sentences(self, *, placed: bool = True) -> str:
        """This refusal as running text, for protocols that have one string for it; `placed`: with the place."""
        expected = self.expected if self.expected and self.expected not in self.fix else None
        facts = (("At", self.at if placed else None), ("Expected", expected), ("Given", self.given))
        said = [f"{word}: {text}." for word, text in facts if text]
        return " ".join((self.detail, *said, self.fix))

    def __str__(self) -> str:
        where = f"At `{self.at}`: " if self.at else ""
        return f"{self.status} {self.code} — {where}{self.detail}"

    def entry(self) -> dict[str, Any]:
        """This refusal as one of several in `problems`."""
        fields = {"code": self.code, "detail": self.detail, "at": self.at, "expected": self.expected, "given": self.given}
        return {key: value for key, value in (fields | {"fix": self.fix}).items() if value is not None}

    def problem(self, request_id: str | None = None) -> dict[str, Any]:
        """The body of `application/problem+json` (RFC 9457); absent fields are left out."""
        status, title = CODES[self.code]
        fields = {
            "type": f"urn:pullback:error:{self.code}",
            "title": title,
            "status": status,
            "code": self.code,
            "detail": self.detail,
            "at": self.at,
            "expected": self.expected,
            "given": self.given,
            "fix": self.fix,
            "problems": [error.entry() for error in self.problems] or None,
            "request_id": request_id,
        }
        return {key: value for key, value in fields.items() if value is not None}


class ServiceError(Exception):
    """The service cannot start or go on; the message is one line for the operator, `exit_status` the command's."""

    def __init__(self, detail: str, exit_status: int) -> None:
        super().__init__(detail)
        self.exit_status = exit_status
