"""The addresses of Tesseract Core, one prefix for each operation and function, and its refusals."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import orjson

from app.errors import PullbackError
from app.protocols.content import JSON
from app.protocols.message import Reading, Written
from app.protocols.models import Model, of_operation
from app.protocols.routes import PageRequest, Route
from app.protocols.tesseract.actions import ACTIONS
from app.protocols.tesseract.negotiation import COMPRESSIONS, FORMATS, GPU_TRANSPORTS
from app.protocols.tesseract.schema import document

PREFIX: Final = "/tesseract"
# What a client reads as a validation error; others it shows as text.
_VALIDATION_STATUSES: Final = frozenset({400, 415, 422})
_UNPROCESSABLE: Final = 422  # what FastAPI, and so Tesseract Core, answers to an input that does not fit its schema
_PLACE: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def refused(error: PullbackError, request_id: str | None) -> Written:
    """FastAPI's shapes, which the clients read: a list of `{"type", "loc", "msg"}` under 422, else a sentence under `detail`."""
    # Inputs and parameters stand in one object here.
    text = error.sentences(placed=False).replace('"parameters": {', '"inputs": {')
    if error.status in _VALIDATION_STATUSES:
        return _json({"detail": [{"type": error.code, "loc": ["body", *_places(error.at)], "msg": text}]}, _UNPROCESSABLE)
    if error.code == "not_acceptable":
        return _json(
            {
                "detail": {
                    "message": text,
                    "available_formats": list(FORMATS),
                    "available_gpu_transports": list(GPU_TRANSPORTS),
                    "available_compressions": list(COMPRESSIONS),
                }
            },
            error.status,
        )
    return _json({"detail": text}, error.status)


def _places(at: str | None) -> list[str | int]:
    # Inputs and parameters stand in one object here.
    at = f"inputs.{at.removeprefix('parameters.')}" if at and at.startswith("parameters.") else at
    return [int(index) if index else name for index, name in _PLACE.findall(at or "")]


def health(request: PageRequest) -> Written:
    """`GET …/health`. Raises PullbackError: `unknown_operation`, and `starting` while no worker answers."""
    request.models.find(request.parameters["model"])
    if not request.ready:
        raise PullbackError("starting", "No worker answers yet.", fix="Try again in a moment.", retry_after_s=2)
    return _json({"status": "ok"}, 200)


def openapi(request: PageRequest) -> Written:
    """`GET …/openapi.json` of one model. Raises PullbackError: `unknown_operation`."""
    model = request.models.find(request.parameters["model"])
    return Written(JSON, (_document(model.name) if model.subject == "operation" else _dumped(model),))


@lru_cache(maxsize=4096)
def _document(name: str) -> bytes:
    return _dumped(of_operation(name))


def _dumped(model: Model) -> bytes:
    return orjson.dumps(document(model))


def _json(value: Any, status: int) -> Written:
    return Written(JSON, (orjson.dumps(value),), status=status)


_SUMMARIES: Final = {
    "apply": "The values of every output.",
    "jacobian": "Jacobians, each of shape [output…, input…].",
    "jacobian_vector_product": "J·tangent.",
    "vector_jacobian_product": "Jᵀ·cotangent.",
    "abstract_eval": "The outputs' shapes and dtypes.",
}
ENDPOINTS: Final[dict[str, Reading]] = {f"tesseract.{name}": action for name, action in ACTIONS.items()}
ROUTES: Final = (
    Route("GET", f"{PREFIX}/{{model}}/health", "Whether the model answers.", page=health),
    Route("GET", f"{PREFIX}/{{model}}/openapi.json", "The schema that Tesseract's clients read.", page=openapi),
    *(Route("POST", f"{PREFIX}/{{model}}/{name}", _SUMMARIES[name], f"tesseract.{name}") for name in ACTIONS),
)
