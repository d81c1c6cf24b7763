"""Large bodies through the slabs of real workers: right under kills and pressure, and out of other workers' reach."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import orjson
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from tests.pool.queries import metric
from tests.pool.test_pool import wait_until_idle
from tests.processes import workers
from tests.server import Server, serving
from tests.waiting import wait_for

SAFETENSORS: Final = "application/vnd.safetensors"
HEADERS: Final = {"Content-Type": SAFETENSORS, "Accept": SAFETENSORS}
MEBI: Final = 1 << 20


def body(x: NDArray[np.float32]) -> bytes:
    """A query whose reply is as large as it: x + x and the derivative, which is twice the cotangent."""
    query = {"program": "return x + x", "want": ["outputs", "vjp"]}
    tensors = {"inputs.x": x, "cotangent.output": x}
    return safetensors.numpy.save(tensors, metadata={"query": orjson.dumps(query).decode()})


def numbers(seed: int, size: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def check(reply: httpx.Response, x: NDArray[np.float32]) -> None:
    assert reply.status_code == 200, reply.text[:500]
    answer = safetensors.numpy.load(reply.content)
    assert {name: value.tobytes() for name, value in answer.items()} == {
        name: (x + x).tobytes() for name in ("outputs.output", "vjp.x")
    }


def slabs_of(pid: int) -> set[int]:
    """The inodes of the slabs that a process has mapped, and of those that it has open."""
    mapped = {int(line.split()[4]) for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "pullback-slab" in line}
    opened = set()
    for link in list(Path(f"/proc/{pid}/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if "pullback-slab" in os.readlink(link):
                opened.add(link.stat().st_ino)
    return mapped | opened


def test_a_worker_can_reach_its_own_slab_alone(pair: Server) -> None:
    wait_until_idle(pair)
    wait_for(lambda: len(workers(pair.process.pid)) == 2)
    front = slabs_of(pair.process.pid)
    owners = {pid: slabs_of(pid) for pid in workers(pair.process.pid)}
    assert [len(own) for own in owners.values()] == [1, 1]
    assert set.union(*owners.values()) == front
    for pid in owners:
        os.kill(pid, signal.SIGKILL)
    x = numbers(0, 50_000)
    check(pair.http.post("/v1/query", content=body(x), headers=HEADERS), x)
    wait_for(lambda: len(set(workers(pair.process.pid)) - set(owners)) == 2)
    # What the dead have left is nobody's.
    new = [slabs_of(pid) for pid in workers(pair.process.pid)]
    assert not set.union(*new) & front
    wait_for(lambda: slabs_of(pair.process.pid) == set.union(*new))


def test_none_is_lost_and_none_is_wrong_when_workers_die(pair: Server) -> None:
    assert_all_are_right_under_kills(pair)


def test_what_a_single_worker_has_in_advance_is_asked_again_when_it_dies(tmp_path: Path) -> None:
    with serving(tmp_path / "log.txt", PULLBACK_WORKERS="1") as single:
        assert_all_are_right_under_kills(single)


def assert_all_are_right_under_kills(server: Server) -> None:
    done = threading.Event()
    answered = [0] * 4

    def ask(seed: int) -> None:
        with httpx.Client(base_url=server.url, timeout=290) as http:
            while not done.is_set():
                x = numbers(seed * 1000 + answered[seed], 400_000)
                check(http.post("/v1/query", content=body(x), headers=HEADERS), x)
                answered[seed] += 1

    with ThreadPoolExecutor(4) as clients:
        running = [clients.submit(ask, seed) for seed in range(4)]
        try:
            for _ in range(4):
                # No query is there for two kills, which would be its guilt: each client has asked another since.
                before = list(answered)
                wait_for(
                    lambda: (
                        all(now >= then + 2 for now, then in zip(answered, before, strict=True))  # noqa: B023 - waited for here
                        or any(each.done() for each in running)
                    )
                )
                os.kill(workers(server.process.pid)[0], signal.SIGKILL)
        finally:
            done.set()
        for each in running:
            each.result()


def held_reply(server: Server, content: bytes) -> socket.socket:
    """A client that has asked and does not take its reply."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    head = f"POST /v1/query HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {SAFETENSORS}\r\nAccept: {SAFETENSORS}\r\n"
    client.sendall(head.encode() + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return client


def test_where_slabs_are_full_bodies_take_the_other_way(pair: Server) -> None:
    x = numbers(1, 1_500_000)
    content = body(x)
    # Ten replies of 12 MB, which their clients do not take: more than both workers' slabs hold.
    clients = [held_reply(pair, content) for _ in range(10)]
    try:
        for client in clients:
            assert client.recv(1) == b"H"  # its reply has begun
        for seed in range(3):
            y = numbers(seed, 1_500_000)
            check(pair.http.post("/v1/query", content=body(y), headers=HEADERS), y)
        for client in clients:
            head, _, answer = (b"H" + received(client)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert safetensors.numpy.load(answer)["vjp.x"].tobytes() == (x + x).tobytes()
    finally:
        for client in clients:
            client.close()


def received(client: socket.socket) -> bytes:
    """The rest of one reply."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(1 << 16)
    head, _, rest = data.partition(b"\r\n\r\n")
    size = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")).split(b":")[1])
    pieces = [data]
    left = size - len(rest)
    while left:
        pieces.append(client.recv(min(left, MEBI)))
        left -= len(pieces[-1])
    return b"".join(pieces)


@pytest.mark.parametrize("size", [10, 16_000, 16_400, 2_000_000, 3_500_000])
def test_every_size_goes_there_and_back(pair: Server, size: int) -> None:
    x = numbers(size, size)
    for _ in range(2):
        check(pair.http.post("/v1/query", content=body(x), headers=HEADERS), x)


def test_a_body_takes_no_room_while_its_reply_is_being_taken(pair: Server) -> None:
    query = {"program": "return x[:1500000] + 1.0", "want": ["outputs"]}
    content = safetensors.numpy.save({"inputs.x": numbers(1, 3_500_000)}, metadata={"query": orjson.dumps(query).decode()})
    with held_reply(pair, content) as client:
        assert client.recv(1) == b"H"  # its reply has begun
        wait_for(lambda: metric(pair.http, "pullback_queue_bytes") < len(content))
        assert (b"H" + received(client)).startswith(b"HTTP/1.1 200")
