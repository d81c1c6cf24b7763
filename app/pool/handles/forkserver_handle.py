"""A forkserver handle: the front's side of the forkserver process: its channel and its pings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import orjson

from app.pool.frames import Frame, Kind, encode
from app.pool.handles.channel import Channel
from app.pool.handles.forkserver_process import ForkserverProcess
from app.pool.worker_slots import WorkerSlot

# It imports PyTorch: 4 s of CPU time, and 31 to 42 s on two cores that eight others kept busy (measured); three times that.
START_LIMIT_S: Final = 120.0
# It answers a ping in microseconds, as it does nothing else; a machine that swaps may need a second.
_PING_LIMIT_S: Final = 4.0


class ForkserverHandle:
    """One forkserver process as the front sees it.

    Arguments:
        on_frame: called for each frame but its answers to pings.
        on_lost: called once when it is gone; not after `kill`.

    Attributes:
        is_warm: it has said that it can fork; whoever hears that sets it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        started: ForkserverProcess,
        on_frame: Callable[[Frame], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.is_warm = False
        self._on_frame = on_frame
        self._waits_since = started.since  # for its first word, then for its answer to a ping; 0 = for nothing
        self._process = started.process
        self._channel = Channel(loop, started.connection, self._received, on_lost)

    @property
    def is_lost(self) -> bool:
        """Nothing more comes from it."""
        return self._channel.closed

    def _received(self, frame: Frame) -> None:
        self._waits_since = 0.0
        if frame.kind is not Kind.PONG:
            self._on_frame(frame)

    def fork(self, number: int, slot: WorkerSlot, descriptors: Sequence[int]) -> None:
        """Have worker `number` forked. `descriptors`: its end of a socketpair, and its slab if it has one.

        Raises:
            OSError: it is gone, or does not listen.
        """
        self._channel.send_with(encode(Kind.FORK, number, meta=orjson.dumps(slot)), descriptors)

    def is_hung(self, now: float) -> bool:
        """It has not answered for too long. Asks it for a sign of life if none is out yet."""
        if self._waits_since:
            return now - self._waits_since > (_PING_LIMIT_S if self.is_warm else START_LIMIT_S)
        self._waits_since = now
        self._channel.send(encode(Kind.PING))
        return False

    def close(self) -> None:
        """Hang up, by which it ends."""
        self._channel.close()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> int:
        """End it at once; its exit status, which is its own where it had ended before."""
        self._channel.close()
        self._process.kill()
        return self._process.wait()
