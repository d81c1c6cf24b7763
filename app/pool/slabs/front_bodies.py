"""The front's side of one worker's slab: made before the worker is forked, used once it has mapped it, at rest while it is idle."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from app.pool.frames import LARGE_BYTES, Buffer, Frame, Kind, encode
from app.pool.slabs import slab
from app.pool.slabs.slab import Slab
from app.pool.slabs.staged import StagedBody

# Without large bodies for so long, the slab's pages go back to the system: 1.3 ms of page faults a MiB at the next one (measured).
_REST_AFTER_S: Final = 10.0


class FrontBodies:
    """The bodies to and from one worker that stand in its slab; where there is none, they all go over the socket.

    Arguments:
        size: of the slab, in bytes; 0 = none.
        send: sends a frame's buffers to the worker.
        is_busy: whether the worker holds queries.

    Attributes:
        is_shared: the worker has mapped it.
    """

    def __init__(self, size: int, send: Callable[[Sequence[Buffer]], None], is_busy: Callable[[], bool]) -> None:
        self.is_shared = False
        self._send = send
        self._is_busy = is_busy
        self._unsaid: list[Buffer] = []  # frames that say which replies have been read
        self._slab: Slab | None = None
        self._descriptor: int | None = None
        self._used: float | None = None  # when last
        self._begun_at_end: int | None = None
        if size:
            with contextlib.suppress(OSError):
                self._descriptor = slab.create(size)
                self._slab = Slab(self._descriptor, size, is_front=True, on_read=self._read)

    @property
    def descriptors(self) -> list[int]:
        """The slab's, for the worker, until it is handed over."""
        return [] if self._descriptor is None or self._slab is None else [self._descriptor]

    def handed_over(self) -> None:
        """The worker has its descriptor, or will never have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def begun(self) -> int | None:
        """The number of the query that the worker began last, or 0; None where nobody knows. What it says at its end stays."""
        return self._slab.marked if self._slab is not None and self.is_shared else self._begun_at_end

    def drop(self) -> None:
        """The worker is dead: its slab goes as soon as nobody reads a reply in it any more."""
        self._begun_at_end = self.begun
        self.handed_over()
        slab, self._slab = self._slab, None
        if slab is not None:
            slab.abandon()

    def put(self, body: Sequence[Buffer], size: int, now: float) -> bytes | None:
        """Where the worker reads a body of `size` bytes, in pieces, which is copied there if it does not stand there; None: it must be sent."""
        if not self.is_shared or self._slab is None or size < LARGE_BYTES:
            return None
        self._used = now
        return body.sent() if isinstance(body, StagedBody) and body.stands_in(self._slab) else self._slab.put(body, size)

    def stage(self, size: int, come: Sequence[Buffer] = ()) -> StagedBody | None:
        """A span for a body of `size` bytes that is still coming, whose first pieces have `come`; None where there is none."""
        if not self.is_shared or self._slab is None or size < LARGE_BYTES:
            return None
        taken = self._slab.take(size, come)
        return None if taken is None else StagedBody(self._slab, *taken)

    @property
    def staged_count(self) -> int:
        """Bodies on their way to the worker, or read there."""
        return 0 if self._slab is None else self._slab.taken_count

    def has(self, body: Sequence[Buffer]) -> bool:
        """A body stands there already."""
        return isinstance(body, StagedBody) and body.stands_in(self._slab)

    def opened(self, frame: Frame) -> Frame | None:
        """As `Slab.opened`; the frame as it is where there is no slab."""
        if frame.kind is Kind.PLACED_REPLY:
            self._used = time.monotonic()
        return frame if self._slab is None else self._slab.opened(frame)

    def rest(self, now: float) -> None:
        """Called now and then while the worker holds no query, and so writes nothing."""
        is_due = self._used is not None and now - self._used > _REST_AFTER_S
        if is_due and self._slab is not None and self._slab.rest():
            self._used = None

    def read(self) -> list[Buffer]:
        """Frames that tell the worker which replies have been read since it was last told, to be sent before its next query."""
        unsaid, self._unsaid = self._unsaid, []
        return unsaid

    def _read(self, begin: int) -> None:
        # One that rests would be woken for nothing: it needs the span when it answers again.
        if self._is_busy():
            self._send(encode(Kind.FREED, begin))
        else:
            self._unsaid += encode(Kind.FREED, begin)
