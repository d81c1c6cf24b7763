"""The pages of the catalogue: operations and kept functions, as JSON.

Knows the shape of an entry in the contract (section 1) and keeps its bytes. Refuses to know where entries come from.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import orjson
from fastapi import APIRouter, Response

from app.catalogue import read
from app.catalogue.entry import Argument, Operation
from app.errors import PullbackError
from app.pool.pool import Pool

_JSON: Final = "application/json"
_SEARCH_LIMIT: Final = 128


def _argument(argument: Argument) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": argument.name, "kind": argument.kind, "required": argument.required}
    if not argument.required:
        fields["default"] = argument.default
    fields["optional"] = argument.optional
    fields["keyword_only"] = argument.keyword_only
    if argument.kind in ("tensor", "tensors"):
        fields["differentiable"] = argument.differentiable
    if argument.meaning:
        fields["meaning"] = argument.meaning
    return fields


def _brief(operation: Operation) -> dict[str, Any]:
    return {"name": operation.name, "summary": operation.summary, "tags": operation.tags}


@cache
def _full(name: str) -> bytes:
    operation = read.operations()[name]
    signatures = [
        {
            "arguments": [_argument(argument) for argument in signature.arguments],
            "outputs": [{"name": output.name, "differentiable": output.differentiable} for output in signature.outputs],
        }
        for signature in operation.signatures
    ]
    return orjson.dumps(
        {
            **_brief(operation),
            "documentation": operation.documentation,
            "aliases": operation.aliases,
            "order": operation.order,
            "signatures": signatures,
            "formula": operation.formula,
            "example": operation.example,
        }
    )


@cache
def _all() -> bytes:
    return orjson.dumps({"operations": [_brief(operation) for operation in read.operations().values()]})


def router(pool: Pool) -> APIRouter:
    """The routes under `/v1` that look things up."""
    routes = APIRouter()

    @routes.get("/v1/operations")
    async def operations(search: str = "", differentiable: bool | None = None) -> Response:
        if not search and differentiable is None:
            return Response(_all(), media_type=_JSON)
        if len(search) > _SEARCH_LIMIT:
            raise PullbackError(
                "bad_request", "The search is too long.", at="search", expected=f"at most {_SEARCH_LIMIT} characters"
            )
        found = [_brief(operation) for operation in read.search(search, differentiable)]
        return Response(orjson.dumps({"operations": found}), media_type=_JSON)

    @routes.get("/v1/operations/{name}")
    async def operation(name: str) -> Response:
        return Response(_full(read.find(name).name), media_type=_JSON)

    @routes.get("/v1/functions")
    async def functions() -> Response:
        return Response(_functions(pool), media_type=_JSON)

    @routes.get("/v1/functions/{name}")
    async def function(name: str) -> Response:
        for entry in orjson.loads(_functions(pool))["functions"]:
            if entry["name"] == name:
                return Response(orjson.dumps(entry), media_type=_JSON)
        raise PullbackError(
            "unknown_function", "No function has this name.", at="name", given=name, fix="See GET /v1/functions."
        )

    return routes


def _functions(pool: Pool) -> bytes:
    """The listing, which the warm parent of the workers has read; it is there a few seconds after the start."""
    if not pool.crew.functions:
        raise PullbackError("starting", "The functions are still being read.", fix="Try again in a moment.", retry_after_s=2)
    return pool.crew.functions
