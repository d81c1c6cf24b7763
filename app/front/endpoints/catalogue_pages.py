"""The pages of the catalogue: operations and kept functions, as JSON."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from typing import Final

import orjson
from fastapi import APIRouter, Response

from app.catalogue import read
from app.catalogue.operation_page import page, row
from app.errors import PullbackError
from app.pool.pool import Pool

_JSON: Final = "application/json"


@cache
def _full(name: str) -> bytes:
    return orjson.dumps(page(read.operations()[name]))


@cache
def _all() -> bytes:
    return orjson.dumps({"operations": [row(operation) for operation in read.operations().values()]})


def load() -> None:
    """Read the catalogue now, which takes a tenth of a second, rather than while the first query waits."""
    _all()


def router(pool: Pool) -> APIRouter:
    """The routes under `/v1` that look things up."""
    routes = APIRouter()

    @routes.get("/v1/operations")
    async def operations(search: str = "", differentiable: bool | None = None) -> Response:
        if not search and differentiable is None:
            return Response(_all(), media_type=_JSON)
        if len(search) > read.SEARCH_LIMIT:
            raise PullbackError(
                "bad_request", "The search is too long.", at="search", expected=f"at most {read.SEARCH_LIMIT} characters"
            )
        rows = [row(operation) for operation in read.search(search, differentiable)]
        return Response(orjson.dumps({"operations": rows}), media_type=_JSON)

    @routes.get("/v1/operations/{name}")
    async def operation(name: str) -> Response:
        return Response(_full(read.find(name).name), media_type=_JSON)

    @routes.get("/v1/functions")
    async def functions() -> Response:
        return Response(_functions(pool), media_type=_JSON)

    @routes.get("/v1/functions/{name}")
    async def function(name: str) -> Response:
        entries = orjson.loads(_functions(pool))["functions"]
        for entry in entries:
            if entry["name"] == name:
                return Response(orjson.dumps(entry), media_type=_JSON)
        raise _unknown(name, [entry["name"] for entry in entries])

    return routes


def _unknown(name: str, names: list[str]) -> PullbackError:
    near = get_close_matches(name, names, n=4, cutoff=0.5) or names[:8]
    return PullbackError(
        "unknown_function",
        f"No function is called `{name[:80]}`; near it: {', '.join(near)}.",
        at="name",
        given=name,
        fix="GET /v1/functions lists them.",
    )


def _functions(pool: Pool) -> bytes:
    """The listing, which the warm parent of the workers has read; it is there a few seconds after the start."""
    if not pool.supervisor.functions:
        raise PullbackError("starting", "The functions are still being read.", fix="Try again in a moment.", retry_after_s=2)
    return pool.supervisor.functions
