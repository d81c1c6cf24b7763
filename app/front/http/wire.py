"""The wire: what a request can do with its own connection beyond ASGI: reply in one write, and receive a large body in place.

Handed to the application in the request's scope; where another server runs the application it is not there, and ASGI serves as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from app.pool.frames import Buffer

# The key of a request's wire in its scope.
WIRE: Final = "pullback.wire"


class NoRoomError(Exception):
    """There is no room for the rest of a body."""


class Wire(Protocol):
    """One request's connection."""

    @property
    def awaits_continue(self) -> bool:
        """The client holds its body back until it is told to go on; answered otherwise, it will never send it."""

    async def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Buffer, *, closes: bool) -> None:
        """Send a whole response with one system call, where ASGI's two messages would take two and wake the client twice.

        `closes`: it is the connection's last.
        """

    async def receive(self, size: int, allocate: Callable[[int], memoryview | None]) -> list[memoryview] | None:
        """Receive the rest of a body, `size` bytes, straight into pieces that `allocate` makes as it comes; None: the client hung up.

        Raises:
            NoRoomError: `allocate` gave none.
        """

    def drop(self) -> None:
        """Let go of what `receive` has received, at once, and end it with NoRoomError."""
