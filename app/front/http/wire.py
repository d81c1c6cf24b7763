"""The wire: what a request can do with its own connection beyond ASGI: reply in one write, and receive a large body in place.

Handed to the application in the request's scope; where another server runs the application it is not there, and ASGI serves as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from app.pool.frames import Buffer

# The key of a request's wire in its scope.
WIRE: Final = "pullback.wire"


class Wire(Protocol):
    """One request's connection."""

    @property
    def awaits_continue(self) -> bool:
        """The client holds its body back until it is told to go on; answered otherwise, it will never send it."""

    async def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Buffer) -> None:
        """Send a whole response with one system call, where ASGI's two messages would take two and wake the client twice."""

    async def receive_into(self, memory: memoryview, take: Callable[[int], None]) -> bool:
        """Receive the rest of a body of known length into `memory`, which it fills; False where the client hung up before.

        `take` is told how many bytes have come, each time; what it raises ends the upload and is raised here.
        """
