"""The JSON schemas of what the service says of itself: its health, and its limits."""

from __future__ import annotations

from typing import Final

from app.front.openapi.schema_parts import Schema


def _count(description: str) -> Schema:
    return {"type": "integer", "minimum": 0, "description": description}


def _seconds(description: str) -> Schema:
    return {"type": "number", "description": description}


_LIMITS: Final[Schema] = {
    "body_bytes": _count("Of a body, after decompression too."),
    "answer_bytes": _count("Of an answer's tensors; as text they may take thrice as much."),
    "queue_bytes": _count("Of bodies and replies that are held at once; more is answered 429."),
    "queue_length": _count("Queries that may wait; one more is answered 429."),
    "body_timeout_s": _seconds("Seconds without a byte of the body before 408."),
    "default_deadline_s": _seconds("Of a query that names no `timeout_s`, in seconds."),
    "maximum_deadline_s": _seconds("The longest `timeout_s`, in seconds."),
    "cost_flops": {"type": "number", "description": "Floating-point operations that one query may plan."},
    "fronts": {
        "type": "integer",
        "minimum": 1,
        "description": "Processes that speak HTTP and share the workers; limits are of all.",
    },
    "workers": {
        "type": "object",
        "additionalProperties": _count("Workers."),
        "description": "How many compute on each device: `cpu`, `cuda:0`…",
    },
    "worker_memory_bytes": {
        "type": "object",
        "additionalProperties": _count("Bytes."),
        "description": "What one worker on each device may take of its memory.",
    },
    "derived_from": {
        "type": "object",
        "properties": {
            "memory_bytes": _count("Of the machine, or of its container or unit where that may take less."),
            "memory_from": {"type": "string", "enum": ["machine", "cgroup"]},
            "cores": _count("Cores that the service may use, a quota rounded down."),
        },
        "required": ["memory_bytes", "memory_from", "cores"],
    },
}

SERVICE_SCHEMAS: Final[dict[str, Schema]] = {
    "Limits": {
        "type": "object",
        "properties": _LIMITS,
        "required": list(_LIMITS),
        "description": "What this server takes.",
    },
    "Health": {
        "type": "object",
        "properties": {"status": {"type": "string"}},
        "required": [],
        "description": "The state in words; the status code is the verdict.",
    },
}
