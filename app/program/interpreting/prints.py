"""What a program prints of gradients: `print(x.grad)`, the last line of most pastes, is what its author asks for."""

from __future__ import annotations

import ast
from typing import Final

from app.errors import PullbackError
from app.program.interpreting.state import State
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import is_tensor
from app.program.semantics.values import MISSING

_LIMIT: Final = 8  # gradients that are told of, as many as a person reads; chosen
_PLAIN: Final = (ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.expr_context)


def print_gradients(reader: State, call: ast.Call) -> None:
    """Keeps the gradients that a call of `print` shows; of one that is reached again, in a loop, nothing."""
    for part in ast.walk(call):
        if not (isinstance(part, ast.Attribute) and part.attr == "grad" and all(isinstance(p, _PLAIN) for p in ast.walk(part))):
            continue
        place = (*reader.source.place(part), reader.source.excerpt(part))
        if place in reader.printed:
            reader.printed[place] = MISSING
        elif len(reader.printed) < _LIMIT:
            try:
                _retained(reader, part, place)
            except (PullbackError, Refusal):  # that line has no meaning here, so neither has what is wrong with it
                continue


def _retained(reader: State, part: ast.Attribute, place: tuple[int, int, str]) -> None:
    gradients = reader.calls.gradients
    tensor = reader.read(reader.value(part.value))
    if not is_tensor(tensor):
        return
    reason = gradients.why_none(tensor)
    if reason is not None:
        line, column, text = place
        gradients.remarks.setdefault(
            (line, column), f"Line {line} prints `{text}`: None in PyTorch, for {reason[0]}. {reason[1]} keeps it."
        )
        return
    (gradient,) = gradients.grads(reader.emitter(part), [tensor])
    reader.printed[place] = reader.trace.now(gradient) if is_tensor(gradient) else None
