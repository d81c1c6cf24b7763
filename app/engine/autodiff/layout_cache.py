"""Layouts that may be used again: of patterns that hold for all values of a signature; the least recently used make room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from app.engine.sparsity.layout import Layout
from app.program.function import Function


class LayoutCache:
    """`limit_bytes`: of all that is kept."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        # The function is kept with its layout, so that its identity is not given out again.
        self._known: OrderedDict[Hashable, tuple[Function, Layout]] = OrderedDict()

    def find(self, function: Function, key: Hashable) -> Layout | None:
        known = self._known.get((id(function), key))
        if known is None:
            return None
        self._known.move_to_end((id(function), key))
        return known[1]

    def add(self, function: Function, key: Hashable, layout: Layout) -> None:
        """Unless it holds at this point only, or is too large to keep."""
        if not layout.reusable or not function.static or layout.held_bytes > self._limit_bytes:
            return
        self.drop(function, key)
        self._known[id(function), key] = (function, layout)
        self._bytes += layout.held_bytes
        while self._bytes > self._limit_bytes:
            _, (_, oldest) = self._known.popitem(last=False)
            self._bytes -= oldest.held_bytes

    def drop(self, function: Function, key: Hashable) -> None:
        known = self._known.pop((id(function), key), None)
        if known is not None:
            self._bytes -= known[1].held_bytes
