"""`torch.save` and `torch.load` of one program: what it saved itself under a path, as it was then. No file is written or read."""

from __future__ import annotations

import ast
from typing import Any, Final

from app.program.packages import copying
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Value
from app.program.semantics.values import Inert

NAMES: Final = ("torch.save", "torch.load")
# What something else saved: the weights in it are sent with the query.
FILE: Final = Inert("a file")


def called(reader: Any, node: ast.Call, name: str) -> Value:
    """`torch.save(value, path)`, or `torch.load(path)`."""
    if not any("load(" in line for line in reader.source.lines):
        return None
    args, kwargs = reader.known(lambda: reader.arguments(node)) or ((), {})
    names = ("f",) if name == "torch.load" else ("obj", "f")
    options = {**dict(zip(names, args, strict=False)), **kwargs}
    path = options.get("f") if isinstance(options.get("f"), str) else None
    if name == "torch.save":
        # Under None what has no path here, or cannot be copied: nothing is known of what is loaded after that.
        copied = None if path is None else reader.known(lambda: _copied(reader, node, options.get("obj")))
        others = {} if path is None else {each: value for each, value in reader.saved.items() if each != path}
        reader.saved = {**others, path if copied is not None else None: copied}
        return None
    if path is not None and path in reader.saved:
        return _copied(reader, node, reader.saved[path])
    if None in reader.saved:
        raise Refusal(
            "Before this line the program saves something that is not copied here, so that what it loads is not known.",
            "Keep a copy: `best = copy.deepcopy(model.state_dict())`.",
        )
    return FILE


def _copied(reader: Any, node: ast.Call, value: Value) -> Value:
    trace = reader.trace
    enabled, trace.grad_enabled = trace.grad_enabled, False
    try:
        return copying.copied(reader.emitter(node), reader.weights, reader.read(value), trace.budget.spend)
    finally:
        trace.grad_enabled = enabled
