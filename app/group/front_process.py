"""A front process as its parent sees it: its line, how it does, and how many connections it has."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Final

from app.group.board import Board, Column
from app.group.messages import Line
from app.pool import linux

# So many looks, a second apart, at a clock that turns ten times a second: what stands still for that long hangs. By looks and not by
# time, as a machine that stops us all stops also who looks.
_STILL_LOOKS: Final = 20


class FrontProcess:
    """One front.

    Attributes:
        index: its place; a replacement takes the same.
        is_up: it takes connections; `is_ready`: and one of its workers answers.
        is_drained: no query is in flight there, and it takes no new one.
        has_hung_up: nothing more comes from it.
        counts: what it has counted, as it said last.
        picked: when it was last handed a connection, as a running number.
    """

    def __init__(self, index: int, pid: int, line: Line, board: Board) -> None:
        self.index = index
        self.pid = pid
        self.line = line
        self.is_up = False
        self.is_ready = False
        self.is_drained = False
        self.has_hung_up = False
        self.counts: dict[str, float] = {}
        self.picked = 0
        self._board = board
        self._handed = 0
        self._on_their_way: deque[socket.socket] = deque()
        self._beats = 0
        self._still = 0
        self._is_reaped = False

    @property
    def load(self) -> int:
        """Connections that are open there, or on their way."""
        return self._board.get(self.index, Column.OPEN) + self._handed - self._board.get(self.index, Column.JOINED)

    def hand_over(self, connection: socket.socket, *, is_counted: bool) -> bool:
        """Give it a client's connection; False where it cannot take it. `is_counted`: the front says when it has it.

        Until then we keep it too, as a front may die with what is on its way to it.
        """
        if not self.line.hand_over(connection):
            return False
        if is_counted:
            self._handed += 1
            self._on_their_way.append(connection)
        else:
            connection.close()
        return True

    def has_taken(self) -> None:
        """It has the first of those that are on their way. As long as we have it too, it cannot be closed."""
        if self._on_their_way:
            self._on_their_way.popleft().close()

    def close(self) -> None:
        """It is dead, and nothing more is asked of it."""
        self.line.close()
        self._board.clear(self.index)

    def left_behind(self) -> list[socket.socket]:
        """Those that it has never had, and so has read nothing of, now that it is dead."""
        self.forget_taken()
        return list(self._on_their_way)

    def forget_taken(self) -> None:
        """Now and then: those that it has counted; a word of it may have been lost, and who is kept here is never closed for its client."""
        missing = max(0, self._handed - self._board.get(self.index, Column.JOINED))
        while len(self._on_their_way) > missing:
            self.has_taken()

    def forget_connections(self) -> None:
        """In another process, which has nothing to do with them."""
        while self._on_their_way:
            self.has_taken()

    def looks_hung(self) -> bool:
        """Asked once a second."""
        beats = self._board.get(self.index, Column.BEATS)
        self._still = self._still + 1 if self.is_up and beats == self._beats else 0
        self._beats = beats
        return self._still >= _STILL_LOOKS

    def kill(self) -> None:
        """At once; its workers end with it."""
        if not self._is_reaped:
            linux.kill(self.pid, None)

    def reaped(self) -> None:
        """It has ended; its number may be another process's now."""
        self._is_reaped = True


def reap() -> dict[int, int]:
    """Every child that has ended, those that we have from fronts that died included: pid → exit status, negative for a signal."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def has_children() -> bool:
    """Whether any process is left that we have to wait for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
