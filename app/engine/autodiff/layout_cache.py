"""Layouts that may be used again: of patterns that hold for all values of a signature; the least recently used make room."""

from __future__ import annotations

from collections.abc import Hashable

from app.bounded_cache import BoundedCache
from app.engine.sparsity.layout import Layout
from app.program.function import Function


class LayoutCache:
    """`limit_bytes`: of all that is kept."""

    def __init__(self, limit_bytes: int) -> None:
        # The function is kept with its layout, so that its identity is not given out again.
        self._known: BoundedCache[Hashable, tuple[Function, Layout]] = BoundedCache(
            limit_bytes, lambda known: known[1].held_bytes
        )

    def find(self, function: Function, key: Hashable) -> Layout | None:
        known = self._known.get((id(function), key))
        return None if known is None else known[1]

    def add(self, function: Function, key: Hashable, layout: Layout) -> None:
        """Unless it holds at this point only, or is too large to keep."""
        if layout.reusable and function.static:
            self._known.keep((id(function), key), (function, layout))

    def drop(self, function: Function, key: Hashable) -> None:
        self._known.pop((id(function), key), None)
