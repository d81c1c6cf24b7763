"""A step written out as an expression of the program language, by the names that the program has for its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from torch import fx

from app.engine.stepwise.point import Ref, step_of
from app.engine.stepwise.trace import StepTrace

_INFIX: Final[Mapping[str, str]] = {
    sign: sign for sign in ("+", "-", "*", "/", "//", "%", "**", "@", "<", "<=", ">", ">=", "==", "!=", "&", "|")
}
_PREFIX: Final[Mapping[str, str]] = {"-x": "-", "+x": "+", "~x": "~"}
_LONGEST: Final = 60  # characters: longer advice is not read
# Tensor → what to call it.
Named = Mapping[Ref, str]
_NOTHING: Final[Named] = {}


def written(trace: StepTrace, value: Any, *, inside: bool = False, named: Named = _NOTHING) -> str:
    """`value` as text.

    Arguments:
        inside: it stands in a larger expression, so that signs need brackets.
        named: what to call some of the tensors.
    """
    if not isinstance(value, fx.Node):
        return _plain(value)
    picked = _picked(trace, value)
    name = named.get(picked or (value, 0)) or called(trace, (value, 0), "")
    if name:
        return name
    return _call(trace, value, inside, named)


def call_text(trace: StepTrace, node: fx.Node, named: Named, *, inside: bool = False) -> str:
    """The call of a step, whatever the program calls its result; `inside` and `named` as of `written`."""
    return _call(trace, node, inside, named)


def _picked(trace: StepTrace, node: fx.Node) -> Ref | None:
    """The one of a step's several outputs that `node` takes."""
    if len(node.args) == 2 and isinstance(node.args[0], fx.Node) and isinstance(node.args[1], int):
        return (node.args[0], node.args[1]) if _is_of_multi_output(trace, node.args[0]) else None
    return None


def _call(trace: StepTrace, value: fx.Node, inside: bool, named: Named) -> str:
    step = step_of(value)
    if step is None:
        return value.name
    operation, args = step.operation, value.args
    if operation in _INFIX and len(args) == 2:
        left, right = (written(trace, arg, inside=True, named=named) for arg in args)
        return f"({left} {operation} {right})" if inside else f"{left} {operation} {right}"
    if operation in _PREFIX:
        return f"({_PREFIX[operation]}{written(trace, args[0], inside=True, named=named)})"
    if operation == "[]" and len(args) == 2:
        return f"{written(trace, args[0], inside=True, named=named)}[{_index(trace, args[1], named)}]"
    parts = [_argument(trace, arg, named) for arg in args]
    parts += [f"{key}={_argument(trace, arg, named)}" for key, arg in value.kwargs.items()]
    return f"{operation}({', '.join(parts)})"


def expression(trace: StepTrace, ref: Ref, named: Named = _NOTHING) -> str | None:
    """A tensor as an expression of the program, a name where it has one; None where it is too long to be read or has no text of its own."""
    node, k = ref
    name = None if ref in named else called(trace, ref, "")
    if name and not named:
        return name
    if any(step_of(n) is None for n in (node, *node.all_input_nodes) if n.op == "call_function"):
        return None
    text = _call(trace, node, True, named) if node.op == "call_function" else node.name
    if k or _is_of_multi_output(trace, node):
        text = f"{text}[{k}]"
    return text if len(text) <= _LONGEST else None


def _is_of_multi_output(trace: StepTrace, node: fx.Node) -> bool:
    return (node, 1) in trace.values


_ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*) = ")


def called(trace: StepTrace, ref: Ref, otherwise: str) -> str:
    """What the program calls this tensor: the input's name, or that of the variable that the step's line assigns."""
    for name, leaf in trace.leaves.items():
        if leaf == ref:
            return name
    step = step_of(ref[0])
    assignment = _ASSIGNMENT.match(step.text) if step is not None else None
    if step is None or assignment is None:
        return otherwise
    same = [
        record.node
        for record in trace.records
        if (s := step_of(record.node)) is not None and (s.line, s.text) == (step.line, step.text)
    ]
    return assignment[1] if same[-1] is ref[0] else otherwise


def _argument(trace: StepTrace, value: Any, named: Named) -> str:
    if isinstance(value, list | tuple):
        inner = ", ".join(_argument(trace, member, named) for member in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    return written(trace, value, named=named)


def _index(trace: StepTrace, index: Any, named: Named) -> str:
    members = index if isinstance(index, tuple) else (index,)
    return ", ".join(_slice(trace, member, named) for member in members)


def _slice(trace: StepTrace, member: Any, named: Named) -> str:
    if isinstance(member, slice):
        low, high = ("" if end is None else _argument(trace, end, named) for end in (member.start, member.stop))
        return f"{low}:{high}" + ("" if member.step is None else f":{member.step}")
    return "..." if member is Ellipsis else _argument(trace, member, named)


def _plain(value: Any) -> str:
    return str(value).removeprefix("torch.") if not isinstance(value, str) else repr(value)
