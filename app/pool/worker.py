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
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn
from weakref import WeakKeyDictionary

import orjson

from app.errors import LostDeviceError
from app.limits import NAME_LIMIT
from app.machine.memory_budget import Machine
from app.pool import linux
from app.pool.frames import BrokenStreamError, Buffer, Frame, Kind, NoMemoryError, Reader, encode
from app.pool.refusals import body_without_memory
from app.pool.slabs.worker_bodies import WorkerBodies
from app.pool.worker_slots import WorkerSlot, limits, worker_slots
from app.settings import Settings

if TYPE_CHECKING:
    from app.road import Reply, Road, TakenApart

_PIECES_LIMIT: Final = 512  # buffers in one sendmsg; the system's IOV_MAX is 1024
# How long a reply waits for those behind it, that one system call and one wake-up of the front send them all, and how long the socket
# is not looked at while queries wait: a call costs 5 to 20 µs, as much as a small query; a millisecond is nothing to a client.
_PATIENCE_S: Final = 0.001
_HELD_BYTES: Final = 64 << 10  # of replies that wait, as large as a small query's body: what is more is worth its own call
_STACK_LEFT_S: Final = 0.1  # until the deadline of a query that is computed with others: a stack takes a hundredth of it
_IMPROVED_AFTER: Final = 64  # answers: then a step of improving is made although others wait
_HEADINGS_LIMIT: Final = 256  # what is asked besides bodies: a handful for each client program; some 500 bytes each
_ENDPOINT: Final = (
    b',"endpoint":'  # begins what is asked, behind the request's id (job.py); within a JSON string its quotes are escaped
)


class _Heading(NamedTuple):
    """What is asked besides the body: the fields of a Request, and what takes such bodies apart, where they can be."""

    fields: Mapping[str, Any]
    take_apart: Callable[[Buffer], TakenApart | None] | None


