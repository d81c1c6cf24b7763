"""Greedy clients: each asks, on many connections at once, for what holds the workers or the front for longest."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.synchronize import Event
from typing import Any, Final

import numpy as np
import orjson
import safetensors.numpy

ADDRESS: Final = "127.0.0.7"
JSON: Final = "application/json"
SAFETENSORS: Final = "application/vnd.safetensors"
# Whoever floods a server is on another machine: here it must not take the cores that the server computes on.
_NICE: Final = 10
# The largest body that a server with a gigabyte takes by itself; the others take more.
_LARGE_BYTES: Final = 12_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a greedy client."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": JSON})
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Greedy:
    """A client with so many connections, each of which asks what comes next; one that does not read never takes its replies."""

    name: str
    connections: int
    asks: Callable[[], Iterator[Asked]]
    reads: bool = True


def _json(query: Any, path: str = "/v1/query") -> Asked:
    return Asked(path, orjson.dumps(query))


def eigenvalues(size: int, x: float) -> dict[str, Any]:
    """About size³ / 2e9 seconds in one native call."""
    text = f"a = sin(arange({size * size}) * x).reshape({size}, {size})\nreturn linalg.eigvals(a).real.sum()"
    return {"program": text, "inputs": {"x": x}, "timeout_s": 20}


def _each_another(size: int) -> Callable[[], Iterator[Asked]]:
    return lambda: (_json(eigenvalues(size, number * 1e-6)) for number in count(1))


def _always(make: Callable[[], Asked]) -> Callable[[], Iterator[Asked]]:
    def asks() -> Iterator[Asked]:
        asked = make()
        while True:
            yield asked

    return asks


def _large_operation() -> Asked:
    size = int((_LARGE_BYTES / 8) ** 0.5)
    matrix = np.random.default_rng(0).standard_normal((size, size))
    query = {"operation": "linalg.eigvals", "want": ["outputs"]}
    return Asked(
        "/v1/query",
        safetensors.numpy.save({"inputs.input": matrix}, {"query": orjson.dumps(query).decode()}),
        {"Content-Type": SAFETENSORS},
    )


def _jacobian() -> Asked:
    """A reply of 8 MB as base64."""
    query = {
        "operation": "softmax", "parameters": {"dim": 0}, "want": ["jacobian"], "encoding": "base64",
        "inputs": {"input": np.linspace(0, 1, 900).tolist()},
    }  # fmt: skip
    return _json(query)


def _report(kind: str) -> Callable[[], Iterator[Asked]]:
    """`explain`, `check` or `precision` of a program of some hundred steps, never the same twice."""

    def asks() -> Iterator[Asked]:
        for number in count():
            lines = [f"x = sin(x @ a) + {number + 1} * exp(-x * x) / (1 + {step})" for step in range(100)]
            program = "\n".join([*lines, "return x.sum()"])
            yield _json({"program": program, "want": [kind], "inputs": {"x": [0.1] * 12, "a": [[0.1] * 12] * 12}})

    return asks


def _plans() -> Iterator[Asked]:
    """Hundreds of lines that take longer to plan than to compute."""
    for number in count():
        lines = [f"x = x * {1 + number / 1e6} + sin(x[{step % 3}])" for step in range(350)]
        yield _json({"program": "\n".join([*lines, "return x.sum()"]), "want": ["gradient"], "inputs": {"x": [0.1, 0.2, 0.3]}})


def _list_of_long() -> Iterator[Asked]:
    for number in count():
        yield _json([eigenvalues(3000, number + index * 1e-6) for index in range(200)], "/v1/queries")


def _list_of_many() -> Asked:
    small = {"operation": "exp", "inputs": {"input": [0.5]}, "want": ["vjp"]}
    return _json([small] * 1000, "/v1/queries")


def _open_inference() -> Iterator[Asked]:
    for number in count(1):
        query = eigenvalues(3000, number * 1e-6)
        tensor = {"name": "x", "shape": [], "datatype": "FP64", "data": [query["inputs"]["x"]]}
        body = {
            "inputs": [tensor],
            "outputs": [{"name": "output"}],
            "parameters": {"program": query["program"], "timeout": 20_000_000},
        }
        yield _json(body, "/v2/models/program/infer")


def _tesseract() -> Asked:
    matrix = np.random.default_rng(0).standard_normal((40, 40)).tolist()
    return _json(
        {"inputs": {"input": matrix}, "jac_inputs": ["input"], "jac_outputs": ["output"]}, "/tesseract/linalg.inv/jacobian"
    )


def _numbers() -> bytes:
    values = np.random.default_rng(0).standard_normal(_LARGE_BYTES // 20).tolist()
    query = {"program": "return (x * cos(x)).sum()", "inputs": {"x": values}, "want": ["gradient"]}
    return orjson.dumps(query)


def _compressed_numbers() -> Asked:
    return Asked("/v1/query", gzip.compress(_numbers(), 1), {"Content-Type": JSON, "Content-Encoding": "gzip"})


def _bomb() -> Asked:
    return Asked(
        "/v1/query",
        gzip.compress(b'{"operation": "exp"' + b" " * (_LARGE_BYTES - 1000) + b"}", 9),
        {"Content-Type": JSON, "Content-Encoding": "gzip"},
    )


def _large_reply() -> Asked:
    return _json({"program": "return zeros(1000000) + x", "inputs": {"x": 1.0}, "encoding": "base64"})


def _wide_safetensors() -> Asked:
    """A thousand tensors in one file."""
    header = {
        f"inputs.x{index}": {"dtype": "F64", "shape": [], "data_offsets": [8 * index, 8 * index + 8]} for index in range(1000)
    }
    header["__metadata__"] = {"query": '{"operation": "exp"}'}
    text = orjson.dumps(header)
    return Asked("/v1/query", struct.pack("<Q", len(text)) + text + bytes(8000), {"Content-Type": SAFETENSORS})


def _pages() -> Iterator[Asked]:
    while True:
        for path in (
            "/v1/operations?search=matrix",
            "/v1/operations",
            "/metrics",
            "/openapi.json",
            "/v1/operations/nn.functional.conv2d",
        ):
            yield Asked(path, b"", method="GET")


CLIENTS: Final = (
    Greedy("long programs, each another", 24, _each_another(4000)),
    Greedy("long programs, the same", 24, _always(lambda: _json(eigenvalues(4000, 1.0)))),
    Greedy("programs of a tenth of a second", 48, _each_another(500)),
    Greedy("an operation on a large matrix", 8, _always(_large_operation)),
    Greedy("Jacobians of many megabytes", 16, _always(_jacobian)),
    Greedy("explain", 24, _report("explain")),
    Greedy("check", 24, _report("check")),
    Greedy("precision", 24, _report("precision")),
    Greedy("programs that are long to plan", 24, _plans),
    Greedy("lists of long programs", 4, _list_of_long),
    Greedy("lists of a thousand", 4, _always(_list_of_many)),
    Greedy("Open Inference Protocol", 24, _open_inference),
    Greedy("Tesseract", 24, _always(_tesseract)),
    Greedy("numbers as JSON, 12 MB", 12, _always(lambda: Asked("/v1/query", _numbers()))),
    Greedy("the same, gzip", 12, _always(_compressed_numbers)),
    Greedy("white space, gzip", 24, _always(_bomb)),
    Greedy("a thousand tensors", 24, _always(_wide_safetensors)),
    Greedy("replies of 10 MB that nobody reads", 24, _always(_large_reply), reads=False),
    Greedy("pages", 64, _pages),
)  # fmt: skip


def message(asked: Asked) -> bytes:
    """The request as bytes."""
    lines = [f"{asked.method} {asked.path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(asked.body)}"]
    lines += [f"{name}: {value}" for name, value in asked.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + asked.body


async def _connection(port: int, requests: Iterator[bytes], has_begun: Event, *, reads: bool) -> None:
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0), limit=1 << 20)
            try:
                while True:
                    writer.write(next(requests))
                    await writer.drain()
                    has_begun.set()
                    if not reads:
                        await asyncio.sleep(3600)
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    left = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                    while left:
                        left -= len(await reader.read(min(left, 1 << 20)) or b" " * left)
            finally:
                writer.close()
        await asyncio.sleep(0.05)


def flood(port: int, index: int, has_begun: Event) -> None:
    """Be client `index` of the table until killed; to be run in a process of its own. `has_begun` is set with the first request."""
    os.nice(_NICE)
    client = CLIENTS[index]
    requests = map(message, client.asks())

    async def ask_all() -> None:
        await asyncio.gather(*(_connection(port, requests, has_begun, reads=client.reads) for _ in range(client.connections)))

    asyncio.run(ask_all())
