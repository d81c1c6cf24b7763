"""A front's membership in a group of several: its share of the service, and its line to their parent."""

from __future__ import annotations

import asyncio
import socket
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import count
from typing import Final, Protocol

from app.errors import ServiceError
from app.front.connection_limit import Admission, Connections, Member
from app.group.board import Board, Column
from app.group.counts import Counts
from app.group.messages import Line, Message
from app.group.shared_budget import SharedByteBudget
from app.pool.budget import ByteBudget
from app.pool.share import Share

# The parent answers at the latest when it has given up one of the others, after a second.
_GATHERING_LIMIT_S: Final = 3.0
# No worker rehearses more often (app/pool/pool.py); what is not told, others learn when it comes.
_LESSONS_EVERY_S: Final = 0.01
_MESSAGES_AT_ONCE: Final = 16  # then the event loop has its turn; connections come so


class Conduct(Protocol):
    """What the parent may ask of a front."""

    def take(self, connection: socket.socket) -> None:
        """A client's connection."""

    def drain(self) -> None:
        """Finish what is in flight and refuse what is new."""

    def end(self, *, at_once: bool) -> None:
        """End; `at_once`: without waiting for what is in flight."""

    def quarantine(self, mark: str, size: int) -> None:
        """A query has cost two workers of another front."""

    def learn(self, asked: bytes, meta: bytes, body: bytes) -> None:
        """A worker of another front had to learn for a query, as `Rehearsal.learn` has it."""

    def forget(self, mark: bytes) -> None:
        """A worker of another front has died of a lesson, as `Rehearsal.forget` has it."""

    def counts(self) -> Counts:
        """What has been counted here."""


class Membership(Share):
    """One front's. The line is heard once `listen` was called."""

    def __init__(self, index: int, board: Board, line: Line) -> None:
        self.index = index
        self.count = board.rows
        self._board = board
        self._line = line
        self._others_ready = 0
        self._is_ready = False
        self._lesson_sent = 0.0
        self._conduct: Conduct | None = None
        self._numbers = count(1)
        self._gathering: dict[int, asyncio.Future[Counts]] = {}

    # Its share

    def budget(self, limit_bytes: int) -> ByteBudget:
        return SharedByteBudget(limit_bytes, self._board, self.index)

    @property
    def waiting_elsewhere(self) -> int:
        return self._board.elsewhere(self.index, Column.WAITING)

    def tell_waiting(self, count: int) -> None:
        self._board.set(self.index, Column.WAITING, count)

    def tell_quarantined(self, mark: str, size: int) -> None:
        self._line.say("quarantined", mark=mark, size=size)

    def tell_lesson(self, asked: bytes, meta: bytes, body: bytes) -> None:
        now = time.monotonic()
        if now - self._lesson_sent > _LESSONS_EVERY_S:
            self._lesson_sent = now
            self._line.say("lesson", asked=asked.decode(), meta=meta.decode(), body=b64encode(body).decode())

    def tell_deadly_lesson(self, mark: bytes) -> None:
        self._line.say("deadly lesson", mark=mark.hex())

    @property
    def is_ready_elsewhere(self) -> bool:
        return self._others_ready > 0

    async def of_all(self, counts: Counts) -> Mapping[str, float]:
        """As `Share`; this front's own where the parent does not answer."""
        number = next(self._numbers)
        answer = self._gathering[number] = asyncio.get_running_loop().create_future()
        try:
            if not self._line.say("gather", number=number, counts=counts):
                return counts
            return await asyncio.wait_for(answer, _GATHERING_LIMIT_S)
        except TimeoutError:
            return counts
        finally:
            del self._gathering[number]

    def writing(self) -> AbstractContextManager[None]:
        """Held while something is written that other fronts write to as well."""
        return self._board.writing()

    def connections(self, limit: int) -> Connections:
        """Its connections, counted where the parent sees it."""
        return _CountedConnections(limit, self._board, self.index)

    # Its line

    def listen(self, loop: asyncio.AbstractEventLoop, conduct: Conduct) -> None:
        """From now on connections come."""
        self._conduct = conduct
        loop.add_reader(self._line.fileno(), self._hear, conduct)
        self._line.say("up")

    def beat(self, *, ready: bool) -> None:
        """A turn of the server's clock: this front is not stuck, and is ready or not."""
        self._board.set(self.index, Column.BEATS, self._board.get(self.index, Column.BEATS) + 1)
        if ready != self._is_ready and self._line.say("ready", ready=ready):
            self._is_ready = ready

    def tell_counts(self, counts: Counts) -> None:
        """So that they are not lost with this front."""
        self._line.say("counts", counts=counts)

    def tell_drained(self) -> bool:
        return self._line.say("drained")

    def tell_failure(self, failure: ServiceError) -> None:
        self._line.say("failed", reason=str(failure), status=failure.exit_status)

    def tell_taken(self) -> None:
        """The parent need not keep the next of the connections that it has handed over."""
        self._line.say("taken")

    def lost(self) -> None:
        """A connection was closed before it could be counted."""
        self._board.set(self.index, Column.JOINED, self._board.get(self.index, Column.JOINED) + 1)
        self.tell_taken()

    def _hear(self, conduct: Conduct) -> None:
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                message = self._line.heard()
            except BlockingIOError:
                return
            if message is None:
                # Without its parent it is killed; where the system has no such comfort, it ends by itself.
                asyncio.get_running_loop().remove_reader(self._line.fileno())
                conduct.end(at_once=True)
                return
            self._heard(message, conduct)

    def _heard(self, message: Message, conduct: Conduct) -> None:
        match message["say"]:
            case "connection":
                if message.connection is None:
                    self.lost()
                else:
                    conduct.take(message.connection)
            case "ready":
                self._others_ready = message["others"]
            case "quarantined":
                conduct.quarantine(message["mark"], message["size"])
            case "lesson":
                conduct.learn(message["asked"].encode(), message["meta"].encode(), b64decode(message["body"]))
            case "deadly lesson":
                conduct.forget(bytes.fromhex(message["mark"]))
            case "count":
                self._line.say("counts", number=message["number"], counts=conduct.counts())
            case "counts":
                answer = self._gathering.get(message["number"])
                if answer is not None and not answer.done():
                    answer.set_result(message["counts"])
            case "drain":
                conduct.drain()
            case "end" | "kill":
                conduct.end(at_once=message["say"] == "kill")


class _CountedConnections(Connections):
    """As Connections, with their number on the board."""

    def __init__(self, limit: int, board: Board, row: int) -> None:
        super().__init__(limit)
        self._board = board
        self._row = row

    def join(self, member: Member) -> Admission:
        admission = super().join(member)
        self._board.set(self._row, Column.JOINED, self._board.get(self._row, Column.JOINED) + 1)
        self._board.set(self._row, Column.OPEN, len(self))
        return admission

    def part(self, member: Member) -> None:
        super().part(member)
        self._board.set(self._row, Column.OPEN, len(self))
