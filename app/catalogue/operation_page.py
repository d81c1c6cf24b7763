"""An operation as a client reads it (docs/contract.md, section 1): one row of the list, and the whole page."""

from __future__ import annotations

from typing import Any

from app.catalogue.entry import TENSOR_KINDS, Argument, Operation, Output


def row(operation: Operation) -> dict[str, Any]:
    """The operation in `GET /v1/operations`."""
    return {"name": operation.name, "summary": operation.summary, "tags": list(operation.tags)}


def page(operation: Operation) -> dict[str, Any]:
    """The operation in `GET /v1/operations/{name}`."""
    return {
        **row(operation),
        "documentation": operation.documentation,
        "aliases": list(operation.aliases),
        "order": operation.order,
        "signatures": [
            {"arguments": [_argument(a) for a in signature.arguments], "outputs": [_output(o) for o in signature.outputs]}
            for signature in operation.signatures
        ],
        "formula": operation.formula,
        "example": operation.example,
    }


def _argument(argument: Argument) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": argument.name, "kind": argument.kind, "required": argument.required}
    if not argument.required:
        shown["default"] = argument.default
    shown["optional"] = argument.optional
    shown["keyword_only"] = argument.keyword_only
    if argument.kind in TENSOR_KINDS:
        shown["differentiable"] = argument.differentiable
    shown["meaning"] = argument.meaning
    return shown


def _output(output: Output) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": output.name, "differentiable": output.differentiable}
    if output.several:
        shown["several"] = True
    return shown
