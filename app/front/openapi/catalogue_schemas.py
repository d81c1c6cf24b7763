"""The JSON schemas of the catalogue: operations, their signatures, the kept functions."""

from __future__ import annotations

from typing import Final

from app.catalogue.entry import KINDS
from app.front.openapi.schema_parts import Schema, record, ref, text

CATALOGUE: Final[dict[str, Schema]] = {
    "OperationSummary": record(
        {"name": {"type": "string"}, "summary": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
        ("name", "summary", "tags"),
    ),
    "OperationList": record({"operations": {"type": "array", "items": ref("OperationSummary")}}, ("operations",)),
    "Argument": record(
        {
            "name": {"type": "string"},
            "kind": {"type": "string", "enum": list(KINDS)},
            "required": {"type": "boolean"},
            "default": {"description": "Where it is not required."},
            "optional": {"type": "boolean", "description": "null is a value that it takes."},
            "keyword_only": {"type": "boolean"},
            "differentiable": {"type": "boolean"},
            "meaning": {"type": "string"},
        },
        ("name", "kind", "required"),
        description="One argument, in call order.",
    ),
    "Signature": record(
        {
            "arguments": {"type": "array", "items": ref("Argument")},
            "outputs": {
                "type": "array",
                "items": record(
                    {
                        "name": {"type": "string"},
                        "differentiable": {"type": "boolean"},
                        "several": {"type": "boolean", "description": "A list whose length the call decides: NAME.0, NAME.1…"},
                    },
                    ("name", "differentiable"),
                ),
            },
        },
        ("arguments", "outputs"),
    ),
    "Operation": record(
        {
            "name": {"type": "string"},
            "summary": {"type": "string"},
            "documentation": text("A link to its PyTorch page."),
            "tags": {"type": "array", "items": {"type": "string"}},
            "aliases": {"type": "array", "items": {"type": "string"}, "description": "Other names under which it is found."},
            "order": {"type": "integer", "description": "How often it can be differentiated: 0, 1, or 2 for twice and more."},
            "signatures": {"type": "array", "items": ref("Signature"), "description": "The overloads; names and kinds choose."},
            "formula": {"type": ["object", "null"], "description": "PyTorch's derivative formula, `backward` and `forward`."},
            "example": {"type": "object", "description": "A query that works as it stands."},
        },
        ("name", "summary", "documentation", "tags", "signatures", "formula", "example"),
    ),
    "FunctionList": record({"functions": {"type": "array", "items": ref("Function")}}, ("functions",)),
    "Function": record(
        {
            "name": {"type": "string"},
            "description": {"type": "string"},
            "program": text("The file's text."),
            "signature": {"type": "object", "description": "`inputs` (name, dtype, shape), `parameters`, `outputs`."},
            "example": {"type": "object", "description": "A query that works as it stands."},
            "error": ref("Problem"),
        },
        ("name",),
        description="A program kept on this server under a name. A broken file is listed with its error.",
    ),
}
