"""A worker: the child's loop from a frame to a frame, on one thread, strictly in the order of arrival.

It computes what it is given; whoever waits for it kills it where it must not go on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn

import orjson

from app.errors import LostDeviceError
from app.limits import NAME_LIMIT
from app.pool import linux
from app.pool.frames import BrokenStreamError, Buffer, Frame, Kind, NoMemoryError, Reader, encode
from app.pool.refusals import body_without_memory
from app.pool.worker_slots import WorkerSlot, limits, places
from app.settings import Settings

if TYPE_CHECKING:
    from app.road import Reply, Road

_PIECES_LIMIT: Final = 512  # buffers in one sendmsg; the system's IOV_MAX is 1024


class Worker:
    """The loop. It returns when the front hangs up."""

    def __init__(self, connection: socket.socket, road: Road) -> None:
        # The road imports torch, and this module is read before the forkserver has settled its threads.
        from app.road import Request

        self._request = Request
        self._connection = connection
        self._road = road
        self._reader = Reader()
        self._waiting: deque[Frame] = deque()

    def run(self) -> None:
        """Answer frames until the front closes its end or this process has to be replaced."""
        self._send(self._ready())
        while self._take():
            frame = self._waiting.popleft()
            if frame.kind is Kind.PROBE:
                self._send(self._ready())
            elif frame.seconds < time.monotonic():
                self._send(encode(Kind.DROPPED, frame.number))
            elif self._answer(frame):
                return

    def _answer(self, frame: Frame) -> bool:
        """Compute and reply; True where the road asks for this worker to be replaced."""
        request = self._request(**orjson.loads(frame.meta), body=memoryview(frame.body))
        reply = self._road.answer(request, lambda seconds: self._announce(frame.number, seconds))
        self._send(_encoded(frame.number, reply, parted=request.endpoint == "split"))
        return reply.retire

    def _ready(self) -> list[Buffer]:
        return encode(Kind.READY, meta=orjson.dumps({"probe": self._road.probe()}))

    def _announce(self, number: int, seconds: float) -> None:
        self._send(encode(Kind.DEADLINE, number, seconds=seconds))

    def _take(self) -> bool:
        """Wait until a frame is there. Before a frame that came earlier is begun, read what has come since: it may be cancelled.

        False: the front has hung up.
        """
        if self._waiting:
            with contextlib.suppress(BlockingIOError):
                while self._receive(socket.MSG_DONTWAIT):
                    pass
        while not self._waiting:
            if not self._receive(0):
                return False
        return True

    def _receive(self, flags: int) -> int:
        if not flags and self._reader.is_amid_body:
            flags = socket.MSG_WAITALL  # one wake-up for the whole body instead of one for each of its pieces
        count = self._connection.recv_into(self._reader.buffer(), 0, flags)
        if count == 0:
            return 0
        for frame in self._reader.received(count):
            if frame.kind is Kind.CANCEL:
                self._cancel(frame.number)
            else:
                self._waiting.append(frame)
        return count

    def _cancel(self, number: int) -> None:
        for frame in self._waiting:
            if frame.number == number and frame.kind is Kind.QUERY:
                self._waiting.remove(frame)
                self._send(encode(Kind.DROPPED, number))
                return

    def _send(self, buffers: Sequence[Buffer]) -> None:
        send_all(self._connection, buffers)

    def refuse(self, lack: NoMemoryError) -> None:
        """Answer the frame that found no memory; the stream is lost with it, so this process must end."""
        error = body_without_memory(lack.size)
        request = self._request(**orjson.loads(lack.meta), body=memoryview(b""))
        self._send(_encoded(lack.number, self._road.refused(error, request, retire=True), parted=False))


def send_all(connection: socket.socket, buffers: Sequence[Buffer]) -> None:
    """Send every buffer on a blocking socket, however many there are."""
    pending = deque(buffers)
    while pending:
        sent = connection.sendmsg(list(islice(pending, _PIECES_LIMIT)))
        while pending and sent >= len(pending[0]):
            sent -= len(pending.popleft())
        if sent:
            pending[0] = memoryview(pending[0])[sent:]


def _encoded(number: int, reply: Reply, parted: bool) -> list[Buffer]:
    """The reply as a frame. `parted`: the pieces matter, so their sizes, as little-endian u64, stand before them."""
    body: list[Buffer] = [memoryview(piece).cast("B") for piece in reply.buffers]
    meta: dict[str, Any] = {
        "status": reply.status,
        "media_type": reply.media_type,
        "timings": reply.timings,
        # Some are the client's words.
        "labels": {name: value[:NAME_LIMIT] for name, value in reply.labels.items()},
        "retire": reply.retire,
    }
    if reply.headers:
        meta["headers"] = reply.headers
    if parted and reply.status == HTTPStatus.OK:
        meta["pieces"] = len(body)
        body.insert(0, struct.pack(f"<{len(body)}Q", *map(len, body)))
    return encode(Kind.REPLY, number, meta=orjson.dumps(meta), body=body)


def work(connection: socket.socket, road: Callable[[], Road], place: WorkerSlot) -> NoReturn:
    """Become a worker at `place`, in a process just forked from the forkserver, with the road that `road` gives; never returns."""
    status = 1
    try:
        _settle(place)
        worker = Worker(connection, road())
        try:
            worker.run()
        except NoMemoryError as lack:
            worker.refuse(lack)
        status = 0
    except (BrokenStreamError, ConnectionError):
        # The front is gone or does not speak our frames: there is no one left to answer.
        status = 0
    except LostDeviceError as error:
        # The end of a crash, so that the pool judges it as one: what was asked is asked again, and of two such ends it is guilty.
        sys.stderr.write(f"pullback: {error}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _settle(place: WorkerSlot) -> None:
    import torch

    linux.volunteer_for_oom()
    # Of what concerns the client; what matters becomes a note.
    warnings.simplefilter("ignore")
    torch.set_num_threads(place.threads)
    if place.device.startswith("cuda"):
        torch.cuda.set_device(place.device)
        if place.memory_bytes:
            # Of PyTorch's allocator: what goes beyond is refused as out of memory. An address space cannot be limited: CUDA maps the
            # memory of every GPU into it.
            total = torch.cuda.get_device_properties(place.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, place.memory_bytes / total), place.device)
    else:
        linux.limit_address_space(place.memory_bytes)


def answer_alone(body: bytes, settings: Settings) -> tuple[int, bytes]:
    """Answer one JSON query in this very process, without a pool: HTTP status and body."""
    from app.road import Request, Road

    place = places(settings, ())[0]
    request = Request("query", "here", None, None, None, memoryview(body))
    reply = Road(limits(settings, place), "cpu", settings.functions_folder).answer(request, lambda _: None)
    return reply.status, b"".join(reply.buffers)
