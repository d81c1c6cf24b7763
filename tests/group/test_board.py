"""The board: what fronts know of one another, in two processes."""

from __future__ import annotations

import os
import subprocess
import sys

from app.front.membership import Membership
from app.group.board import Board, Column
from app.group.messages import line
from tests.server import clean_environment

# A lock is one process's, so that another is needed to try it; a fork of this one, with its threads, would be none to rely on.
TWO_WRITERS = """
import os, sys
from app.group.board import Board
board = Board(1)
reading, writing = os.pipe()
long = b"x" * 60_000 + b"\\n"
children = []
for _ in range(3):
    if not (child := os.fork()):
        for _ in range(5):
            with board.writing():
                rest = memoryview(long)
                while rest:
                    rest = rest[os.write(writing, rest):]
        os._exit(0)
    children.append(child)
os.close(writing)
with os.fdopen(reading, "rb") as pipe:
    lines = pipe.read().splitlines(keepends=True)
sys.exit(lines != [long] * 15)
"""


def test_a_front_reads_what_others_have() -> None:
    board = Board(3)
    ends = [line() for _ in range(3)]
    members = [Membership(index, board, front_line) for index, (front_line, _) in enumerate(ends)]
    for waiting, member in enumerate(members, 1):
        member.tell_waiting(waiting)
    assert [member.waiting_elsewhere for member in members] == [5, 4, 3]
    board.clear(2)
    assert [member.waiting_elsewhere for member in members] == [2, 1, 3]
    assert board.get(2, Column.WAITING) == 0
    for front_line, parent_line in ends:
        front_line.close()
        parent_line.close()


def test_lines_of_several_processes_stay_whole() -> None:
    done = subprocess.run([sys.executable, "-c", TWO_WRITERS], env=clean_environment(), timeout=280, check=False)
    assert done.returncode == 0


def test_a_line_is_dropped_where_nobody_reads() -> None:
    board = Board(1)
    reading, writing = os.pipe()
    try:
        assert board.write(writing, b"said\n", 1.0)
        assert os.read(reading, 100) == b"said\n"
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writing, True)
        assert not board.write(writing, b"not said\n", 1.0)
    finally:
        os.close(reading)
        os.close(writing)