class Worker:
    """The loop. It returns when the front hangs up."""

    def __init__(self, connection: socket.socket, road: Road, bodies: WorkerBodies | None = None) -> None:
        # The road imports torch, and this module is read before the forkserver has settled its threads.
        from app.road import Request

        self._request = Request
        self._connection = connection
        self._road = road
        self._reader = Reader()
        self._bodies = bodies or WorkerBodies(None, 0)
        self._waiting: deque[Frame] = deque()
        self._looked_at: dict[int, TakenApart | None] = {}  # queries that wait and are taken apart already, by number
        self._headings: dict[bytes, _Heading] = {}
        self._metas: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()  # of recipes that are kept
        self._held: list[Buffer] = []  # replies to be sent with those that follow
        self._held_since = 0.0
        self._held_bytes = 0
        self._answered = 0
        self._settling: Iterator[bool] = iter(())
        self._came = 0  # frames to be answered that came at once, the last time
        # On a single core whoever waits busily only keeps the front from sending.
        self._wait = linux.AdaptiveWait(connection) if Machine.here().cores > 1 else None
        self._looked = 0.0  # when all that had come was last read

    def settle(self) -> None:
        """Begin as a process just forked: what it has of its parent is made its own while nothing is asked."""
        self._settling = self._road.settle()

    def run(self) -> None:
        """Answer frames until the front closes its end or this process has to be replaced."""
        self._send(self._ready())
        while self._take():
            frame = self._waiting.popleft()
            if frame.kind is Kind.PROBE:
                self._send(self._ready())
            elif frame.kind is Kind.REHEARSE:
                if self._rehearse(frame):
                    return
            elif frame.seconds < time.monotonic():
                self._looked_at.pop(frame.number, None)
                self._send(encode(Kind.DROPPED, frame.number))
            elif self._answer(frame):
                return
            del frame  # its body's place is used again when nothing refers to it any more
            if self._held_bytes > _HELD_BYTES or time.monotonic() - self._held_since > _PATIENCE_S:
                self.flush()
            self._answered += 1
            if self._answered % _IMPROVED_AFTER == 0 and self._waiting:
                self._road.improve()

    def _answer(self, frame: Frame) -> bool:
        """Compute and reply; True where the road asks for this worker to be replaced."""
        self._bodies.begin(frame.number)
        parts = self._taken_apart(frame)
        if self._waiting and parts is not None and parts.prepared is not None and parts.prepared.recipe.joint.fewest:
            return self._answer_together([(frame, parts), *self._waiting_like(frame, parts)])
        return self._answer_alone(frame, parts)

    def _answer_together(self, alike: Sequence[tuple[Frame, TakenApart]]) -> bool:
        """Answer the first, and of the others, which wait, as many as take less time together than one by one; True as `_answer`."""
        prepared = alike[0][1].prepared
        if prepared is None:
            return self._answer_alone(*alike[0])
        alike = alike[: prepared.recipe.stacks.best(len(alike))]
        for frame, _ in alike[1:]:
            self._waiting.remove(frame)
            self._looked_at.pop(frame.number, None)
        repetitions = [parts.repetition for _, parts in alike]
        replies = self._road.repeated_together(prepared, repetitions) if len(alike) > 1 else [None]
        for (frame, parts), reply in zip(alike, replies, strict=True):
            if reply is not None:
                self._hold_repeated(frame.number, prepared, reply)
            elif self._answer_alone(frame, parts):
                return True
        return False

    def _waiting_like(self, first: Frame, parts: TakenApart) -> list[tuple[Frame, TakenApart]]:
        """Those that wait with queries of the same signature, of which none may be late when all are done."""
        until = time.monotonic() + _STACK_LEFT_S
        alike: list[tuple[Frame, TakenApart]] = []
        if first.seconds < until:
            return alike
        for frame in self._waiting:
            if frame.kind is Kind.QUERY and frame.seconds > until:
                if frame.number not in self._looked_at:
                    self._looked_at[frame.number] = self._taken_apart(frame)
                other = self._looked_at[frame.number]
                if other is not None and other.prepared is parts.prepared:
                    alike.append((frame, other))
        return alike

    def _taken_apart(self, frame: Frame) -> TakenApart | None:
        """The query taken apart, once; None where the whole road reads it."""
        if frame.number in self._looked_at:
            return self._looked_at.pop(frame.number)
        take_apart = self._heading(frame.meta).take_apart
        return None if take_apart is None else take_apart(frame.body)

    def _answer_alone(self, frame: Frame, parts: TakenApart | None) -> bool:
        """By its recipe, else by the whole road; True as `_answer`."""
        self._bodies.begin(frame.number)
        if parts is not None and self._repeat(frame.number, parts):
            return False
        self.flush()
        heading = self._heading(frame.meta)
        request = self._request(**heading.fields, request_id=_request_id(frame.meta), body=memoryview(frame.body))
        announce = lambda seconds: self._send(encode(Kind.DEADLINE, frame.number, seconds=seconds))  # noqa: E731
        reply = self._road.whole(request, announce, parts)
        meta, body = _encoded(reply, parted=request.endpoint == "split")
        self._send(self._bodies.reply(frame.number, meta, body, self._receive_all))
        return reply.retire

    def _heading(self, meta: bytes) -> _Heading:
        start = meta.find(_ENDPOINT)
        asked = meta if start < 0 else meta[start:]
        heading = self._headings.get(asked)
        if heading is None:
            fields = orjson.loads(meta)
            del fields["request_id"]
            request = self._request(**fields, request_id="", body=memoryview(b""))
            if len(self._headings) >= _HEADINGS_LIMIT:
                self._headings.clear()
            heading = self._headings[asked] = _Heading(fields, self._road.taking_apart(request))
        return heading

    def _repeat(self, number: int, parts: TakenApart) -> bool:
        """Answer by a recipe; False where the whole road has to."""
        prepared = parts.prepared
        if prepared is None:
            return False
        if not prepared.recipe.is_brief:
            self.flush()
        reply = self._road.repeated(prepared, parts.repetition)
        if reply is None:
            return False
        self._hold_repeated(number, prepared, reply)
        return True

    def _hold_repeated(self, number: int, prepared: object, reply: Reply) -> None:
        meta = self._metas.get(prepared)
        if meta is None:
            meta = self._metas[prepared] = orjson.dumps(_meta(reply) | {"timings": {}})[:-2]
        meta = b'%b"compute":%.7f,"encode":%.7f}}' % (meta, reply.timings["compute"], reply.timings["encode"])
        self._hold(self._bodies.reply(number, meta, reply.buffers, self._receive_all))

    def _hold(self, buffers: Sequence[Buffer]) -> None:
        """Send them with what follows, where more waits to be answered and will be soon."""
        if not self._held:
            self._held_since = time.monotonic()
        self._held += buffers
        self._held_bytes += sum(map(len, buffers))

    def flush(self) -> None:
        """Send the replies that wait for others."""
        read = self._bodies.read()
        if self._held or read:
            held, self._held, self._held_bytes = self._held, [], 0
            send_all(self._connection, [*read, *held])

    def _rehearse(self, frame: Frame) -> bool:
        """Compute for what is learnt by it; True as for an answer."""
        self.flush()
        request = self._request(**orjson.loads(frame.meta), body=memoryview(frame.body))
        retire = self._road.answer(request, lambda _: None).retire
        if not retire:  # else the front would give a process that ends its next query
            self._send(encode(Kind.REHEARSED))
        return retire

    def _ready(self) -> list[Buffer]:
        return encode(Kind.READY, meta=orjson.dumps({"probe": self._road.probe(), "slab": self._bodies.is_mapped}))

    def _take(self) -> bool:
        """Wait until a frame is there. Before a frame that came earlier is begun, read what has come since: it may be cancelled.

        False: the front has hung up.
        """
        if self._waiting and time.monotonic() - self._looked > _PATIENCE_S:
            self._receive_all()
            self._looked = time.monotonic()
        while not self._waiting:
            self.flush()
            self._bodies.settle()
            self.flush()
            if not self._receive_or_improve():
                return False
            self._looked = time.monotonic()
        return True

    def _receive_all(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._receive(socket.MSG_DONTWAIT):
                pass

    def _receive_or_improve(self) -> int:
        """Wait for more; while nothing has come the road makes its later answers cheaper."""
        while not self._reader.is_amid_body and (next(self._settling, False) or self._road.improve()):
            try:
                return self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
        # Where several came at once it is throughput that counts.
        if self._wait is None or self._came > 1 or self._reader.is_amid_body:
            return self._receive()
        return self._wait.wait(self._receive)

    def _receive(self, flags: int = 0) -> int:
        if not flags and self._reader.is_amid_body:
            flags = socket.MSG_WAITALL  # one wake-up for the whole body instead of one for each of its pieces
        count = self._connection.recv_into(self._reader.buffer(), 0, flags)
        if count == 0:
            return 0
        self._came = 0
        for frame in self._reader.received(count):
            if frame.kind is Kind.CANCEL:
                self._cancel(frame.number)
            elif (opened := self._bodies.opened(frame)) is not None:
                self._waiting.append(opened)
                self._came += 1
        return count

    def _cancel(self, number: int) -> None:
        for frame in self._waiting:
            if frame.number == number and frame.kind is Kind.QUERY:
                self._looked_at.pop(number, None)
                self._waiting.remove(frame)
                self._send(encode(Kind.DROPPED, number))
                return

    def _send(self, buffers: Sequence[Buffer]) -> None:
        send_all(self._connection, buffers)

    def refuse(self, lack: NoMemoryError) -> None:
        """Answer the frame that found no memory; the stream is lost with it, so this process must end."""
        self.flush()
        error = body_without_memory(lack.size)
        request = self._request(**orjson.loads(lack.meta), body=memoryview(b""))
        meta, body = _encoded(self._road.refused(error, request, retire=True), parted=False)
        self._send(encode(Kind.REPLY, lack.number, meta=meta, body=body))


def send_all(connection: socket.socket, buffers: Sequence[Buffer]) -> None:
    """Send every buffer on a blocking socket, however many there are."""
    pending = deque(buffers)
    while pending:
        sent = connection.sendmsg(list(islice(pending, _PIECES_LIMIT)))
        while pending and sent >= len(pending[0]):
            sent -= len(pending.popleft())
        if sent:
            pending[0] = memoryview(pending[0])[sent:]


def _encoded(reply: Reply, parted: bool) -> tuple[bytes, list[Buffer]]:
    """A reply's meta and body. `parted`: the pieces matter, so their sizes, as little-endian u64, stand before them."""
    body: list[Buffer] = [memoryview(piece).cast("B") for piece in reply.buffers]
    meta = _meta(reply)
    if parted and reply.status == HTTPStatus.OK:
        meta["pieces"] = len(body)
        body.insert(0, struct.pack(f"<{len(body)}Q", *map(len, body)))
    return orjson.dumps(meta), body


def _meta(reply: Reply) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "status": reply.status,
        "media_type": reply.media_type,
        # Some are the client's words.
        "labels": {name: value[:NAME_LIMIT] for name, value in reply.labels.items()},
        "retire": reply.retire,
    }
    if reply.first:
        meta["first"] = True
    if reply.headers:
        meta["headers"] = reply.headers
    meta["timings"] = reply.timings
    return meta


