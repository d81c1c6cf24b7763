"""The wire: what a request can do with its own connection beyond ASGI: reply in one write, and receive a large body in place.

Handed to the application in the request's scope; where another server runs the application it is not there, and ASGI serves as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from app.pool.frames import Buffer

# The key of a request's wire in its scope.
WIRE: Final = "pullback.wire"


class Wire(Protocol):
    """One request's connection."""

    def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Buffer) -> None:
        """Send a whole response with one system call, where ASGI's two messages would take two and wake the client twice."""

    async def receive_into(self, memory: memoryview) -> bool:
        """Receive the rest of a body of known length into `memory`, which it fills; False where the client hung up before."""
