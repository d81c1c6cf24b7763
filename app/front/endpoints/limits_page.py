"""What this server takes, as JSON: bytes, deadlines and workers, and what they were derived from."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter, Response
from orjson import dumps

from app.errors import PullbackError
from app.machine.memory_budget import Budget
from app.pool.pool import Pool
from app.settings import Settings


def router(pool: Pool, settings: Settings, budget: Budget) -> APIRouter:
    """The route `/v1/limits`; the settings are settled by the budget."""
    routes = APIRouter()

    @routes.get("/v1/limits")
    async def limits() -> Response:
        slots = pool.supervisor.slots_of_all
        if not slots:
            raise PullbackError(
                "starting", "The devices are still being looked for.", fix="Try again in a moment.", retry_after_s=2
            )
        content = {
            "body_bytes": settings.body_limit_bytes,
            "answer_bytes": settings.result_limit_bytes,
            "queue_bytes": settings.queue_bytes,
            "queue_length": settings.queue_length,
            "body_timeout_s": settings.body_timeout_s,
            "default_deadline_s": min(settings.default_deadline_s, settings.maximum_deadline_s),
            "maximum_deadline_s": settings.maximum_deadline_s,
            "cost_flops": settings.cost_limit_flops,
            "fronts": settings.fronts,
            "workers": Counter(slot.device for slot in slots),
            "worker_memory_bytes": {slot.device: slot.memory_bytes for slot in slots},
            "derived_from": {
                "memory_bytes": budget.machine.memory_bytes,
                "memory_from": budget.machine.memory_from,
                "cores": budget.machine.cores,
            },
        }
        return Response(dumps(content), media_type="application/json")

    return routes
