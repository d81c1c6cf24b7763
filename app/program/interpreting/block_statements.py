"""Statements that hold blocks and choose among them: `with`, `try`, `match`."""

from __future__ import annotations

import ast
import builtins
import functools
from collections.abc import Sequence
from typing import Any, Final

from app.program.interpreting.definitions import Definitions, Left, Returned
from app.program.interpreting.expressions import Reader
from app.program.library import vocabulary
from app.program.reading.source import RaisedError, Refusal
from app.program.semantics.comparison import compared
from app.program.semantics.graph_values import Value, example
from app.program.semantics.values import ClassValue, FunctionValue, Inert, Instance, Method, Named, special

_NO_ERROR: Final = (None, None, None)  # what `__exit__` is given where the block ended without one
_AN_ERROR: Final = Inert("an error")


class Blocks(Definitions):
    """Runs statements that hold blocks, with one Reader."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self._handled: list[RaisedError] = []  # the errors of the `except` blocks that are being read, the innermost last

    # `with`.

    def _with(self, statement: ast.With) -> Returned | Left | None:
        reader = self._reader
        enabled = reader.trace.grad_enabled
        try:
            return self._within(statement.items, statement.body)
        finally:
            reader.trace.grad_enabled = enabled
            if any("fork_rng" in ast.dump(item.context_expr) for item in statement.items):  # it goes on where it was before
                reader.trace.randomness.seeded(self._source.place(statement)[0])

    def _within(self, items: Sequence[ast.withitem], body: Sequence[ast.stmt]) -> Returned | Left | None:
        """The block inside the first of `items`, the others inside that."""
        if not items:
            return self.block(body)
        item, *others = items
        reader, context = self._reader, item.context_expr
        generator = self._generator_of(context)
        if generator is not None:
            return self._in_generator(item, generator, lambda: self._within(others, body))
        value = self._context_of(context)
        enter = special(value, "__enter__")
        if enter is None:
            self._enter(item)
            return self._within(others, body)
        entered = reader.invoke(context, enter, (), {})
        if item.optional_vars is not None:
            reader.assign(item.optional_vars, entered)
        leave = special(value, "__exit__")
        try:
            left = self._within(others, body)
        except RaisedError as error:
            if leave is None or not reader.holds(
                context, reader.invoke(context, leave, (Named(error.raises), _AN_ERROR, None), {})
            ):
                raise
            return None
        if leave is not None:
            reader.invoke(context, leave, _NO_ERROR, {})
        return left

    def _context_of(self, context: ast.expr) -> Value:
        """The object of the program that a `with` enters; None where it is one of PyTorch's names."""
        reader = self._reader
        called = context.func if isinstance(context, ast.Call) else context
        path = reader.dotted(called) if isinstance(called, ast.Name | ast.Attribute) else None
        return None if path is not None or reader.is_silent(context) else reader.value(context)

    def _generator_of(self, context: ast.expr) -> Value:
        """The function under `@contextmanager` that a `with` calls, or None."""
        reader = self._reader
        if not isinstance(context, ast.Call) or reader.is_silent(context):
            return None
        if isinstance(context.func, ast.Name):
            function = reader.scope.get(context.func.id)
        elif isinstance(context.func, ast.Attribute) and reader.dotted(context.func) is None:
            function = reader.value(context.func)
        else:
            return None
        bare = function.function if isinstance(function, Method) else function
        return function if isinstance(bare, FunctionValue) and bare.role == "context" else None

    def _in_generator(self, item: ast.withitem, function: Value, inside: Any) -> Returned | Left | None:
        """`with f(): …` of a generator function: the block runs where the function yields."""
        reader = self._reader
        call = item.context_expr
        assert isinstance(call, ast.Call)  # noqa: S101 (for the type checker: `_generator_of` says so)
        args, kwargs = reader.arguments(call)
        scope, stack, statement = reader.scope, list(reader.stack), reader.statement
        yields = reader.yielded, reader.on_yield
        left: list[Returned | Left | None] = []

        def block(value: Value) -> None:
            if left:
                raise Refusal("A context manager yields once.", "Write the lines after the block.")
            own = reader.scope, reader.stack, reader.statement, reader.yielded, reader.on_yield
            reader.scope, reader.stack, reader.statement = scope, list(stack), statement
            reader.yielded, reader.on_yield = yields
            try:
                if item.optional_vars is not None:
                    reader.assign(item.optional_vars, value)
                left.append(inside())
            finally:
                reader.scope, reader.stack, reader.statement, reader.yielded, reader.on_yield = own

        reader.next_yield = block
        reader.invoke(call, function, args, kwargs)
        if not left:
            raise self._source.refused(Refusal("A context manager yields once, and this one did not."), call)
        return left[0]

    def _enter(self, item: ast.withitem) -> None:
        reader, context = self._reader, item.context_expr
        path = reader.dotted(context.func if isinstance(context, ast.Call) else context) or ""
        args: tuple[Value, ...] = ()
        if isinstance(context, ast.Call):
            args = tuple(reader.value(a) for a in (*context.args, *(k.value for k in context.keywords)))
        mode = reader.grad_mode(path, args)
        if mode is not None:
            reader.trace.grad_enabled = mode
        elif (path and vocabulary.is_inert_context(path)) or reader.is_silent(context):
            reader.leave_out(context, f"with {path or self._source.excerpt(context)}", None)
        else:
            raise self._source.refused(
                Refusal(
                    f"`with {path or '…'}` is not in the language.",
                    "Write the lines without `with`; `torch.no_grad()`, `torch.enable_grad()` and classes of the program with `__enter__` "
                    "and `__exit__` are understood.",
                ),
                context,
            )
        if item.optional_vars is not None:
            reader.assign(item.optional_vars, Inert("a context"))

    # `try`.

    def _try(self, statement: ast.Try) -> Returned | Left | None:
        """The lines between `try` and `except`; where one of them raises in PyTorch too, those of the handler; and those of `finally`."""
        if statement.handlers:
            self._fix_shapes()
        try:
            left = self._attempted(statement)
        except RaisedError:
            at_last = self.block(statement.finalbody)
            if at_last is None:
                raise
            return at_last
        at_last = self.block(statement.finalbody)
        return left if at_last is None else at_last

    def _attempted(self, statement: ast.Try) -> Returned | Left | None:
        reader = self._reader
        if not statement.handlers:
            reader.leave_out(statement, "try … finally", None)
            left = self.block(statement.body)
            return self.block(statement.orelse) if left is None else left
        outside = reader.scope, list(reader.stack), reader.trace.grad_enabled
        reader.trying += 1
        raised: RaisedError
        try:
            left = self.block(statement.body)
        except RaisedError as error:
            raised = error
            reader.scope, reader.stack[:], reader.trace.grad_enabled = outside
            handler = next((h for h in statement.handlers if self._takes(h, error)), None)
            if handler is None:
                raise
        else:
            handler = None
        finally:
            reader.trying -= 1
        if handler is not None:
            return self._in_handler(handler, raised)
        reader.leave_out(statement, "try … except", None)
        return self.block(statement.orelse) if left is None else left

    def _in_handler(self, handler: ast.ExceptHandler, error: RaisedError) -> Returned | Left | None:
        if handler.name is not None:
            self._reader.scope.bind(handler.name, _AN_ERROR if error.instance is None else error.instance)
        self._handled.append(error)
        try:
            return self.block(handler.body)
        finally:
            self._handled.pop()

    def _takes(self, handler: ast.ExceptHandler, error: RaisedError) -> bool:
        """Whether `except …` is of the class that was raised, or of one above it."""
        if handler.type is None:
            return True
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return any(self._is_of(kind, error) for kind in kinds)

    def _is_of(self, kind: ast.expr, error: RaisedError) -> bool:
        path = self._reader.dotted(kind)
        if path is None:
            value = self._reader.value(kind)
            return isinstance(value, ClassValue) and error.instance is not None and value in error.instance.kind.order
        name = path.rpartition(".")[2]
        return issubclass(_exception(error.raises), _exception(name)) and (name in vars(builtins) or name == error.raises)

    def _raise(self, statement: ast.Raise) -> None:
        reader = self._reader
        if statement.exc is None and self._handled:
            raise self._handled[-1]
        text = self._source.excerpt(statement)
        called = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        name = "Exception" if called is None else (reader.dotted(called) or "Exception").rpartition(".")[2]
        instance = None
        kind = reader.scope.get(called.id) if isinstance(called, ast.Name) else None
        if isinstance(kind, ClassValue) and statement.exc is not None:
            value = reader.value(statement.exc)
            instance = value if isinstance(value, Instance) else Instance(kind)
            name = kind.builtin or "Exception"
        refusal = Refusal(
            f"The program ends here with an error of its own: `{text}`.", "Send inputs that do not lead here.", raises=name
        )
        error = self._source.refused(refusal, statement)
        if isinstance(error, RaisedError):
            error.instance = instance
        raise error

    def _fix_shapes(self) -> None:
        """What raises hangs on shapes: what is read here holds for the tensors that came, and no others."""
        for node in self._reader.trace.graph.nodes:
            if node.op == "placeholder":
                _ = example(node).shape

    # `match`.

    def _match(self, statement: ast.Match) -> Returned | Left | None:
        reader = self._reader
        subject = reader.value(statement.subject)
        for case in statement.cases:
            if self._fits(case.pattern, subject) and (case.guard is None or reader.truth(case.guard)):
                return self.block(case.body)
        return None

    def _fits(self, pattern: ast.pattern, value: Value) -> bool:
        """Whether `value` has the form of `pattern`, whose names are bound on the way."""
        reader = self._reader
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
        raise self._source.refused(
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
            self._reader.scope.bind(rest.name, values[before : len(values) - after])
        fits = all(map(self._fits, patterns[:before], values[:before]))
        return fits and all(map(self._fits, patterns[before + 1 :], values[len(values) - after :]))

    def _fits_keys(self, pattern: ast.MatchMapping, value: dict[Any, Value]) -> bool:
        keys = [self._reader.value(key) for key in pattern.keys]
        if any(key not in value for key in keys):
            return False
        if pattern.rest is not None:
            self._reader.scope.bind(pattern.rest, {key: member for key, member in value.items() if key not in keys})
        return all(self._fits(part, value[key]) for key, part in zip(keys, pattern.patterns, strict=True))


def _exception(name: str) -> type[BaseException]:
    """Python's exception of a name; PyTorch's own extend RuntimeError."""
    kind = vars(builtins).get(name)
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else RuntimeError
