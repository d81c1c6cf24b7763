"""One run: each greedy client in its turn, and beside it ten small queries of another client; the longest of the ten is what counts."""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

from benchmarks import servers
from benchmarks.fairness import greedy

_SMALL: Final = orjson.dumps(
    {"operation": "softmax", "inputs": {"input": [0.1, 0.2, 0.3]}, "parameters": {"dim": 0}, "want": ["vjp"]}
)
_ADDRESS: Final = "127.0.0.9"
_COUNT: Final = 10
# What a small query may take beside anybody.
SOON_S: Final = 0.5
_PAUSE_S: Final = 0.2
# The greedy client imports and builds its bodies first.
_BEGIN_LIMIT_S: Final = 30.0
_LIMIT_S: Final = 60.0


def small(port: int) -> tuple[float, int]:
    """Seconds and status of one small query on a connection of its own."""
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT_S, source_address=(_ADDRESS, 0))
    try:
        connection.request("POST", "/v1/query", _SMALL, {"Content-Type": greedy.JSON})
        reply = connection.getresponse()
        reply.read()
    finally:
        connection.close()
    return time.monotonic() - start, reply.status


def beside(index: int, workers: int) -> list[tuple[float, int]]:
    """Ten small queries beside greedy client `index`, on a server of its own."""
    with tempfile.TemporaryDirectory() as folder, servers.logged_pullback(workers, Path(folder) / "log.txt") as (port, _):
        small(port)
        context = multiprocessing.get_context("spawn")
        has_begun = context.Event()
        process = context.Process(target=greedy.flood, args=(port, index, has_begun), daemon=True)
        process.start()
        try:
            if not has_begun.wait(_BEGIN_LIMIT_S):
                raise RuntimeError("the greedy client does not begin")
            taken = []
            for _ in range(_COUNT):
                taken.append(small(port))
                time.sleep(_PAUSE_S)
        finally:
            process.kill()
            process.join()
    return taken


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fairness", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=[2, 1], help="worker processes of the servers")
    parser.add_argument("--only", default="", help="greedy clients whose name holds this")
    asked = parser.parse_args(arguments)
    is_fair = True
    for workers in asked.workers:
        for index, client in enumerate(greedy.CLIENTS):
            if asked.only not in client.name:
                continue
            taken = beside(index, workers)
            longest = max(seconds for seconds, _ in taken)
            soon = sum(status == 200 and seconds <= SOON_S for seconds, status in taken)
            is_fair = is_fair and soon == _COUNT
            print(
                f"{workers} workers; {client.name}: {soon} of {_COUNT} small queries within {SOON_S:g} s, the longest {longest:.3f} s; "
                + " ".join(f"{1e3 * seconds:.0f}" + ("" if status == 200 else f"({status})") for seconds, status in taken),
                flush=True,
            )
    return 0 if is_fair else 1
