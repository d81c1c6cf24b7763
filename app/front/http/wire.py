"""The wire: what a request can do with its own connection beyond ASGI: reply in one write, and receive a large body in place.

Handed to the application in the request's scope; where another server runs the application it is not there, and ASGI serves as well.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol, TypeVar

from starlette.types import Scope, Send

from app.front.http.receiver import Upload
from app.pool.frames import Buffer

# Bodies that come with their head are not larger.
SMALL_BODY_BYTES: Final = 32 << 10
# The key of a request's wire in its scope.
WIRE: Final = "pullback.wire"
# That of its id, once it has one.
REQUEST_ID: Final = "pullback.request_id"

Member = TypeVar("Member", contravariant=True)


class NoRoomError(Exception):
    """There is no room for the rest of a body."""


class Wire(Protocol):
    """One request's connection."""

    @property
    def awaits_continue(self) -> bool:
        """The client holds its body back until it is told to go on; answered otherwise, it will never send it."""

    @property
    def is_free(self) -> bool:
        """The client has taken all that was sent before."""

    async def free(self) -> None:
        """Return when it is."""

    def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Buffer, *, closes: bool) -> None:
        """Send a whole response with one system call, where ASGI's two messages would take two and wake the client twice.

        `closes`: it is the connection's last.
        """

    async def receive(self, upload: Upload) -> bool:
        """Receive the rest of a body; False: the client hung up.

        Raises:
            NoRoomError: it found no room.
        """

    def drop(self) -> None:
        """Let go of what `receive` has received, at once, and end it with NoRoomError."""


class SmallQuery(Protocol):
    """A query that is answered without a task of its own."""

    def again(self, body: bytes) -> bool:
        """Begin the next query under the same head, when this one has been answered; False where nothing was begun."""

    def abandon(self) -> None:
        """The client has hung up."""


# Runs the rest of a request; `waits`: it may have to wait for the client to take the reply.
Run = Callable[[Coroutine[Any, Any, None], bool], None]


class SmallQueries(Protocol):
    """Answers queries whose whole body has come with their head."""

    def takes(self, scope: Scope) -> bool:
        """Whether it is for such requests."""

    def begin(self, scope: Scope, send: Send, body: bytes, run: Run) -> SmallQuery | None:
        """The query, begun; None where the request is to be answered as every other, which will find what is wrong with it."""


class Crowd(Protocol[Member]):
    """The connections that are open."""

    def join(self, member: Member) -> str:
        """One more. `refused`: there is no place for it; `cut`: nor for a refusal."""

    def part(self, member: Member) -> None:
        """It is closed."""
