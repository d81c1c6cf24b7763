"""The bytes of bodies and replies that one of several fronts holds, against the limit of all of them."""

from __future__ import annotations

from app.group.board import Board, Column
from app.pool.budget import ByteBudget


class SharedByteBudget(ByteBudget):
    """As a ByteBudget; what others hold takes of the same room. Unfinished bodies give way to others of the same front alone."""

    __slots__ = ("_board", "_held", "_row")

    def __init__(self, limit_bytes: int, board: Board, row: int) -> None:
        self._board = board
        self._row = row
        super().__init__(limit_bytes)

    @property
    def held_bytes(self) -> int:
        return self._held

    @held_bytes.setter
    def held_bytes(self, count: int) -> None:
        self._held = count
        self._board.set(self._row, Column.HELD_BYTES, count)

    def _held_by_all(self) -> int:
        return self._held + self._board.elsewhere(self._row, Column.HELD_BYTES)
