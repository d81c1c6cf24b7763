"""Bodies of generator functions, run on demand: a member is computed when it is taken, with the names and writes of that moment."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any

from app.errors import PullbackError
from app.program.classes import contexts
from app.program.interpreting.block_statements import Blocks
from app.program.interpreting.definitions import Left, Returned
from app.program.interpreting.displays import yield_inside
from app.program.reading.source import RaisedError, Refusal, drops_errors
from app.program.semantics.graph_values import Value
from app.program.semantics.scopes import Scope
from app.program.semantics.values import FunctionValue

Ended = Returned | Left | None
# Gives the members; is sent what `x = yield y` gives; ends with how the statements were left.
Steps = Generator[Value, Value, Ended]


class Generators:
    """Runs statements that hold a `yield`; all others are run at once, as everywhere."""

    def __init__(
        self,
        blocks: Blocks,
        assigned: Callable[[ast.Assign, Value], None],
        held: Callable[[ast.AugAssign], Any],
        augment: Callable[[ast.AugAssign, Any, Value], None],
    ) -> None:
        self._blocks, self._assigned, self._held, self._augment = blocks, assigned, held, augment
        self._reader, self._source = blocks.reader, blocks.source

    def yielded(self, function: FunctionValue, scope: Scope) -> Generator[Value, Value, Value]:
        """What a generator function yields, one at a time; `with torch.no_grad()` inside it holds outside too, as in Python."""
        reader, body = self._reader, function.node.body
        steps = self.block(body if isinstance(body, list) else [ast.copy_location(ast.Expr(body), body)])
        resume: Callable[[], Value] = functools.partial(next, steps)
        trying = 0  # of its own `try` blocks that are open
        while True:
            reader.check_depth(function)
            outside = reader.trying
            reader.trying += trying
            try:
                with reader.running(function, scope):
                    try:
                        member = resume()
                    except StopIteration as end:
                        return getattr(end.value, "value", None)
            finally:
                trying, reader.trying = reader.trying - outside, outside
            try:
                resume = functools.partial(steps.send, (yield member))
            except RaisedError as error:
                resume = functools.partial(steps.throw, error)

    def block(self, body: Sequence[ast.stmt]) -> Steps:
        """Statements one after the other; what one of them cannot be is kept, and the reading goes on."""
        for statement in body:
            left = (yield from self._read_on(statement)) if self._source.yields(statement) else self._blocks.block([statement])
            if left is not None:
                return left
        return None

    def _read_on(self, statement: ast.stmt) -> Steps:
        try:
            return (yield from self._statement(statement))
        except Refusal as refusal:
            self._blocks.failed(statement, self._source.refused(refusal, statement))
        except PullbackError as error:
            self._blocks.failed(statement, error)
        return None

    def _statement(self, statement: ast.stmt) -> Steps:
        reader = self._reader
        reader.charge(statement)
        reader.statement = statement
        match statement:
            case ast.Expr():
                yield from self._value(statement.value)
                return None
            case ast.Assign():
                self._assigned(statement, (yield from self._value(statement.value)))
                return None
            case ast.AugAssign():
                held = self._held(statement)
                self._augment(statement, held, (yield from self._value(statement.value)))
                return None
            case ast.Return(value=ast.expr() as value):
                return Returned((yield from self._value(value)), value)
            case ast.If():
                return (yield from self.block(statement.body if reader.truth(statement.test) else statement.orelse))
            case ast.For():
                return (yield from self._loop(statement))
            case ast.While():
                return (yield from self._while(statement))
            case ast.With():
                return (yield from self._within(statement.items, statement.body))
            case ast.Try():
                return (yield from self._try(statement))
        raise yield_inside()

    def _value(self, node: ast.expr) -> Generator[Value, Value, Value]:
        reader = self._reader
        if isinstance(node, ast.Yield):
            return (yield (None if node.value is None else reader.value(node.value)))
        if not isinstance(node, ast.YieldFrom):
            raise reader.source.refused(yield_inside(), node)
        owner = reader.value(node.value)
        members = reader.located(node, lambda: reader.builtins.stream(reader.emitter(node), owner))
        take: Callable[[], Value] = functools.partial(next, members)
        while True:
            try:
                member = reader.located(node, take)
            except StopIteration as end:
                return end.value
            try:
                sent = yield reader.read(member)
                take = functools.partial(next, members) if sent is None else functools.partial(members.send, sent)
            except RaisedError as error:  # of a `with` around it, or of its end
                take = functools.partial(members.throw, error)

    def _loop(self, statement: ast.For) -> Steps:
        reader = self._reader
        for item in reader.stream(statement.iter):
            reader.located(statement, reader.iterate)
            reader.statement = statement
            reader.assign(statement.target, item)
            left = yield from self.block(statement.body)
            if isinstance(left, Returned):
                return left
            if left == "break" or self._blocks.stuck():
                return None
        return (yield from self.block(statement.orelse))

    def _while(self, statement: ast.While) -> Steps:
        reader = self._reader
        while True:
            reader.statement = statement
            if not reader.truth(statement.test):
                return (yield from self.block(statement.orelse))
            reader.located(statement, reader.iterate)
            left = yield from self.block(statement.body)
            if isinstance(left, Returned):
                return left
            if left == "break" or self._blocks.stuck():
                return None

    # What counts `trying` up and down is left to the garbage collector where nobody takes the rest of a generator: not then.

    def _within(self, items: Sequence[ast.withitem], body: Sequence[ast.stmt]) -> Steps:
        if not items:
            return (yield from self.block(body))
        entered = contexts.entered(self._reader, items[0])
        self._begin(entered.takes)
        try:
            left = yield from self._within(items[1:], body)
        except RaisedError as error:
            try:
                if not entered.leave(error):
                    raise
            finally:
                self._reader.trying -= entered.takes
            return None
        self._reader.trying -= entered.takes
        entered.leave(None)
        return left

    def _begin(self, takes: bool) -> None:
        if takes:
            self._blocks.fix_shapes()
        self._reader.trying += takes

    def _try(self, statement: ast.Try) -> Steps:
        drops = drops_errors(statement)
        self._begin(drops)
        try:
            left = yield from self._attempted(statement)
        except RaisedError:
            self._reader.trying -= drops
            at_last = yield from self.block(statement.finalbody)
            if at_last is None:
                raise
            return at_last
        self._reader.trying -= drops
        at_last = yield from self.block(statement.finalbody)
        return left if at_last is None else at_last

    def _attempted(self, statement: ast.Try) -> Steps:
        reader, takes = self._reader, bool(statement.handlers)
        self._begin(takes)
        try:
            left = yield from self.block(statement.body)
        except RaisedError as error:
            reader.trying -= takes
            handler = self._blocks.handler_of(statement, error)
            if handler is None:
                raise
            with self._blocks.handling(handler, error):
                return (yield from self.block(handler.body))
        reader.trying -= takes
        return (yield from self.block(statement.orelse)) if left is None else left
