"""What queries cost in processor time, in the front and in the workers; and what the first query of a new shape takes beside a cached one."""

from __future__ import annotations

import contextlib
import http.client
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks import load
from benchmarks.protocols import cpu_s

Line = Callable[[str, str, str], None]
ROUNDS: Final = 5
_SHAPES: Final = 24
_OPERATIONS: Final = ("exp", "sinh", "erf", "atan", "log1p", "expm1", "sigmoid", "rsqrt")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one query, in microseconds of processor time."""

    front: float
    workers: float

    @property
    def whole(self) -> float:
        return self.front + self.workers

    def __str__(self) -> str:
        return f"front {self.front:,.0f} µs, workers {self.workers:,.0f} µs"


class Clocks:
    """The processes' own clocks, from now on; what else runs on the machine only adds to them.

    Arguments:
        pid: the server's first process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = cpu_s(pid)

    def cost(self, count: int) -> Cost:
        """Of each of `count` queries since then."""
        spent = {True: 0.0, False: 0.0}
        for process, seconds in cpu_s(self._pid).items():
            spent[_computes(process)] += 1e6 * (seconds - self._before.get(process, 0.0)) / count
        return Cost(spent[False], spent[True])


def _computes(pid: int) -> bool:
    """It is a worker, or their parent: forked processes have their parent's command line."""
    with contextlib.suppress(OSError):  # it has ended
        return b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return True


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


def cost(port: int, pid: int, message: bytes, clients: int, seconds: float) -> tuple[Cost, load.Load]:
    """The least of some rounds, and what its load showed."""
    rounds = []
    for _ in range(ROUNDS):
        clocks = Clocks(pid)
        shown = load.run(port, message, clients, seconds)
        rounds.append((clocks.cost(max(1, shown.answered)), shown))
    return min(rounds, key=lambda entry: entry[0].whole)


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
    """Prints a line for each; `pid`: the server's first process."""
    message = load.request("/v1/query", softmax(10))
    for clients in (1, 16, 64):
        spent, shown = cost(port, pid, message, clients, seconds / ROUNDS)
        line(
            f"processor time of a small query, {clients} clients",
            f"{spent.whole:.0f} µs",
            f"{spent}; {shown.median_ms:.2f} ms {shown.per_second:,.0f}/s",
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
