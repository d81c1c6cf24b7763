"""A worker's side of its slab: bodies of queries are read where they stand, and large replies are written where the front reads them."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Sequence

from app.pool.frames import LARGE_BYTES, Buffer, Frame, Kind, encode
from app.pool.slabs.slab import Slab


class WorkerBodies:
    """The bodies from and to the front that stand in the slab; where there is none, they all go over the socket.

    Arguments:
        descriptor: of the slab, closed here; None = none.
        size: its bytes.

    Attributes:
        is_mapped: there is one.
    """

    def __init__(self, descriptor: int | None, size: int) -> None:
        self._slab: Slab | None = None
        self._read: list[int] = []  # where bodies began that nothing refers to any more
        if descriptor is not None:
            with contextlib.suppress(OSError):
                self._slab = Slab(descriptor, size, is_front=False, on_read=self._read.append)
            os.close(descriptor)
        self.is_mapped = self._slab is not None

    def opened(self, frame: Frame) -> Frame | None:
        """As `Slab.opened`; the frame as it is where there is no slab."""
        return frame if self._slab is None else self._slab.opened(frame)

    def reply(self, number: int, meta: bytes, body: Sequence[Buffer], look: Callable[[], None]) -> list[Buffer]:
        """The frame of a reply. `look`: reads what has come from the front, which may say that it has read earlier replies."""
        size = sum(map(len, body))
        if self._slab is not None and size >= LARGE_BYTES:
            look()
            span = self._slab.put(body, size)
            if span is not None:
                return encode(Kind.PLACED_REPLY, number, meta=meta, body=[span])
        return encode(Kind.REPLY, number, meta=meta, body=body)

    def begin(self, number: int) -> None:
        """Note where the front reads it, also when this process has died of it, that the query of this number is begun."""
        if self._slab is not None:
            self._slab.mark(number)

    def settle(self) -> None:
        """Called while no query is here: whatever refers to a body still is a cycle, as a refusal and its traceback are one."""
        for generation in (1, 2):
            if self._slab is not None and self._slab.is_reading:
                gc.collect(generation)

    def read(self) -> list[Buffer]:
        """Frames that tell the front which bodies have been read since they were last asked for."""
        count = len(self._read)
        return [buffer for _ in range(count) for buffer in encode(Kind.FREED, self._read.pop())]
