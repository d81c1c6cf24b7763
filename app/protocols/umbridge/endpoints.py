"""The addresses of UM-Bridge 1.0 at the root (its C++ client cannot use a prefix), and its error objects."""

from __future__ import annotations

from typing import Final

import orjson

from app.errors import PullbackError
from app.protocols.content import JSON
from app.protocols.message import Reading, Written
from app.protocols.routes import Route
from app.protocols.umbridge import model_calls
from app.protocols.umbridge.vectors import InvalidOutputError

# Code → the protocol's type, always with status 400; other refusals of a request's content are InvalidInput.
_TYPES: Final = {
    "unknown_function": "ModelNotFound",
    "not_differentiable": "UnsupportedFeature",
    "not_found": "UnsupportedFeature",
}
_CONTENT_STATUSES: Final = frozenset({400, 404, 406, 415, 422})
# RFC 9110, and what the protocol answers where a model gives no valid output.
_BAD_REQUEST: Final = 400
_INVALID_OUTPUT: Final = 500


def refused(error: PullbackError, request_id: str | None) -> Written:
    """`{"error": {"type", "message"}}` and nothing else, as the protocol's schema has it."""
    kind, status = _type_and_status(error)
    return Written(JSON, (orjson.dumps({"error": {"type": kind, "message": error.sentences()}}),), status=status)


def _type_and_status(error: PullbackError) -> tuple[str, int]:
    if isinstance(error, InvalidOutputError):
        return "InvalidOutput", _INVALID_OUTPUT
    if error.code in _TYPES:
        return _TYPES[error.code], _BAD_REQUEST
    if error.status in _CONTENT_STATUSES:
        return "InvalidInput", _BAD_REQUEST
    return "".join(word.capitalize() for word in error.code.split("_")), error.status


ENDPOINTS: Final[dict[str, Reading]] = {
    "umbridge.ModelInfo": model_calls.model_info,
    "umbridge.InputSizes": model_calls.input_sizes,
    "umbridge.OutputSizes": model_calls.output_sizes,
    "umbridge.Evaluate": model_calls.evaluate,
    "umbridge.Gradient": model_calls.gradient,
    "umbridge.ApplyJacobian": model_calls.apply_jacobian,
    "umbridge.ApplyHessian": model_calls.apply_hessian,
}

_SUMMARIES: Final = {
    "ModelInfo": "What a kept function supports.",
    "InputSizes": "The lengths of a function's input vectors.",
    "OutputSizes": "The lengths of its output vectors.",
    "Evaluate": "The values of its outputs.",
    "Gradient": "Jᵀ·sens of one output and one input.",
    "ApplyJacobian": "J·vec of one output and one input.",
    "ApplyHessian": "The second derivative, weighted by sens, times vec.",
}
ROUTES: Final = (
    Route("GET", "/Info", "The kept functions as models, single vectors first.", page=model_calls.info),
    *(Route("POST", f"/{name}", summary, f"umbridge.{name}") for name, summary in _SUMMARIES.items()),
)
# What a client asks who would hand vectors over in shared memory; refused in the protocol's shape, it sends them over HTTP.
_IN_SHARED_MEMORY: Final = frozenset(
    f"/{name}ShMem" for name in ("Test", "Evaluate", "Gradient", "ApplyJacobian", "ApplyHessian")
)
PATHS: Final = frozenset(route.path for route in ROUTES) | _IN_SHARED_MEMORY
