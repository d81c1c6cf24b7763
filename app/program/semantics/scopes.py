"""Names and what they stand for, body within body, as Python's scopes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Scope(Mapping[str, Any]):
    """The names of one body; those of the bodies around it are seen through it.

    Attributes:
        own: the names bound here.
        outer: the body around this one, by the text; None for the program itself.
        elsewhere: names that `global` and `nonlocal` send to another scope.
        inner: a comprehension's: `:=` binds in the body around it.
        unbound: names that were bound here and are not any more.
        names: what a function binds somewhere: until it does, these are no names of the bodies around it.
        is_class: a class's: its names are seen by its own lines, not by functions and comprehensions in it.
    """

    __slots__ = ("elsewhere", "inner", "is_class", "names", "outer", "own", "unbound")

    def __init__(
        self,
        outer: Scope | None = None,
        own: dict[str, Any] | None = None,
        *,
        inner: bool = False,
        is_class: bool = False,
        names: frozenset[str] = frozenset(),
    ) -> None:
        self.own: dict[str, Any] = {} if own is None else own
        self.outer = outer
        self.elsewhere: dict[str, Scope] = {}
        self.inner, self.is_class = inner, is_class
        self.names = names
        self.unbound: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        scope = self._of(name)
        if scope is None or name not in scope.own:
            raise KeyError(name)
        return scope.own[name]

    def __contains__(self, name: object) -> bool:
        scope = self._of(name)
        return scope is not None and name in scope.own

    def _of(self, name: object) -> Scope | None:
        """The scope whose name it is, bound there or, of a function, not yet."""
        scope: Scope | None = self
        while scope is not None:
            if (name in scope.own or name in scope.names) and (scope is self or not scope.is_class):
                return scope
            scope = scope.elsewhere.get(name, scope.outer)  # type: ignore[call-overload]
        return None

    def is_unbound(self, name: str) -> bool:
        """Whether a function around here binds `name`, and has not yet."""
        scope = self._of(name)
        return scope is not None and name not in scope.own

    def __iter__(self) -> Iterator[str]:
        seen: dict[str, None] = {}
        scope: Scope | None = self
        while scope is not None:
            seen |= dict.fromkeys(scope.own)
            scope = scope.outer
        return iter(seen)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def bind(self, name: str, value: Any) -> None:
        self.elsewhere.get(name, self).own[name] = value

    def unbind(self, name: str) -> None:
        holder = self.elsewhere.get(name, self)
        holder.own.pop(name, None)
        holder.unbound.add(name)

    def chain(self) -> Iterator[Scope]:
        """This scope and those around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    def body(self) -> Scope:
        """The scope in which `:=` of a comprehension binds."""
        scope = self
        while scope.inner and scope.outer is not None:
            scope = scope.outer
        return scope

    def program(self) -> Scope:
        scope = self
        while scope.outer is not None:
            scope = scope.outer
        return scope

    def holder(self, name: str) -> Scope | None:
        """The nearest function's scope around this one that binds `name`."""
        scope = self.outer
        while scope is not None and scope.outer is not None:
            if name in scope.own and not scope.is_class:
                return scope
            scope = scope.outer
        return None
