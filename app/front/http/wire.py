"""The wire: what a request can do with its own connection beyond ASGI: reply in one write, and receive a large body in place.

Handed to the application in the request's scope; where another server runs the application it is not there, and ASGI serves as well.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol, TypeVar

from starlette.types import Scope, Send

from app.front.http.receiver import SCRATCH_BYTES, Upload
from app.pool.frames import Buffer

# Bodies that come with their head are not larger: all that is read at once.
SMALL_BODY_BYTES: Final = SCRATCH_BYTES
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

    def start(self, upload: Upload) -> bool:
        """Have the rest of a body received, from now on; False: no more of it can come. Who waits to be told to send it is told."""

    async def receive(self, upload: Upload) -> bool:
        """Receive the rest of a body; False: the client hung up.

        Raises:
            NoRoomError: it found no room.
        """

    def drop(self) -> None:
        """Let go of what `receive` has received, at once, and end it with NoRoomError."""


class DirectQuery(Protocol):
    """A request that is answered without a task of its own, and those that come under the same head, one after the other."""

    def again(self) -> None:
        """The next one begins, as this one has been answered."""

    def begin(self, body: bytes) -> bool:
        """Have it answered, as all of its body has come; False where nothing was begun, as it is to be answered as every other."""

    def receive(self, come: bytes, size: int) -> bool:
        """The same where only the first bytes have come, of `size`: have the rest received; then `received` is called."""

    def received(self) -> None:
        """All of the body has come."""

    def abandon(self) -> None:
        """The client has hung up."""


# Runs the rest of a request; `waits`: it may have to wait for the client to take the reply.
Run = Callable[[Coroutine[Any, Any, None], bool], None]


class DirectQueries(Protocol):
    """Answers queries whose bodies say their length."""

    def takes(self, scope: Scope) -> bool:
        """Whether it is for such requests."""

    def admit(self, scope: Scope, send: Send, run: Run) -> DirectQuery | None:
        """The query; None where the request is to be answered as every other, which will find what is wrong with it."""


class Crowd(Protocol[Member]):
    """The connections that are open."""

    def join(self, member: Member) -> str:
        """One more. `refused`: there is no place for it; `cut`: nor for a refusal."""

    def part(self, member: Member) -> None:
        """It is closed."""
