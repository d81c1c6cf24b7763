"""What a program prints of gradients: `print(x.grad)`, the last line of most pastes, is what its author asks for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from torch import fx

from app.errors import PullbackError
from app.program.interpreting.state import State
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Value, is_tensor

_LIMIT: Final = 8  # gradients that are told of: pasted programs read 12 at most, 99% of them 4
_READS: Final = 64  # times that gradients are read for it: each adds steps to the program; pasted ones write 12 at most
_PLAIN: Final = (ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.expr_context)


@dataclass(frozen=True, slots=True)
class PrintedGradient:
    """What one line showed of one tensor when it last ran; `gradient` is None where there was none."""

    tensor: fx.Node
    gradient: fx.Node | None
    times: int


def print_gradients(reader: State, call: ast.Call) -> None:
    """Keeps the gradients that a call of `print` shows, of each line and tensor the latest."""
    for argument in call.args:
        try:
            for part, tensor in _shown(reader, argument):
                _keep(reader, part, tensor)
        except (PullbackError, Refusal):  # the line has no meaning here, so neither has what is wrong with it
            continue


def _shown(reader: State, argument: ast.expr) -> Iterator[tuple[ast.expr, Value]]:
    """The tensors whose `.grad` stands in an argument: plain names by themselves, those of a list by running through it."""
    if isinstance(argument, ast.ListComp | ast.GeneratorExp):
        element = argument.elt
        if isinstance(element, ast.Attribute) and element.attr == "grad":
            owners = ast.copy_location(ast.ListComp(element.value, argument.generators), argument)
            yield from ((argument, tensor) for tensor in reader.items(owners))
        return
    for part in ast.walk(argument):
        if isinstance(part, ast.Attribute) and part.attr == "grad" and all(isinstance(p, _PLAIN) for p in ast.walk(part)):
            yield part, reader.read(reader.value(part.value))


def _keep(reader: State, part: ast.expr, tensor: Value) -> None:
    if not is_tensor(tensor):
        return
    place = (*reader.source.place(part), reader.source.excerpt(part))
    before = reader.printed.get((place, tensor))
    times = 1 if before is None else before.times + 1
    if (before is None and len(reader.printed) >= _LIMIT) or sum(entry.times for entry in reader.printed.values()) >= _READS:
        return
    gradients = reader.calls.gradients
    why = gradients.leaves.why_none(tensor)
    if why is not None:
        gradients.leaves.remark(place, "grad", *why)
        return
    try:
        (gradient,) = gradients.grads(reader.emitter(part), [tensor])
    except (PullbackError, Refusal) as error:
        detail, fix = getattr(error, "detail", str(error)), getattr(error, "fix", None) or ""
        gradients.leaves.remark(place, "grad", detail.rstrip("."), fix)
        return
    latest = reader.trace.now(gradient) if is_tensor(gradient) else None
    reader.printed[place, tensor] = PrintedGradient(tensor, latest, times)
