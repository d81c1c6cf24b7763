"""What the reading of one program knows: its text, its names, the graph so far, what was left out, what cannot be read."""

from __future__ import annotations

import ast
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import fx

from app.errors import PullbackError
from app.program.library.calls import Calls
from app.program.modules.layers import Weight
from app.program.modules.weights import Weights
from app.program.reading.source import RaisedError, Refusal, Source
from app.program.semantics.graph_values import Value
from app.program.semantics.scopes import Scope
from app.program.semantics.trace import Trace
from app.program.semantics.values import Unreadable, close

# Calls within calls; each takes about fifteen of Python's own frames, of which there are a thousand.
CALL_DEPTH = 30
# Words of a text that takes derivatives.
_DERIVATIVES = ("backward", "grad(", "jac", "hessian", "vjp", "jvp", "hvp")


class DependentError(PullbackError):
    """A line that reads what an earlier line, which could not be read, would have given; it adds nothing to say."""


class State:
    """The state of one reading.

    Attributes:
        scope: the names that are seen where the program is being read.
        inputs: names that came with the query, for the error texts.
        statement: the one that is being read.
        ignored: line → what was left out there.
        calls: what calls mean.
        weights: the parameters of modules.
        trying: how many `try` blocks with an `except` are being read.
        attributes: what the program hung on tensors by names of its own (`w.g = …`).
        dropped: generators that nothing holds any more, at a `yield` of theirs; they are ended as soon as the next thing is read.
        saved: path → what the program saved there; None: it saved what, or where, is not known.
        printed: (line, column, text) and a tensor → its gradient as it was printed there last.
    """

    # Set by who reads the parts that this one needs: expressions, bodies of functions, and those of generators, which give what they yield.
    value: Callable[[ast.expr], Value]
    body: Callable[[list[ast.stmt]], Any]
    yielded: Callable[[Any, Scope], Generator[Value, Value, Value]]
    emitter: Callable[[ast.AST], Callable[..., Value]]

    def __init__(
        self,
        source: Source,
        trace: Trace,
        scope: Scope,
        dtype: torch.dtype,
        sent: dict[str, fx.Node],
    ) -> None:
        self.source, self.trace, self.scope = source, trace, scope
        self.inputs = frozenset(scope)
        self.statement: ast.stmt | None = None
        self.iterations = 0
        self.ignored: dict[int, str] = dict(source.ignored)
        self.problems: list[PullbackError] = []
        self.weights = Weights(trace, sent)
        trace.read = self.read
        self.stack: list[Any] = []
        self.calls = Calls(trace, scope, dtype, self.weights, self._apply_anywhere)
        self.calls.takes_derivatives = any(word in line for line in source.lines for word in _DERIVATIVES)
        self.builtins = self.calls.builtins
        self.builtins.trying, self.builtins.holds = self._try_more, self._holds_anywhere
        self.calls.is_trying = self.calls.gradients.leaves.is_trying = lambda: self.trying > 0
        self.reads = self.calls.reads
        self.defined: list[tuple[str, Any]] = []
        self.assigned: list[str] = []
        self.lost: PullbackError | None = None
        self.tensors: list[str] = []
        self.stars: list[str] = []
        self.trying = 0
        self.attributes: dict[tuple[fx.Node, str], Value] = {}
        self.saved: dict[str | None, Value] = {}
        self.dropped: list[Generator[Any, Any, Any]] = []
        self._places: dict[tuple[ast.AST, ast.AST], tuple[int, int, str]] = {}
        self.printed: dict[tuple[tuple[int, int, str], fx.Node], Any] = {}

    def _apply_anywhere(self, function: Value, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        return self.invoke(self.statement or ast.Pass(lineno=1, col_offset=0), function, args, kwargs)

    def _holds_anywhere(self, value: Value) -> bool:
        return self.holds(self.statement or ast.Pass(lineno=1, col_offset=0), value)

    def _try_more(self, change: int) -> None:
        self.trying += change

    def holds(self, node: ast.AST, value: Value) -> bool:
        """Whether a condition on `value` holds; on a tensor it is a branch."""
        raise NotImplementedError

    def invoke(self, node: ast.AST, function: Value, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
        """`function(*args, **kwargs)`."""
        raise NotImplementedError

    def read(self, value: Value) -> Value:
        """A name's or attribute's value as an expression sees it: a weight as its tensor."""
        if isinstance(value, Weight):
            return self.weights.tensor_of(value)
        if isinstance(value, Unreadable):
            raise DependentError("bad_program", "An earlier line of the program cannot be read.")
        return value

    def settle(self) -> None:
        """Ends the generators that were dropped; what they raise then is lost, as in Python."""
        while self.dropped and not self.problems and self.lost is None:
            with suppress(RaisedError):
                close(self.dropped.pop(0))

    def charge(self, node: ast.AST) -> None:
        self.settle()
        try:
            self.trace.budget.spend()
        except Refusal as refusal:
            raise self.source.refused(refusal, node) from None

    def items(self, node: ast.expr) -> list[Value]:
        """What a loop over the expression goes through."""
        value = self.value(node)
        members: list[Value] = self.located(node, lambda: self.builtins.items(self.emitter(node), value))
        return [self.read(member) for member in members]

    def stream(self, node: ast.expr) -> Iterator[Value]:
        """The same one at a time; the expression itself is read at once."""
        value = self.value(node)
        return self._taken(node, self.located(node, lambda: self.builtins.stream(self.emitter(node), value)))

    def _taken(self, node: ast.expr, members: Iterator[Value]) -> Iterator[Value]:
        end = object()
        while (member := self.located(node, lambda: next(members, end))) is not end:
            yield self.read(member)

    def located(self, node: ast.AST, run: Callable[[], Value]) -> Any:
        try:
            return run()
        except Refusal as refusal:
            raise self.source.refused(refusal, node) from refusal.__cause__

    def known(self, read: Callable[[], Any]) -> Any:
        """What `read` gives where nothing else hangs on it; None where the language has no words for it."""
        before = len(self.problems), self.lost
        try:
            return read()
        except (PullbackError, Refusal):
            del self.problems[before[0] :]
            self.lost = before[1]
            return None

    def leave_out(self, node: ast.AST, what: str, gives: Value) -> Value:
        """Notes that something means nothing here; `gives` stands in its place."""
        self.ignored.setdefault(self.source.place(node)[0], f"`{what}`")
        return gives
