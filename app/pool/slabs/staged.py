"""A staged body: one that is received where a worker will probably read it, so that nothing of it need be copied."""

from __future__ import annotations

from app.pool.frames import Buffer
from app.pool.slabs.slab import Slab


class StagedBody(list[Buffer]):
    """A body as its one piece, `memory`, a span in a slab; whoever keeps a body keeps its pieces, and so the span."""

    def __init__(self, slab: Slab, begin: int, memory: memoryview) -> None:
        super().__init__([memory])
        self._slab = slab
        self._begin = begin
        self.memory = memory

    def stands_in(self, slab: Slab | None) -> bool:
        """It is there that it stands."""
        return self._slab is slab

    def sent(self) -> bytes:
        """It is to be read by the worker of that slab: its span, as a frame says it."""
        return self._slab.sent(self._begin, len(self.memory))
