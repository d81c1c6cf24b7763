"""Runs the statements of a program: assignments, static loops and conditions, `return`.

Knows Python's statement syntax and how a loop is unrolled. Refuses to know what an expression means.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from app.program.interpreting.expressions import Reader
from app.program.reading.source import Refusal
from app.program.semantics.comparison import SYMBOLS
from app.program.semantics.trace import Several, Value, is_tensor

Left = Literal["break", "continue"]


@dataclass(frozen=True, slots=True)
class Returned:
    """What `return`, or a last bare expression, gave.

    Attributes:
        value: it.
        node: its expression, which names the outputs of a tuple.
    """

    value: Value
    node: ast.expr


_NO_OUTPUT: Final = Refusal(
    "The program returns nothing.", "End it with `return y`, or with an expression on a line of its own."
)


def _unread(word: str) -> Refusal:
    return Refusal(f"Nothing after `{word}` is ever read.", "Delete these lines.")


class Runner:
    """Executes statements with one Reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._source = reader.source

    def program(self, body: Sequence[ast.stmt]) -> Returned:
        """Runs a whole program. Raises `bad_program` where it returns nothing."""
        *before, last = body or [ast.Pass(lineno=1, col_offset=0)]
        bare = isinstance(last, ast.Expr) and not _is_text(last)
        left = self.block(before if bare else body)
        if bare and before and isinstance(before[-1], ast.Return):
            raise self._source.refused(_unread("return"), last)
        if isinstance(left, Returned):
            return left
        if left is None and bare and isinstance(last, ast.Expr):
            self._reader.statement = last
            return Returned(self._reader.value(last.value), last.value)
        raise self._source.refused(_NO_OUTPUT, last)

    def block(self, body: Sequence[ast.stmt]) -> Returned | Left | None:
        for index, statement in enumerate(body):
            left = self._statement(statement)
            if left is not None:
                if index + 1 < len(body) and isinstance(statement, ast.Return | ast.Break | ast.Continue):
                    raise self._source.refused(_unread(type(statement).__name__.lower()), body[index + 1])
                return left
        return None

    def _statement(self, statement: ast.stmt) -> Returned | Left | None:
        self._reader.charge(statement)
        self._reader.statement = statement
        match statement:
            case ast.Assign():
                self._assign(statement)
            case ast.AugAssign():
                self._augmented(statement)
            case ast.AnnAssign():
                self._annotated(statement)
            case ast.Expr():
                self._bare(statement)
            case ast.If():
                return self.block(statement.body if self._reader.truth(statement.test) else statement.orelse)
            case ast.For():
                return self._loop(statement)
            case ast.Return():
                return self._returned(statement)
            case ast.Break():
                return "break"
            case ast.Continue():
                return "continue"
            case ast.Pass():
                pass
            case _:
                raise self._source.refused(Refusal(f"`{type(statement).__name__}` cannot stand here."), statement)
        return None

    def _assign(self, statement: ast.Assign) -> None:
        value = self._reader.value(statement.value)
        for target in statement.targets:
            self._reader.assign(target, value)

    def _augmented(self, statement: ast.AugAssign) -> None:
        """`x += y` binds the name again: a tensor under another name keeps its value. A list grows in place, as Python's does."""
        reader, target = self._reader, statement.target
        if isinstance(target, ast.Attribute):
            raise self._source.refused(Refusal("Only names can be assigned to.", "Assign to a name."), target)
        if isinstance(target, ast.Name) and target.id not in reader.names:
            raise self._source.refused(Refusal(f"The name `{target.id}` is not defined.", "Assign it before."), target)
        load: ast.expr = ast.Name(target.id, ast.Load()) if isinstance(target, ast.Name) else _loaded(target)
        left = reader.value(ast.copy_location(load, target))
        right = reader.value(statement.value)
        value = reader.located(statement, lambda: reader.operate(statement, SYMBOLS[type(statement.op)], left, right))
        if isinstance(left, list) and isinstance(value, list):
            left[:] = value
            value = left
        reader.assign(target, value)

    def _annotated(self, statement: ast.AnnAssign) -> None:
        if statement.value is None:
            raise self._source.refused(Refusal("A declaration without a value does nothing.", "Delete the line."), statement)
        self._reader.assign(statement.target, self._reader.value(statement.value))

    def _bare(self, statement: ast.Expr) -> None:
        if not _is_text(statement):
            self._reader.value(statement.value)

    def _loop(self, statement: ast.For) -> Returned | None:
        reader = self._reader
        for item in reader.items(statement.iter):
            reader.located(statement, reader.iterate)
            reader.statement = statement
            reader.assign(statement.target, item)
            left = self.block(statement.body)
            if isinstance(left, Returned):
                return left
            if left == "break":
                break
        return None

    def _returned(self, statement: ast.Return) -> Returned:
        if statement.value is None:
            raise self._source.refused(_NO_OUTPUT, statement)
        return Returned(self._reader.value(statement.value), statement.value)


