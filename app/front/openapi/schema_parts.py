"""The pieces that JSON schemas are put together from."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def mapping(value: Schema, description: str, **more: Any) -> Schema:
    return {"type": "object", "additionalProperties": value, "description": description, **more}


def record(properties: dict[str, Schema], required: tuple[str, ...] = (), **more: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def text(description: str) -> Schema:
    return {"type": "string", "description": description}
