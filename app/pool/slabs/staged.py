"""A staged body: the pieces of one that is still coming, each copied, when it has come, to where a worker will probably read it.

The copy is made while the client sends, and from memory that was written a moment ago; it is no longer waited for when the body is whole.
"""

from __future__ import annotations

from app.pool.frames import Buffer
from app.pool.slabs.slab import Slab


class StagedBody(list[Buffer]):
    """Pieces in order, with a place for all `size` bytes of them, which begins at `begin` in a slab."""

    def __init__(self, slab: Slab, begin: int, size: int) -> None:
        super().__init__()
        self._slab: Slab | None = slab
        self._begin = begin
        self._size = size
        self._copied = 0

    def stage(self, piece: Buffer) -> None:
        """Copy a piece, which has come whole, behind those before it."""
        if self._slab is not None and self._copied + len(piece) <= self._size:
            self._slab.write(self._begin + self._copied, piece)
            self._copied += len(piece)

    def taken(self, slab: Slab) -> bytes | None:
        """Its place, which is the taker's from now on, where all of it stands in `slab`; None where it does not, or was taken before."""
        if self._slab is not slab or self._copied < self._size:
            return None
        self._slab = None
        return slab.place(self._begin, self._size)

    def drop(self) -> None:
        """Free its place, if nobody has taken it."""
        slab, self._slab = self._slab, None
        if slab is not None:
            slab.free(self._begin)
