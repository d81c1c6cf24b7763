"""A load generator: N connections on loopback, each sending one request after another, and the latencies."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import cast

import uvloop


@dataclass(frozen=True, slots=True)
class Load:
    """What a run showed: requests a second in all, and the latency of one request in milliseconds."""

    per_second: float
    median_ms: float
    p99_ms: float
    failed: int
    answered: int


def request(path: str, body: bytes, content_type: str = "application/json", accept: str = "*/*", verb: str = "POST") -> bytes:
    """The bytes of one keep-alive request."""
    head = (
        f"{verb} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nAccept: {accept}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """Sends `message`, waits for the whole reply, and again, until told to stop."""

    def __init__(self, message: bytes, latencies: list[float], until: float) -> None:
        self._message = message
        self._latencies = latencies
        self._until = until
        self._left = -1
        self._head = b""
        self._start = 0.0
        self.failed = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class
        self._send()

    def _send(self) -> None:
        self._start = time.perf_counter()
        self._head = b""
        self._left = -1
        self._transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._head[:end].lower()
            if not head.startswith(b"http/1.1 200"):
                self.failed += 1
            at = head.index(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            self._left = length - (len(self._head) - end - 4)
        else:
            self._left -= len(data)
        if self._left <= 0:
            now = time.perf_counter()
            self._latencies.append(now - self._start)
            if now < self._until:
                self._send()
            else:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _run(port: int, message: bytes, clients: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    start = time.perf_counter()
    protocols = [
        (await loop.create_connection(lambda: _Connection(message, latencies, start + seconds), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]
    await asyncio.gather(*(protocol.done for protocol in protocols))
    spent = time.perf_counter() - start
    ordered = sorted(latencies)
    return Load(
        len(ordered) / spent,
        1e3 * statistics.median(ordered),
        1e3 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        sum(protocol.failed for protocol in protocols),
        len(ordered),
    )


def run(port: int, message: bytes, clients: int, seconds: float) -> Load:
    """`clients` connections for `seconds`, from this process."""
    return uvloop.run(_run(port, message, clients, seconds))
