"""The ready example queries, one file each; a test sends every one of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Example:
    """One ready query.

    Attributes:
        summary, description: for people.
        query: the body of `POST /v1/query`.
        status: the HTTP status of its answer.
        expect: dotted path into the answer → the value there, found without PyTorch (closed forms, central differences).
        code: the error code, where it is refused.
    """

    summary: str
    description: str
    query: dict[str, Any]
    status: int
    expect: dict[str, Any]
    code: str | None = None


@cache
def examples() -> MappingProxyType[str, Example]:
    """Name → example, in the order in which Swagger UI offers them."""
    folder = files("app.front.openapi") / "examples"
    paths = sorted((path for path in folder.iterdir() if path.name.endswith(".json")), key=lambda path: path.name)
    return MappingProxyType({path.name[3:-5]: Example(**orjson.loads(path.read_bytes())) for path in paths})
