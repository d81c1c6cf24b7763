"""What small queries cost in processor time, in the front and in the workers; and what the first query of a new shape takes beside a cached one."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks import load
from benchmarks.protocols import cpu_s, family

Line = Callable[[str, str, str], None]
ROUNDS: Final = 5
_SHAPES: Final = 24
_OPERATIONS: Final = ("exp", "sinh", "erf", "atan", "log1p", "expm1", "sigmoid", "rsqrt")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one query, in microseconds of processor time."""

    front: float
    workers: float


def softmax(length: int) -> bytes:
    """A VJP of softmax, as JSON."""
    x = [0.1 * i + 0.01 for i in range(length)]
    query = {
        "operation": "softmax",
        "inputs": {"input": x},
        "parameters": {"dim": 0},
        "want": ["vjp"],
        "cotangent": {"output": x},
    }
    return orjson.dumps(query)


def cost(port: int, pid: int, message: bytes, clients: int, seconds: float) -> Cost:
    """The least of some rounds, by the processes' own clocks: what else runs on the machine only adds to them."""
    costs = []
    for _ in range(ROUNDS):
        before = cpu_s(pid)
        shown = load.run(port, message, clients, seconds)
        after = cpu_s(pid)
        count = max(1, shown.answered)
        spent = {one: 1e6 * (after[one] - before.get(one, 0.0)) / count for one in after}
        # The server's own process, and where there are several fronts these, its children.
        front = sum(spent.pop(one, 0.0) for one in (pid, *fronts(pid)))
        costs.append(Cost(front, sum(spent.values())))
    return min(costs, key=lambda c: c.front + c.workers)


def fronts(pid: int) -> list[int]:
    """The processes that speak HTTP, where the server's own does not: else its only child is the parent of the workers."""
    children = family(pid)[1:]
    return [one for one in children if b"app.pool.forkserver" not in Path(f"/proc/{one}/cmdline").read_bytes()]


def firsts(port: int, body: Callable[[Any], bytes], cases: Iterator[Any]) -> tuple[float, float]:
    """Milliseconds of one client: the median of a case's first query, and of its fourth."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    first, cached = [], []
    for case in cases:
        times = []
        for _ in range(4):
            start = time.perf_counter()
            connection.request("POST", "/v1/query", body(case))
            reply = connection.getresponse()
            answer = reply.read()
            times.append(1e3 * (time.perf_counter() - start))
            if reply.status != 200:
                raise RuntimeError(answer.decode(errors="replace"))
        first.append(times[0])
        cached.append(times[-1])
    connection.close()
    return statistics.median(first), statistics.median(cached)


def run(port: int, pid: int, seconds: float, line: Line) -> None:
    """Prints a line for each; `pid`: the server's first process, which is its front."""
    message = load.request("/v1/query", softmax(10))
    for clients in (1, 16, 64):
        spent = cost(port, pid, message, clients, seconds / ROUNDS)
        whole = spent.front + spent.workers
        line(
            f"processor time of a small query, {clients} clients",
            f"{whole:.0f} µs",
            f"front {spent.front:.0f} µs, workers {spent.workers:.0f} µs",
        )
    first, cached = firsts(port, softmax, iter(range(11, 11 + _SHAPES)))
    line(
        "first query of a new shape (softmax, VJP), one client",
        f"{first:.2f} ms",
        f"cached {cached:.2f} ms: {first - cached:+.2f} ms",
    )
    first, cached = firsts(
        port,
        lambda name: orjson.dumps({"operation": name, "inputs": {"input": [0.5, 0.25]}, "want": ["vjp"]}),
        iter(_OPERATIONS),
    )
    line(
        "first query of a new operation (VJP), one client",
        f"{first:.2f} ms",
        f"cached {cached:.2f} ms: {first - cached:+.2f} ms",
    )
