"""Runs the statements of a program: assignments, loops and conditions, definitions, `with`, `return`."""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from typing import Final

from app.errors import PullbackError
from app.program.classes import special_methods
from app.program.classes.standard_library import Clock, Ticks
from app.program.interpreting.block_statements import Blocks
from app.program.interpreting.definitions import Left, Returned
from app.program.interpreting.expressions import Reader
from app.program.interpreting.generators import Generators
from app.program.interpreting.state import DependentError
from app.program.library import inplace, vocabulary
from app.program.library.containers import is_key
from app.program.reading.source import RaisedError, Refusal
from app.program.semantics import aliases, static
from app.program.semantics.comparison import SYMBOLS
from app.program.semantics.graph_values import Value, is_tensor
from app.program.semantics.sets import Distinct
from app.program.semantics.trace import Overwrite
from app.program.semantics.values import ClassValue, Instance, Named

_PROBLEM_LIMIT: Final = 50  # refusals in one answer: a screen full, more than a person mends before asking again
# What ends the reading at once: the rest of the text would say nothing more.
_FATAL: Final = ("too_costly", "out_of_memory", "result_too_large")


def _unread(word: str) -> Refusal:
    return Refusal(f"Nothing after `{word}` is ever read.", "Delete these lines.")


class Runner(Blocks):
    """Executes statements with one Reader."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        reader.body = self._body
        reader.yielded = Generators(self, self._assign_value, self.held, self.augment).yielded
        self._handlers = {
            ast.Assign: self._assign, ast.AugAssign: self._augmented, ast.AnnAssign: self._annotated, ast.Expr: self._bare,
            ast.If: self._condition, ast.For: self._loop, ast.While: self._while, ast.Return: self._returned, ast.Import: self._import,
            ast.ImportFrom: self._import, ast.FunctionDef: self._define, ast.ClassDef: self._class, ast.With: self._with,
            ast.Try: self._try, ast.Match: self._match,
            ast.Assert: self._assert, ast.Raise: self._raise, ast.Delete: self._delete, ast.Global: self._shared, ast.Nonlocal: self._shared,
        }  # fmt: skip

    def block(self, body: Sequence[ast.stmt]) -> Returned | Left | None:
        """Runs statements; what one of them cannot be is kept, and the reading goes on."""
        for index, statement in enumerate(body):
            try:
                left = self._statement(statement)
                self.reader.settle()
            except Refusal as refusal:
                self.failed(statement, self.source.refused(refusal, statement))
                continue
            except PullbackError as error:
                self.failed(statement, error)
                continue
            if left is not None:
                if index + 1 < len(body) and isinstance(statement, ast.Return | ast.Break | ast.Continue):
                    raise self.source.refused(_unread(type(statement).__name__.lower()), body[index + 1])
                return left
        return None

    def failed(self, statement: ast.stmt, error: PullbackError) -> None:
        reader = self.reader
        if isinstance(error, RaisedError) and (error.raises == "GeneratorExit" or (reader.trying and not reader.problems)):
            raise error  # a `try` around it may take it
        if isinstance(error, DependentError):
            reader.lost = reader.lost or error
        elif error.code in _FATAL:
            raise error
        elif all(error.at != known.at for known in reader.problems):
            reader.problems.append(error)
        if isinstance(statement, ast.Return) or len(reader.problems) >= _PROBLEM_LIMIT:
            raise DependentError("bad_program", "An earlier line of the program cannot be read.")
        reader.poison(statement)

    def _body(self, body: list[ast.stmt]) -> Value:
        """Runs the body of a function; what it returns."""
        left = self.block(body)
        return left.value if isinstance(left, Returned) else None

    def _statement(self, statement: ast.stmt) -> Returned | Left | None:
        self.reader.charge(statement)
        self.reader.statement = statement
        if id(statement) in self.source.unreadable:
            raise DependentError("bad_program", "This line cannot be read.")
        handler = self._handlers.get(type(statement))
        if handler is not None:
            return handler(statement)  # type: ignore[operator, no-any-return]
        if isinstance(statement, ast.Break | ast.Continue):
            return "break" if isinstance(statement, ast.Break) else "continue"
        if not isinstance(statement, ast.Pass):
            raise self.source.refused(Refusal(f"`{type(statement).__name__}` cannot stand here."), statement)
        return None

    # Assignments.

    def _assign(self, statement: ast.Assign) -> None:
        self._assign_value(statement, self.reader.value(statement.value))

    def _assign_value(self, statement: ast.Assign, value: Value) -> None:
        for target in statement.targets:
            self.reader.assign(target, value)
        self._assigned(statement.value, *statement.targets)

    def _assigned(self, value: ast.expr, *targets: ast.expr) -> None:
        """Notes what was assigned last by the program itself: its output, where it ends so. `n = 0` and `n += 1` set aside nothing."""
        if self.reader.stack:
            return
        is_written = self.reader.assigned and isinstance(value, ast.Constant)
        for target in targets:
            if isinstance(target, ast.Attribute):
                continue  # `p.grad = None`, `self.x = y`: a line on the way
            while isinstance(target, ast.Subscript):
                target = target.value
            parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            names = [part.id for part in parts if isinstance(part, ast.Name) and not part.id.startswith("__")]
            if is_written and not any(is_tensor(self.reader.read(self.reader.scope.get(name))) for name in names):
                continue
            if names and not all(isinstance(self.reader.scope.get(name), Clock | Ticks) for name in names):
                self.reader.assigned = names

    def _augmented(self, statement: ast.AugAssign) -> None:
        """`x += y` writes into a tensor, as Python and PyTorch do; a list grows in place."""
        held = self.held(statement)
        self.augment(statement, held, self.reader.value(statement.value))

    def held(self, statement: ast.AugAssign) -> tuple[Value, Value, Value]:
        """What stands left of `+=`; of a member or an attribute also what holds it, and where."""
        reader, target = self.reader, statement.target
        if isinstance(target, ast.Name):
            return reader.value(ast.copy_location(ast.Name(target.id, ast.Load()), target)), None, None
        owner = reader.value(target.value)
        if isinstance(target, ast.Attribute):
            return reader.located(target, lambda: reader.attribute_of(target, reader.read(owner), target.attr)), owner, None
        index = reader.value(target.slice)
        return reader.located(target, lambda: reader.item(target, owner, index)), owner, index

    def augment(self, statement: ast.AugAssign, held: tuple[Value, Value, Value], right: Value) -> None:
        """`held += right`."""
        reader, target, symbol = self.reader, statement.target, SYMBOLS[type(statement.op)]
        left, owner, index = held
        if isinstance(left, list) and symbol == "+" and type(right) is not type(left):
            right = type(left)(reader.located(statement, lambda: reader.builtins.items(reader.emitter(statement), right)))

        def changed() -> Value:
            if special_methods.is_object(left):
                invoke = functools.partial(reader.invoke, statement)
                return special_methods.binary(lambda f, a: invoke(f, a, {}), symbol, left, right, written=True)
            value = reader.operate(statement, symbol, left, right)
            if not is_tensor(left) or symbol == "@":
                return value
            return inplace.write(reader.trace, reader.emitter(statement), left, value, symbol)

        value = reader.located(statement, changed)
        if isinstance(left, list) and isinstance(value, list):
            left.clear()
            left.extend(value)  # a deque drops what is too much
            value = left
        elif isinstance(left, dict) and isinstance(value, dict):
            left.clear()
            left.update(value)
            value = left
        elif isinstance(left, Distinct) and isinstance(value, Distinct):
            left.replace(value)
            value = left
        if isinstance(target, ast.Subscript):
            # The write has been where a view was written into, and where an object of the language's own answers by itself.
            is_written = aliases.is_view(left, owner) or (
                isinstance(owner, Instance) and not isinstance(owner.kind, ClassValue)
            )
            if value is not left or not is_written:
                reader.assign_item(target, owner, index, value)
            elif is_tensor(
                value
            ):  # Python assigns the view to its place, which writes it into itself: no step may need it as it was
                node = reader.trace.now(value)
                reader.trace.overwritten.append(Overwrite(node, None, node.meta["step"], reader.trace.steps))
        elif isinstance(target, ast.Attribute) and value is not left:
            reader.assign_attribute(target, owner, value)
        elif value is not left:
            reader.assign(target, value)
        self._assigned(statement.value, target)

    def _annotated(self, statement: ast.AnnAssign) -> None:
        if statement.value is None:
            self.reader.leave_out(statement, self.source.excerpt(statement), None)
            return
        self.reader.assign(statement.target, self.reader.value(statement.value))
        self._assigned(statement.value, statement.target)

    def _bare(self, statement: ast.Expr) -> None:
        if is_text(statement):
            return
        value = self.reader.value(statement.value)
        if isinstance(value, Named):
            raise self.source.refused(vocabulary.not_called(value), statement)

    # Loops and conditions.

    def _condition(self, statement: ast.If) -> Returned | Left | None:
        return self.block(statement.body if self.reader.truth(statement.test) else statement.orelse)

    def _loop(self, statement: ast.For) -> Returned | Left | None:
        reader = self.reader
        for item in reader.stream(statement.iter):
            reader.located(statement, reader.iterate)
            reader.statement = statement
            reader.assign(statement.target, item)
            left = self.block(statement.body)
            if isinstance(left, Returned):
                return left
            if left == "break" or self.stuck():
                return None
        return self.block(statement.orelse)

    def _while(self, statement: ast.While) -> Returned | Left | None:
        reader = self.reader
        while True:
            reader.statement = statement
            if not reader.truth(statement.test):
                return self.block(statement.orelse)
            reader.located(statement, reader.iterate)
            left = self.block(statement.body)
            if isinstance(left, Returned):
                return left
            if left == "break" or self.stuck():
                return None

    def stuck(self) -> bool:
        """Whether a line of the loop cannot be read: once is enough to say so."""
        return bool(self.reader.problems or self.reader.lost)

    # The rest.

    def _assert(self, statement: ast.Assert) -> None:
        """Checked where it is known without tensors."""
        reader = self.reader
        value = reader.known(lambda: reader.value(statement.test))
        if is_tensor(value) and reader.trying:  # an `except` may take what does not hold
            value = reader.holds(statement, value)
        if isinstance(value, bool) and not value:
            text = self.source.excerpt(statement)
            refusal = Refusal(f"This does not hold: `{text}`.", "Send inputs for which it holds.", raises="AssertionError")
            message = statement.msg
            refusal.arguments = () if message is None else reader.known(lambda: (reader.value(message),))
            raise self.source.refused(refusal, statement)
        reader.leave_out(statement, "assert", None)

    def _delete(self, statement: ast.Delete) -> None:
        for target in statement.targets:
            if isinstance(target, ast.Subscript | ast.Attribute):
                self._delete_in(target)
                continue
            if not isinstance(target, ast.Name):
                raise self.source.refused(Refusal("Only names and members can be deleted.", "Leave the line out."), target)
            self.reader.value(ast.copy_location(ast.Name(target.id, ast.Load()), target))
            self.reader.scope.unbind(target.id)

    def _delete_in(self, target: ast.Subscript | ast.Attribute) -> None:
        """`del values[0]`, `del table["key"]`, `del self.name`."""
        reader = self.reader
        owner = reader.value(target.value)
        if isinstance(target, ast.Attribute):
            if not isinstance(owner, Instance) or target.attr not in owner.own:
                raise self.source.refused(Refusal("There is no such attribute to delete.", "Leave the line out."), target)
            del owner.own[target.attr]
            return
        index = reader.value(target.slice)
        if isinstance(owner, Instance) and isinstance(owner.kind, str) and str(index) in owner.own:
            del owner.own[str(index)]
        elif isinstance(owner, dict) and is_key(index) and index in owner:
            del owner[index]
        elif isinstance(owner, list) and isinstance(index, int | slice):
            reader.located(target, lambda: static.computed(owner.__delitem__, index, what="`del`"))
        else:
            raise self.source.refused(
                Refusal("There is no such member to delete.", "Leave the line out.", raises="KeyError"), target
            )

    def _shared(self, statement: ast.Global | ast.Nonlocal) -> None:
        scope = self.reader.scope
        for name in statement.names:
            holder = scope.program() if isinstance(statement, ast.Global) else scope.holder(name)
            if holder is None or holder is scope:
                raise self.source.refused(
                    Refusal(f"There is no outer `{name}`.", "Give it to the function as an argument."), statement
                )
            scope.elsewhere[name] = holder

    def _returned(self, statement: ast.Return) -> Returned:
        node = statement.value or ast.copy_location(ast.Constant(None), statement)
        return Returned(self.reader.value(node), node)


def is_text(statement: ast.stmt) -> bool:
    """Whether the statement is a docstring, or `...`."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and (isinstance(statement.value.value, str) or statement.value.value is Ellipsis)
    )
