"""A step written out as an expression of the program language, by the names that the program has for its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import fx

from app.engine.explain.findings import called
from app.engine.stepwise.point import step_of
from app.engine.stepwise.trace import StepTrace

_INFIX: Final[Mapping[str, str]] = {
    sign: sign for sign in ("+", "-", "*", "/", "//", "%", "**", "@", "<", "<=", ">", ">=", "==", "!=", "&", "|")
}
_PREFIX: Final[Mapping[str, str]] = {"-x": "-", "+x": "+", "~x": "~"}


def written(trace: StepTrace, value: Any, *, inside: bool = False) -> str:
    """`value` as text. Arguments: inside: it stands in a larger expression, so that signs need brackets."""
    if not isinstance(value, fx.Node):
        return _plain(value)
    name = called(trace, (value, 0), "")
    if name:
        return name
    step = step_of(value)
    if step is None:
        return value.name
    operation, args = step.operation, value.args
    if operation in _INFIX and len(args) == 2:
        text = f"{written(trace, args[0], inside=True)} {operation} {written(trace, args[1], inside=True)}"
        return f"({text})" if inside else text
    if operation in _PREFIX:
        return f"({_PREFIX[operation]}{written(trace, args[0], inside=True)})"
    if operation == "[]" and len(args) == 2:
        return f"{written(trace, args[0], inside=True)}[{_index(trace, args[1])}]"
    parts = [_argument(trace, arg) for arg in args] + [f"{key}={_argument(trace, arg)}" for key, arg in value.kwargs.items()]
    return f"{operation}({', '.join(parts)})"


def _argument(trace: StepTrace, value: Any) -> str:
    if isinstance(value, list | tuple):
        inner = ", ".join(_argument(trace, member) for member in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    return written(trace, value)


def _index(trace: StepTrace, index: Any) -> str:
    members = index if isinstance(index, tuple) else (index,)
    return ", ".join(_slice(trace, member) for member in members)


def _slice(trace: StepTrace, member: Any) -> str:
    if isinstance(member, slice):
        low, high = ("" if end is None else _argument(trace, end) for end in (member.start, member.stop))
        return f"{low}:{high}" + ("" if member.step is None else f":{member.step}")
    return "..." if member is Ellipsis else _argument(trace, member)


def _plain(value: Any) -> str:
    return str(value).removeprefix("torch.") if not isinstance(value, str) else repr(value)
