"""`torch.save` and `torch.load` of one program: what it saved itself under a path, as it was then. No file is written or read."""

from __future__ import annotations

import ast
from contextlib import suppress
from typing import Any, Final

from app.errors import PullbackError
from app.program.packages import copying
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Value
from app.program.semantics.values import Inert

NAMES: Final = ("torch.save", "torch.load")
# What something else saved: the weights in it are sent with the query.
FILE: Final = Inert("a file")


def called(reader: Any, node: ast.Call, name: str) -> Value:
    """`torch.save(value, path)`, or `torch.load(path)`. What cannot be copied is saved for nobody here."""
    if not any("load(" in line for line in reader.source.lines):
        return None
    with suppress(PullbackError, Refusal):
        args, kwargs = reader.arguments(node)
        names = ("f",) if name == "torch.load" else ("obj", "f")
        options = {**dict(zip(names, args, strict=False)), **kwargs}
        path = options.get("f")
        if name == "torch.load":
            return _copied(reader, node, reader.saved[path]) if path in reader.saved else FILE
        if isinstance(path, str):
            reader.saved.pop(path, None)
            reader.saved[path] = _copied(reader, node, options.get("obj"))
    return FILE if name == "torch.load" else None


def _copied(reader: Any, node: ast.Call, value: Value) -> Value:
    trace = reader.trace
    enabled, trace.grad_enabled = trace.grad_enabled, False
    try:
        return copying.copied(reader.emitter(node), reader.weights, reader.read(value), trace.budget.spend)
    finally:
        trace.grad_enabled = enabled
