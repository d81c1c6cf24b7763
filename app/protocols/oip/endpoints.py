"""The addresses of the Open Inference Protocol v2 under `/v2`, and its refusals, `{"error": text}`."""

from __future__ import annotations

from typing import Final

import orjson

from app.errors import PullbackError
from app.protocols.content import JSON
from app.protocols.message import Message, Reading, Server, TakingApart, Written
from app.protocols.oip import inference, metadata, repeated_requests
from app.protocols.oip.envelope import JSON_LENGTH
from app.protocols.routes import PageRequest, Route

PREFIX: Final = "/v2"
_HEADERS: Final = (JSON_LENGTH, "accept-encoding")


def refused(error: PullbackError, request_id: str | None) -> Written:
    """The refusal in one string: clients show nothing else."""
    if error.at == "wrt":  # by what to differentiate stands in the names of the requested outputs
        error = error.placed("outputs")
    return Written(JSON, (orjson.dumps({"error": f"[{error.code}] {error.sentences()}"}),), status=error.status)


def _shared_memory() -> PullbackError:
    return PullbackError(
        "bad_request",
        "This server registers no shared memory: a region's name would let one client read another's.",
        fix="Send tensors as binary data.",
    )


def _repository() -> PullbackError:
    return PullbackError(
        "bad_request",
        "Models cannot be loaded or unloaded here: operations come with the server, functions from its folder at the start.",
        fix="Put NAME.py into the functions folder, or ask the model `program`.",
    )


def _settings() -> PullbackError:
    return PullbackError(
        "bad_request",
        "There are no settings of traces or logs that a client may read or change.",
        fix="Every reply has `X-Request-Id` and `Server-Timing`, and GET /metrics counts; PULLBACK_LOG_FORMAT is set where the server is started.",
    )


def _refuse_settings(message: Message, server: Server) -> Written:
    raise _settings()


def _refuse_settings_page(request: PageRequest) -> Written:
    raise _settings()


def _refuse_shared_memory(message: Message, server: Server) -> Written:
    raise _shared_memory()


def _refuse_shared_memory_page(request: PageRequest) -> Written:
    raise _shared_memory()


def _refuse_loading(message: Message, server: Server) -> Written:
    raise _repository()


ENDPOINTS: Final[dict[str, Reading]] = {
    "oip.infer": inference.read,
    "oip.index": metadata.index,
    "oip.loading": _refuse_loading,
    "oip.settings": _refuse_settings,
    "oip.shared_memory": _refuse_shared_memory,
}
TAKINGS_APART: Final[dict[str, TakingApart]] = {"oip.infer": repeated_requests.taking_apart}


def _of_model(path: str, **route: object) -> tuple[Route, ...]:
    """A route of a model, with and without a version."""
    return tuple(
        Route(path=f"{PREFIX}/models/{{model}}{version}{path}", **route)  # type: ignore[arg-type]
        for version in ("", "/versions/{version}")
    )


def _of_memory(kind: str) -> tuple[Route, ...]:
    base = f"{PREFIX}/{kind}sharedmemory"
    summary = "Refused: shared memory is not used here."
    return (
        Route("GET", f"{base}/status", summary, page=_refuse_shared_memory_page),
        Route("GET", f"{base}/region/{{region}}/status", summary, page=_refuse_shared_memory_page),
        Route("POST", f"{base}/region/{{region}}/register", summary, "oip.shared_memory"),
        Route("POST", f"{base}/region/{{region}}/unregister", summary, "oip.shared_memory"),
        Route("POST", f"{base}/unregister", summary, "oip.shared_memory"),
    )


_NO_SETTINGS: Final = "Refused: traces and logs are not set by clients."
ROUTES: Final = (
    Route("GET", PREFIX, "The server's name, version and extensions.", page=metadata.server),
    Route("GET", f"{PREFIX}/health/live", "Whether the server lives.", page=metadata.live, public=True),
    Route("GET", f"{PREFIX}/health/ready", "Whether queries are answered.", page=metadata.ready, public=True),
    Route("GET", f"{PREFIX}/models", "The names of all models: operations, functions, and `program`.", page=metadata.models),
    Route(
        "GET", f"{PREFIX}/models/stats", "Statistics of every model that has been asked.", page=metadata.statistics, counts=True
    ),
    *_of_model("", method="GET", summary="A model's tensors and what can be differentiated.", page=metadata.model),
    *_of_model("/ready", method="GET", summary="Whether a model answers.", page=metadata.model_ready),
    *_of_model("/config", method="GET", summary="A model's configuration.", page=metadata.config),
    *_of_model("/stats", method="GET", summary="A model's statistics.", page=metadata.statistics, counts=True),
    *_of_model("/infer", method="POST", summary="Values and derivatives.", endpoint="oip.infer", headers=_HEADERS),
    Route("POST", f"{PREFIX}/repository/index", "All models with their state.", "oip.index"),
    Route("POST", f"{PREFIX}/repository/models/{{model}}/load", "Refused: nothing is loaded at run time.", "oip.loading"),
    Route("POST", f"{PREFIX}/repository/models/{{model}}/unload", "Refused: nothing is unloaded at run time.", "oip.loading"),
    *(
        route
        for path in ("/trace/setting", "/models/{model}/trace/setting", "/logging")
        for route in (
            Route("GET", PREFIX + path, _NO_SETTINGS, page=_refuse_settings_page),
            Route("POST", PREFIX + path, _NO_SETTINGS, "oip.settings"),
        )
    ),
    *_of_memory("system"),
    *_of_memory("cuda"),
)
