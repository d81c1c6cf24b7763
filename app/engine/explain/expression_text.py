"""A step written out as an expression of the program language, by the names that the program has for its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import fx

from app.engine.stepwise.point import Ref, step_of
from app.engine.stepwise.trace import StepTrace

_INFIX: Final[Mapping[str, str]] = {
    sign: sign for sign in ("+", "-", "*", "/", "//", "%", "**", "@", "<", "<=", ">", ">=", "==", "!=", "&", "|")
}
_PREFIX: Final[Mapping[str, str]] = {"-x": "-", "+x": "+", "~x": "~"}
_LONGEST: Final = 60  # characters: longer advice is not read
# Of a better formula: 670 that were looked for have 72 at most. Written out, the turns of a loop grow by a factor with each.
_LONGEST_FORMULA: Final = 300
_ADDED: Final = 3  # characters at least, by a step around what it is given: `(-x)`, `x[0]`
# Tensor → what to call it.
Named = Mapping[Ref, str]
_NOTHING: Final[Named] = {}


class TooLongError(Exception):
    """A text that nobody reads."""


def written(trace: StepTrace, value: Any, *, inside: bool = False, named: Named = _NOTHING) -> str:
    """`value` as text; the name that its line assigns where that would be too long, as in the turns of a loop.

    Arguments:
        inside: it stands in a larger expression, so that signs need brackets.
        named: what to call some of the tensors.
    """
    try:
        return _Writer(trace, named, _LONGEST_FORMULA).written(value, inside=inside)
    except TooLongError:
        step = step_of(value)
        assignment = None if step is None else _ASSIGNMENT.match(step.text)
        return "x" if assignment is None else assignment[1]


def call_text(trace: StepTrace, node: fx.Node, named: Named, *, inside: bool = False) -> str:
    """The call of a step, whatever the program calls its result; `inside` and `named` as of `written`. Raises TooLongError."""
    return _Writer(trace, named, _LONGEST_FORMULA).call(node, inside)


def expression(trace: StepTrace, ref: Ref, named: Named = _NOTHING) -> str | None:
    """A tensor as an expression of the program, a name where it has one; None where it is too long to be read or has no text of its own."""
    node, k = ref
    name = None if ref in named else called(trace, ref, "")
    if name and not named:
        return name
    if any(step_of(n) is None for n in (node, *node.all_input_nodes) if n.op == "call_function"):
        return None
    try:
        text = _Writer(trace, named, _LONGEST).call(node, inside=True) if node.op == "call_function" else node.name
    except TooLongError:
        return None
    if k or _is_of_multi_output(trace, node):
        text = f"{text}[{k}]"
    return text if len(text) <= _LONGEST else None


@dataclass(slots=True)
class _Writer:
    """Writes steps out; raises TooLongError where some part has more than `longest` characters, or will have."""

    trace: StepTrace
    named: Named
    longest: int
    depth: int = 0

    def written(self, value: Any, *, inside: bool = False) -> str:
        if not isinstance(value, fx.Node):
            return _plain(value)
        name = self.named.get(self._picked(value) or (value, 0)) or called(self.trace, (value, 0), "")
        return name or self.call(value, inside)

    def call(self, node: fx.Node, inside: bool) -> str:
        step = step_of(node)
        self.depth += 1
        if self.depth * _ADDED > self.longest:
            raise TooLongError
        text = node.name if step is None else self._call(step.operation, node, inside)
        if len(text) > self.longest:
            raise TooLongError
        self.depth -= 1
        return text

    def _call(self, operation: str, node: fx.Node, inside: bool) -> str:
        args = node.args
        if operation in _INFIX and len(args) == 2:
            left, right = (self.written(arg, inside=True) for arg in args)
            return f"({left} {operation} {right})" if inside else f"{left} {operation} {right}"
        if operation in _PREFIX:
            return f"({_PREFIX[operation]}{self.written(args[0], inside=True)})"
        if operation == "[]" and len(args) == 2:
            return f"{self.written(args[0], inside=True)}[{self._index(args[1])}]"
        parts = [self._argument(arg) for arg in args]
        parts += [f"{key}={self._argument(arg)}" for key, arg in node.kwargs.items()]
        return f"{operation}({', '.join(parts)})"

    def _picked(self, node: fx.Node) -> Ref | None:
        """The one of a step's several outputs that `node` takes."""
        if len(node.args) == 2 and isinstance(node.args[0], fx.Node) and isinstance(node.args[1], int):
            return (node.args[0], node.args[1]) if _is_of_multi_output(self.trace, node.args[0]) else None
        return None

    def _argument(self, value: Any) -> str:
        if isinstance(value, list | tuple):
            inner = ", ".join(map(self._argument, value))
            return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
        return self.written(value)

    def _index(self, index: Any) -> str:
        return ", ".join(map(self._slice, index if isinstance(index, tuple) else (index,)))

    def _slice(self, member: Any) -> str:
        if isinstance(member, slice):
            low, high = ("" if end is None else self._argument(end) for end in (member.start, member.stop))
            return f"{low}:{high}" + ("" if member.step is None else f":{member.step}")
        return "..." if member is Ellipsis else self._argument(member)


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
    return assignment[1] if trace.last_of_line[(step.line, step.text)] is ref[0] else otherwise


def _plain(value: Any) -> str:
    return str(value).removeprefix("torch.") if not isinstance(value, str) else repr(value)
