"""Health and metrics: answered by the front alone, so that they are quick while every worker computes.

Knows what live and ready mean (docs/contract.md, section 1). Refuses to ask a worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter, Response

from app.errors import PullbackError
from app.front.endpoints.admission import Admission

_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


def router(admission: Admission, text: Callable[[], Awaitable[bytes]]) -> APIRouter:
    """The routes `/health/…` and `/metrics`; `text` gives what the last one shows."""
    routes = APIRouter()

    @routes.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @routes.get("/health/ready")
    async def ready() -> dict[str, str]:
        admission.check_open()
        if not admission.is_ready:
            raise PullbackError(
                "starting", "No worker has computed its probe gradient yet.", fix="Try again in a moment.", retry_after_s=2
            )
        return {"status": "ready"}

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(await text(), media_type=_METRICS)

    return routes