def _is_text(statement: ast.Expr) -> bool:
    """Whether the statement is a docstring."""
    return isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)


def _loaded(target: ast.Subscript) -> ast.Subscript:
    return ast.Subscript(target.value, target.slice, ast.Load())


def outputs(reader: Reader, returned: Returned) -> dict[str, Value]:
    """Names and tensors of what a program returned.

    One tensor is `output`. A dict gives its keys. A tuple of plain distinct names gives these, any other tuple `output0`, `output1`…,
    what an operation with several outputs gave PyTorch's names, and a list of tensors `output.0`, `output.1`….
    """
    found: dict[str, Value] = {}
    for name, value in _named(returned).items():
        _spread(reader, name, value, found)
    if not found:
        raise Refusal("The program returns nothing.", "Return at least one tensor.")
    if len(found) > 256:
        raise Refusal(f"The program returns {len(found)} tensors; the limit is 256.", "Join them: `stack(list)`.")
    return found


def _named(returned: Returned) -> dict[str, Value]:
    value, node = returned.value, returned.node
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not key or len(key) > 128 or not key.isprintable():
                raise Refusal("The names of outputs are short strings.", 'Return a dict like `{"loss": loss}`.')
        return value
    if isinstance(value, tuple):
        names = [part.id for part in node.elts if isinstance(part, ast.Name)] if isinstance(node, ast.Tuple) else []
        if len(names) != len(value) or len(set(names)) != len(value):
            names = [f"output{index}" for index in range(len(value))]
        return dict(zip(names, value, strict=True))
    if isinstance(value, Several) and value.fields:
        return dict(zip(value.fields, _parts(value), strict=True))
    return {"output": value}


def _parts(value: Several) -> list[Value]:
    return [(value, index) for index in range(len(value.values))]


def _spread(reader: Reader, name: str, value: Value, found: dict[str, Value]) -> None:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Several):
        value = reader.trace.pick(*value)
    if is_tensor(value):
        _add(name, value, found)
    elif isinstance(value, bool | int | float | complex):
        _add(name, reader.calls.resolve("tensor", reader.emitter(reader.statement or ast.Pass()))((value,), {}), found)
    elif isinstance(value, Several):
        for index in range(len(value.values)):
            label = value.fields[index] if value.fields else str(index)
            _spread(reader, f"{name}.{label}", reader.trace.pick(value, index), found)
    elif isinstance(value, list | tuple):
        if len(value) > 256:
            raise Refusal(f"The program returns a list of {len(value)} tensors; the limit is 256.", "Join them: `stack(list)`.")
        for index, member in enumerate(value):
            if not (is_tensor(member) or isinstance(member, bool | int | float | complex)):
                raise Refusal("A returned list holds tensors or numbers.", "Return a dict of tensors.")
            _spread(reader, f"{name}.{index}", member, found)
    else:
        raise Refusal(f"`{name}` is no tensor and cannot be returned.", "Return tensors, or numbers.")


def _add(name: str, value: Value, found: dict[str, Value]) -> None:
    if name in found:
        raise Refusal(f"Two outputs are called `{name}`.", "Give them different names.")
    found[name] = value
