"""Health and metrics: answered by the front alone, so that they are quick while every worker computes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from fastapi import APIRouter, Response

from app.errors import PullbackError
from app.front.endpoints.admission import Admission

_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


def probes(admission: Admission) -> Mapping[str, Callable[[], bytes]]:
    """Path → what gives the body of its answer, in JSON; it raises PullbackError where the service cannot be used."""

    def ready() -> bytes:
        admission.check_open()
        if not admission.is_ready:
            raise PullbackError(
                "starting", "No worker has computed its probe gradient yet.", fix="Try again in a moment.", retry_after_s=2
            )
        return b'{"status":"ready"}'

    return {"/health/live": lambda: b'{"status":"live"}', "/health/ready": ready}


def router(text: Callable[[], Awaitable[bytes]]) -> APIRouter:
    """The route `/metrics`; `text` gives what it shows."""
    routes = APIRouter()

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(await text(), media_type=_METRICS)

    return routes
