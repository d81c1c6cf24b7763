"""A front as its parent sees it: how many connections it has, and whether it hangs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from app.front.connection_limit import Connections
from app.front.membership import Membership
from app.group.board import Board
from app.group.counts import Counts
from app.group.front_process import FrontProcess
from app.group.messages import line
from tests.front.test_connection_limit import Member


@pytest.fixture
def pair() -> Iterator[tuple[FrontProcess, Membership]]:
    """The parent's and the front's own side of one front."""
    board = Board(2)
    parent_line, front_line = line()
    yield FrontProcess(1, 0, parent_line, board), Membership(1, board, front_line)
    parent_line.close()
    front_line.close()


def hand_over(front: FrontProcess, count: int) -> list[socket.socket]:
    """Connections' other ends."""
    ends = [socket.socketpair() for _ in range(count)]
    assert all(front.hand_over(server, is_counted=True) for _, server in ends)
    return [client for client, _ in ends]


def test_connections_that_a_dead_front_has_never_had_are_left_for_another(pair: tuple[FrontProcess, Membership]) -> None:
    front, membership = pair
    clients = hand_over(front, 4)
    connections: Connections = membership.connections(10)
    # It has two of them, and has said so of one.
    connections.join(Member("a"))
    connections.join(Member("b"))
    front.has_taken()
    left = front.left_behind()
    assert len(left) == 2
    for client, server in zip(clients[2:], left, strict=True):
        server.sendall(b"here")
        assert client.recv(4) == b"here"
    for end in (*clients, *left):
        end.close()


def test_connections_count_from_when_they_are_handed_over(pair: tuple[FrontProcess, Membership]) -> None:
    front, membership = pair
    connections: Connections = membership.connections(10)
    members = [Member("a"), Member("b")]
    clients = hand_over(front, 3)
    assert front.load == 3
    for member in members:
        connections.join(member)
    assert front.load == 3
    membership.lost()
    assert front.load == 2
    connections.part(members[0])
    connections.part(members[0])
    assert front.load == 1
    for end in (*clients, *front.left_behind()):
        end.close()


def test_a_front_whose_clock_stands_still_hangs(pair: tuple[FrontProcess, Membership]) -> None:
    front, membership = pair
    assert not any(front.looks_hung() for _ in range(100))  # it is not up yet
    front.is_up = True
    for _ in range(50):
        membership.beat(ready=True)
        assert not front.looks_hung()
    looks = next(look for look in range(1, 100) if front.looks_hung())
    assert looks > 10
    membership.beat(ready=True)
    assert not front.looks_hung()


class Hearing:
    """A front that keeps what it was told of lessons, and is asked for nothing else."""

    def __init__(self) -> None:
        self.forgotten: list[bytes] = []

    def forget(self, mark: bytes) -> None:
        self.forgotten.append(mark)

    def take(self, connection: socket.socket) -> None:
        raise AssertionError

    def drain(self) -> None:
        raise AssertionError

    def end(self, *, at_once: bool) -> None:
        raise AssertionError

    def quarantine(self, mark: str, size: int) -> None:
        raise AssertionError

    def learn(self, asked: bytes, meta: bytes, body: bytes) -> None:
        raise AssertionError

    def counts(self) -> Counts:
        raise AssertionError


def test_a_deadly_lesson_comes_from_one_front_to_another(pair: tuple[FrontProcess, Membership]) -> None:
    front, membership = pair
    mark = bytes(range(16))
    membership.tell_deadly_lesson(mark)
    message = front.line.heard()
    assert message is not None
    hearing = Hearing()

    async def hear() -> None:
        loop = asyncio.get_running_loop()
        membership.listen(loop, hearing)
        assert front.line.say(message.pop("say"), **message)
        while not hearing.forgotten:
            await asyncio.sleep(0)
        loop.remove_reader(membership._line.fileno())

    asyncio.run(asyncio.wait_for(hear(), 60))
    assert hearing.forgotten == [mark]
