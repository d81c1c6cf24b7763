"""What a program defines: names that it imports, functions, classes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from app.program.interpreting.expressions import Reader
from app.program.library import vocabulary
from app.program.packages import imports
from app.program.reading.source import Refusal
from app.program.semantics.graph_values import Value
from app.program.semantics.scopes import Scope
from app.program.semantics.static import named
from app.program.semantics.values import ClassValue, FunctionValue

Left = Literal["break", "continue"]
# What a decorator makes of a function of a class.
_ROLES: Final = {
    "staticmethod": "static", "classmethod": "class", "property": "property", "cached_property": "property",
    "functools.cached_property": "property",
}  # fmt: skip
_NAMED_TUPLES: Final = ("NamedTuple", "typing.NamedTuple")


@dataclass(frozen=True, slots=True)
class Returned:
    """What `return`, or a last bare expression, gave.

    Attributes:
        value: it.
        node: its expression, which names the outputs of a tuple.
    """

    value: Value
    node: ast.expr


class Definitions:
    """Binds what statements define, with one Reader."""

    # Runs the statements of a body; set by the one who knows all of them.
    block: Callable[[Sequence[ast.stmt]], Returned | Left | None]

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._source = reader.source

    def _import(self, statement: ast.Import | ast.ImportFrom) -> None:
        reader = self._reader
        for name, path in vocabulary.imported(statement).items():
            reader.scope.bind(name, imports.bound(path))
        if isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names):
            reader.stars.append(statement.module or "")
        reader.leave_out(statement, self._source.excerpt(statement), None)

    def _define(self, statement: ast.FunctionDef) -> None:
        reader = self._reader
        grad: bool | None = None
        for decorator in statement.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            path = reader.dotted(called) or ""
            args = tuple(reader.value(a) for a in decorator.args) if isinstance(decorator, ast.Call) else ()
            mode = reader.grad_mode(path, args)
            if mode is None and not vocabulary.is_inert_decorator(path):
                raise self._source.refused(
                    Refusal(f"The decorator `@{path}` is not in the language.", "Leave it out."), decorator
                )
            grad = mode if mode is not None else grad
        role = next((_ROLES[word] for word in map(reader.dotted, statement.decorator_list) if word in _ROLES), "method")
        function = reader.function(statement, statement.name, grad, role)
        reader.scope.bind(statement.name, function)
        if not reader.stack:
            reader.defined.append((statement.name, function))

    def _fields(self, statement: ast.ClassDef, bases: Sequence[ClassValue]) -> tuple[str, ...] | None:
        """The fields of a dataclass, those of the classes above it first."""
        words = [self._reader.dotted(d.func if isinstance(d, ast.Call) else d) or "" for d in statement.decorator_list]
        words += [self._reader.dotted(base) or "" for base in statement.bases]
        above = [name for base in bases for name in base.fields or ()]
        if not above and not any(word.rpartition(".")[2] in ("dataclass", "NamedTuple") for word in words):
            return None
        own = [s.target.id for s in statement.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
        return tuple(dict.fromkeys([*above, *own]))

    def _class(self, statement: ast.ClassDef) -> None:
        reader = self._reader
        if statement.keywords or any(
            not vocabulary.is_inert_decorator(reader.dotted(d) or "") for d in statement.decorator_list
        ):
            raise self._source.refused(
                Refusal("This kind of class is not in the language.", "Write plain functions."), statement
            )
        bases: list[ClassValue] = []
        module = custom = False
        for base in statement.bases:
            path = reader.dotted(base)
            if path in _NAMED_TUPLES:
                continue
            if path is not None:
                module = module or vocabulary.is_module_base(path)
                custom = custom or vocabulary.is_custom_base(path)
                if not vocabulary.is_module_base(path) and not vocabulary.is_custom_base(path) and path != "object":
                    raise self._source.refused(vocabulary.base_refused(path), base)
                continue
            value = reader.value(base)
            if not isinstance(value, ClassValue):
                raise self._source.refused(Refusal(f"{named(value).capitalize()} is no class to extend."), base)
            bases.append(value)
        scope = Scope(reader.scope)
        with reader.inside(scope):
            reader.stack.append(None)
            try:
                self.block(statement.body)
            finally:
                reader.stack.pop()
        kind = ClassValue(
            statement.name,
            tuple(bases),
            module or any(base.module for base in bases),
            scope.own,
            self._fields(statement, bases),
            custom or any(base.custom for base in bases),
        )
        for function in scope.own.values():
            if isinstance(function, FunctionValue) and function.scope is scope:
                object.__setattr__(function, "scope", reader.scope)  # a class's names are not seen in its methods
        reader.scope.bind(statement.name, kind)
        if not reader.stack:
            reader.defined.append((statement.name, kind))