def _request_id(meta: bytes) -> str:
    name: str = orjson.loads(meta)["request_id"]
    return name


def work(connection: socket.socket, road: Callable[[], Road], slot: WorkerSlot, slab: int | None) -> NoReturn:
    """Become a worker at `slot`, in a process just forked from the forkserver, with the road that `road` gives; never returns.

    `slab`: descriptor of the memory that it shares with the front, if it does.
    """
    status = 1
    try:
        # Mapped before there is a bound on what this process may map, so that it does not count against it.
        bodies = WorkerBodies(slab, slot.slab_bytes)
        _settle(slot)
        worker = Worker(connection, road(), bodies)
        if slot.device == "cpu":
            worker.settle()
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


def _settle(slot: WorkerSlot) -> None:
    import torch

    linux.volunteer_for_oom()
    # Of what concerns the client; what matters becomes a note.
    warnings.simplefilter("ignore")
    torch.set_num_threads(slot.threads)
    if slot.device.startswith("cuda"):
        torch.cuda.set_device(slot.device)
        if slot.memory_bytes:
            # Of PyTorch's allocator: what goes beyond is refused as out of memory. An address space cannot be limited: CUDA maps the
            # memory of every GPU into it.
            total = torch.cuda.get_device_properties(slot.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, slot.memory_bytes / total), slot.device)
    else:
        linux.limit_address_space(slot.memory_bytes)


def answer_alone(body: bytes, settings: Settings) -> tuple[int, bytes]:
    """Answer one JSON query in this very process, without a pool: HTTP status and body."""
    from app.road import Request, Road

    slot = worker_slots(settings, ())[0]
    request = Request("query", "here", None, None, None, memoryview(body))
    reply = Road(limits(settings, slot), "cpu", settings.functions_folder, settings.batching).answer(request, lambda _: None)
    return reply.status, b"".join(reply.buffers)
