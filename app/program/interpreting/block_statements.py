"""Statements that hold blocks and choose among them: `with`, `try`, `match`."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from app.errors import PullbackError
from app.program.classes import contexts
from app.program.interpreting.definitions import Definitions, Left, Returned
from app.program.interpreting.expressions import Reader
from app.program.library import vocabulary
from app.program.reading.source import RaisedError, Refusal, drops_errors
from app.program.semantics import static
from app.program.semantics.comparison import compared
from app.program.semantics.graph_values import Value, example
from app.program.semantics.values import ClassValue, ErrorValue, Foreign, Instance, Named


class Blocks(Definitions):
    """Runs statements that hold blocks, with one Reader."""

    # What becomes of a statement that cannot be read, and whether one of a loop could not be; set by the one who knows all of them.
    failed: Callable[[ast.stmt, PullbackError], None]
    stuck: Callable[[], bool]

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self._handled: list[RaisedError] = []  # the errors of the `except` blocks that are being read, the innermost last

    # `with`.

    def _with(self, statement: ast.With) -> Returned | Left | None:
        return self._within(statement.items, statement.body)

    def _within(self, items: Sequence[ast.withitem], body: Sequence[ast.stmt]) -> Returned | Left | None:
        """The block inside the first of `items`, the others inside that."""
        if not items:
            return self.block(body)
        entered = contexts.entered(self.reader, items[0])
        if entered.takes:
            self.fix_shapes()
        self.reader.trying += entered.takes
        try:
            left = self._within(items[1:], body)
        except RaisedError as error:
            if not entered.leave(error):
                raise
            return None
        finally:
            self.reader.trying -= entered.takes
        entered.leave(None)
        return left

    # `try`.

    def _try(self, statement: ast.Try) -> Returned | Left | None:
        """The lines between `try` and `except`; where one of them raises in PyTorch too, those of the handler; and those of `finally`."""
        drops = drops_errors(statement)
        if statement.handlers or drops:
            self.fix_shapes()
        self.reader.trying += drops
        try:
            left = self._attempted(statement)
        except RaisedError:
            self.reader.trying -= drops
            at_last = self.block(statement.finalbody)
            if at_last is None:
                raise
            return at_last
        self.reader.trying -= drops
        at_last = self.block(statement.finalbody)
        return left if at_last is None else at_last

    def _attempted(self, statement: ast.Try) -> Returned | Left | None:
        reader = self.reader
        if not statement.handlers:
            reader.leave_out(statement, "try … finally", None)
            left = self.block(statement.body)
            return self.block(statement.orelse) if left is None else left
        outside = reader.scope, list(reader.stack)
        reader.trying += 1
        raised: RaisedError
        try:
            left = self.block(statement.body)
        except RaisedError as error:
            raised = error
            reader.scope, reader.stack[:] = outside
            handler = self.handler_of(statement, error)
            if handler is None:
                raise
        else:
            handler = None
        finally:
            reader.trying -= 1
        if handler is not None:
            with self.handling(handler, raised):
                return self.block(handler.body)
        reader.leave_out(statement, "try … except", None)
        return self.block(statement.orelse) if left is None else left

    def handler_of(self, statement: ast.Try, error: RaisedError) -> ast.ExceptHandler | None:
        """The first `except` that takes an error, or None."""
        return next((handler for handler in statement.handlers if self._takes(handler, error)), None)

    @contextmanager
    def handling(self, handler: ast.ExceptHandler, error: RaisedError) -> Iterator[None]:
        """Around the lines of a handler: its name stands for the error there alone, and `raise` alone raises it again."""
        scope = self.reader.scope
        if handler.name is not None:
            scope.bind(handler.name, contexts.value_of(error))
        self._handled.append(error)
        try:
            yield
        finally:
            self._handled.pop()
            if handler.name is not None:
                scope.unbind(handler.name)
        error.__traceback__ = None  # it is over: the lines that it came from hold what they named no longer

    def _takes(self, handler: ast.ExceptHandler, error: RaisedError) -> bool:
        """Whether `except …` is of the class that was raised, or of one above it."""
        if handler.type is None:
            return True
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return any(self._is_of(kind, error) for kind in kinds)

    def _is_of(self, kind: ast.expr, error: RaisedError) -> bool:
        path = self.reader.dotted(kind)
        return contexts.is_of(self.reader.value(kind) if path is None else Named(path), error)

    def _raise(self, statement: ast.Raise) -> None:
        reader = self.reader
        if statement.exc is None and self._handled:
            raise self._handled[-1]
        value: Value = Named("RuntimeError") if statement.exc is None else self._raised(statement.exc)
        if isinstance(value, ErrorValue) and value.error is not None:
            raise value.error
        if isinstance(value, ClassValue):
            value = reader.invoke(statement, value, (), {})
        instance = value if isinstance(value, Instance) and isinstance(value.kind, ClassValue) else None
        match value:
            case Instance(kind=ClassValue() as kind):
                name = kind.builtin or "Exception"
            case ErrorValue():
                name = value.raises
            case Named() | Foreign():
                name = value.path.rpartition(".")[2]
            case _:
                name = "TypeError"  # Python's of what is no exception
        text = self.source.excerpt(statement)
        refusal = Refusal(
            f"The program ends here with an error of its own: `{text}`.",
            "Send inputs that do not lead here.",
            raises=name,
            arguments=value.arguments if isinstance(value, ErrorValue) else (),
        )
        error = self.source.refused(refusal, statement)
        if isinstance(error, RaisedError):
            error.instance = instance
        raise error

    def _raised(self, node: ast.expr) -> Value:
        """What `raise node` raises: an exception, or its class."""
        reader = self.reader
        path = reader.dotted(node.func if isinstance(node, ast.Call) else node)
        if path is None or (
            "." not in path and vocabulary.exception(path) is RuntimeError and not vocabulary.is_exception(path)
        ):
            value = reader.value(node)
            return value if not isinstance(value, Foreign) else Named(value.path)
        if not isinstance(node, ast.Call):
            return Named(path)
        arguments = reader.known(lambda: reader.arguments(node))
        return ErrorValue("an error", path.rpartition(".")[2], None if arguments is None else arguments[0])

    def fix_shapes(self) -> None:
        """What raises hangs on shapes: what is read here holds for the tensors that came, and no others."""
        for node in self.reader.trace.graph.nodes:
            if node.op == "placeholder":
                _ = example(node).shape

    # `match`.

    def _match(self, statement: ast.Match) -> Returned | Left | None:
        reader = self.reader
        subject = reader.value(statement.subject)
        for case in statement.cases:
            if self._fits(case.pattern, subject) and (case.guard is None or reader.truth(case.guard)):
                return self.block(case.body)
        return None

    def _fits(self, pattern: ast.pattern, value: Value) -> bool:
        """Whether `value` has the form of `pattern`, whose names are bound on the way."""
        reader = self.reader
        match pattern:
            case ast.MatchValue():
                wanted = reader.value(pattern.value)
                return reader.holds(pattern, compared(functools.partial(reader.operate, pattern), ast.Eq(), value, wanted))
            case ast.MatchSingleton():
                return value is pattern.value
            case ast.MatchAs():
                fits = pattern.pattern is None or self._fits(pattern.pattern, value)
                if fits and pattern.name is not None:
                    reader.scope.bind(pattern.name, value)
                return fits
            case ast.MatchOr():
                return any(self._fits(part, value) for part in pattern.patterns)
            case ast.MatchSequence():
                return isinstance(value, list | tuple) and self._fits_members(pattern.patterns, list(value))
            case ast.MatchMapping():
                return isinstance(value, dict) and self._fits_keys(pattern, value)
            case ast.MatchClass() if not pattern.patterns:
                asked = reader.calls.resolve("isinstance", reader.emitter(pattern))
                return bool(asked((value, reader.value(pattern.cls)), {})) and all(
                    self._fits(part, reader.attribute_of(pattern, value, name))
                    for name, part in zip(pattern.kwd_attrs, pattern.kwd_patterns, strict=True)
                )
        raise self.source.refused(
            Refusal("This pattern is not in the language.", "Write `if` / `elif` on known values."), pattern
        )

    def _fits_members(self, patterns: Sequence[ast.pattern], values: list[Value]) -> bool:
        starred = [index for index, part in enumerate(patterns) if isinstance(part, ast.MatchStar)]
        if not starred:
            return len(patterns) == len(values) and all(map(self._fits, patterns, values))
        before, after = starred[0], len(patterns) - starred[0] - 1
        if len(values) < before + after:
            return False
        rest = patterns[before]
        if isinstance(rest, ast.MatchStar) and rest.name is not None:
            self.reader.scope.bind(rest.name, values[before : len(values) - after])
        fits = all(map(self._fits, patterns[:before], values[:before]))
        return fits and all(map(self._fits, patterns[before + 1 :], values[len(values) - after :]))

    def _fits_keys(self, pattern: ast.MatchMapping, value: dict[Any, Value]) -> bool:
        keys = [static.key(self.reader.value(key), self.reader.trace.budget.spend) for key in pattern.keys]
        if any(key not in value for key in keys):
            return False
        if pattern.rest is not None:
            self.reader.scope.bind(pattern.rest, {key: member for key, member in value.items() if key not in keys})
        return all(self._fits(part, value[key]) for key, part in zip(keys, pattern.patterns, strict=True))
