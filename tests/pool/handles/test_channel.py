"""Channels on the event loop that the server uses: what the other side has said before its death is heard, and so is its death."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest
import uvloop

from app.pool.frames import HEADER_BYTES, Frame, Kind, Reader, encode
from app.pool.handles.channel import Channel
from tests.waiting import HANG_S

LOOPS: Final[dict[str, Callable[[Coroutine[Any, Any, None]], None]]] = {"uvloop": uvloop.run, "asyncio": asyncio.run}


class Heard:
    """What a channel has said."""

    def __init__(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.frames: list[Frame] = []
        self.losses = 0
        self.lost = loop.create_future()
        self.channel = Channel(loop, connection, self.frames.append, self._on_lost)

    def _on_lost(self) -> None:
        self.losses += 1
        if not self.lost.done():
            self.lost.set_result(None)


def large_pair() -> tuple[socket.socket, socket.socket]:
    front_end, worker_end = socket.socketpair()
    for end in (front_end, worker_end):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    return front_end, worker_end


def send(connection: socket.socket, *sizes: int) -> None:
    for number, size in enumerate(sizes):
        connection.sendall(b"".join(encode(Kind.REPLY, number, body=[b"r" * size])))


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize(
    "sizes",
    [
        (0,),
        (1000,),
        (233_152 - HEADER_BYTES,),  # what a worker had sent when a front of the first version lost it
        (60_000, 60_000, 60_000),  # small ones, more than one reading takes
        (1000,) * 300,
        (2_500_000,),  # more than one turn
        (3, 1_500_000, 3, 700_000),
    ],
    ids=str,
)
def test_a_peer_that_dies_with_unread_input_is_heard_to_its_end(
    run: Callable[[Coroutine[Any, Any, None]], None], sizes: tuple[int, ...]
) -> None:
    async def scene() -> None:
        front_end, worker_end = large_pair()
        front_end.sendall(b"x" * 1000)
        send(worker_end, *sizes)
        worker_end.close()
        heard = Heard(front_end)
        await asyncio.wait_for(heard.lost, HANG_S)
        assert [len(frame.body) for frame in heard.frames] == list(sizes)
        assert heard.losses == 1

    run(scene())


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_a_reply_cut_off_by_its_senders_death_is_no_reply(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scene() -> None:
        front_end, worker_end = large_pair()
        front_end.sendall(b"x" * 1000)
        send(worker_end, 500)
        worker_end.sendall(b"".join(encode(Kind.REPLY, 7, body=[b"r" * 300_000]))[:233_152])
        worker_end.close()
        heard = Heard(front_end)
        await asyncio.wait_for(heard.lost, HANG_S)
        assert [frame.number for frame in heard.frames] == [0]

    run(scene())


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_draining_needs_no_event_and_ends_although_another_process_holds_the_other_end(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def scene() -> None:
        front_end, worker_end = large_pair()
        heard = Heard(front_end)
        send(worker_end, 1000, 200_000, 1_500_000)
        with worker_end:
            heard.channel.drain()
        assert [len(frame.body) for frame in heard.frames] == [1000, 200_000, 1_500_000]
        assert heard.losses == 1
        heard.channel.drain()
        await asyncio.sleep(0)
        assert heard.losses == 1

    run(scene())


def test_a_peer_that_lives_is_heard_in_turns_and_others_in_between() -> None:
    async def scene() -> None:
        front_end, worker_end = large_pair()
        other_front_end, other_worker_end = socket.socketpair()
        heard, other = Heard(front_end), Heard(other_front_end)
        send(worker_end, *(60_000,) * 40)
        send(other_worker_end, 10)
        while not other.frames:
            await asyncio.sleep(0)
        assert len(heard.frames) < 40
        while len(heard.frames) < 40:
            await asyncio.sleep(0)
        for connection in (worker_end, other_worker_end):
            connection.close()
        await asyncio.wait_for(asyncio.gather(heard.lost, other.lost), HANG_S)

    uvloop.run(scene())


@pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)
def test_what_is_sent_one_by_one_or_together_arrives_in_order(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Where each was answered before the next they go at once, and several of one turn together; large ones wait for the socket."""

    async def scene() -> None:
        front_end, worker_end = socket.socketpair()
        heard = Heard(front_end)
        reader = Reader()
        number = 0
        for count in [*[1] * 20, 5, *[1] * 12, 3, 1, 1]:
            sizes = [0, 5_000, 500_000, 40][: 1 + count % 4] * count
            for size in sizes:
                heard.channel.send(encode(Kind.QUERY, number, body=[b"q" * size]))
                number += 1
            received: list[Frame] = []
            worker_end.setblocking(False)
            while len(received) < len(sizes):
                await asyncio.sleep(0)
                with contextlib.suppress(BlockingIOError):
                    received += reader.received(worker_end.recv_into(reader.buffer()))
            assert [frame.number for frame in received] == list(range(number - len(sizes), number))
            assert [len(frame.body) for frame in received] == sizes
            worker_end.setblocking(True)
            answered = len(heard.frames) + 1
            send(worker_end, 10)
            while len(heard.frames) < answered:
                await asyncio.sleep(0)
        heard.channel.close()
        worker_end.close()

    run(scene())
