"""`python -m benchmarks containers`: in control groups of 1, 2 and 4 GiB, ten of the largest bodies at once, and a small query beside them."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import http.client
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import orjson
import safetensors.numpy

from benchmarks import servers
from benchmarks.fairness import greedy
from benchmarks.fairness.run import small

GIBIBYTE: Final = 1 << 30
_COUNT: Final = 10
_ALLOWED: Final = frozenset({200, 413, 429, 507})
# What a small query may take beside them.
_SOON_S: Final = 1.0
_PAUSE_S: Final = 0.25
_REPLY_LIMIT_S: Final = 300.0
# Where cgroup v1 and v2 keep groups of memory, the file of the limit, and the one that counts kills.
_PLACES: Final = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.events"),
)

Sent = tuple[str, bytes, dict[str, str]]


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[tuple[Path, Path]]:
    """A new group with this limit and its count of kills. Raises OSError where none can be made."""
    place = next((place for place in _PLACES if (place[0] / "cgroup.procs").exists()), None)
    if place is None:
        raise OSError("there are no control groups of memory here")
    parent, limit, kills = place
    group = parent / f"pullback-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    try:
        (group / limit).write_text(str(limit_bytes))
        yield group, group / kills
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


def _padded(limit: int, head: bytes, item: bytes, tail: bytes) -> bytes:
    return head + item * ((limit - len(head) - len(tail) - len(item)) // len(item)) + item.rstrip(b",") + tail


def _zeros(limit: int) -> Sent:
    """Of which JSON text holds the most numbers."""
    return (
        "/v1/query",
        _padded(limit, b'{"operation": "exp", "want": ["outputs", "vjp"], "inputs": {"input": [', b"0,", b"]}}"),
        {},
    )


def _numbers(limit: int) -> Sent:
    values = np.random.default_rng(0).standard_normal(limit // 21).tolist()
    query = {"program": "return (x * cos(x)).sum()", "inputs": {"x": values}, "want": ["gradient"]}
    return "/v1/query", orjson.dumps(query)[:limit], {}


def _compressed(limit: int) -> Sent:
    path, body, _ = _zeros(limit)
    return path, gzip.compress(body, 1), {"Content-Encoding": "gzip"}


def _file(limit: int) -> Sent:
    x = np.random.default_rng(0).standard_normal((limit - 1000) // 16)
    query = orjson.dumps({"operation": "tanh", "want": ["outputs", "vjp"]}).decode()
    body = safetensors.numpy.save({"inputs.input": x, "cotangent.output": x}, {"query": query})
    return "/v1/query", body, {"Content-Type": greedy.SAFETENSORS, "Accept": greedy.SAFETENSORS}


def _list_of_small(limit: int) -> Sent:
    item = b'{"operation": "exp", "inputs": {"input": [0.5]}},'
    return "/v1/queries", _padded(min(limit, 1000 * len(item)), b"[", item, b"]"), {}


def _list_of_large(limit: int) -> Sent:
    _, body, _ = _zeros(limit // 4)
    return "/v1/queries", b"[" + b",".join([body] * 3) + b"]", {}


def _compressed_list(limit: int) -> Sent:
    path, body, _ = _list_of_large(limit)
    return path, gzip.compress(body, 1), {"Content-Encoding": "gzip"}


KINDS: Final[dict[str, Callable[[int], Sent]]] = {
    "zeros as JSON": _zeros,
    "numbers as JSON": _numbers,
    "zeros as JSON, gzip": _compressed,
    "safetensors": _file,
    "a list of 1,000 small queries": _list_of_small,
    "a list of large queries": _list_of_large,
    "the same, gzip": _compressed_list,
}


def _ask(port: int, sent: Sent) -> int:
    path, body, headers = sent
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REPLY_LIMIT_S, source_address=(greedy.ADDRESS, 0))
    try:
        connection.request("POST", path, body, {"Content-Type": greedy.JSON, **headers})
        reply = connection.getresponse()
        while reply.read(1 << 20):
            pass
    finally:
        connection.close()
    return reply.status


def _beside(port: int, sent: Sent) -> tuple[Counter[int], list[tuple[float, int]], float]:
    """Statuses of the ten, the small queries beside them, and seconds until the last of the ten."""
    taken: list[tuple[float, int]] = []
    is_over = threading.Event()

    def ask_small() -> None:
        while not is_over.is_set():
            taken.append(small(port))
            time.sleep(_PAUSE_S)

    start = time.monotonic()
    with ThreadPoolExecutor(_COUNT + 1) as clients:
        asked = [clients.submit(_ask, port, sent) for _ in range(_COUNT)]
        clients.submit(ask_small)
        try:
            statuses = Counter(each.result() for each in asked)
        finally:
            is_over.set()
    return statuses, taken, time.monotonic() - start


def crowd(limit_bytes: int, workers: int, only: str) -> bool:
    """Try every kind in a group of so many bytes; True where nothing was wrong."""
    is_good = True
    with tempfile.TemporaryDirectory() as folder, memory_group(limit_bytes) as (group, kills):
        log = Path(folder) / "log.txt"
        with servers.logged_pullback(workers, log, group) as (port, _):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REPLY_LIMIT_S)
            connection.request("GET", "/v1/limits")
            limits = orjson.loads(connection.getresponse().read())
            connection.close()
            print(
                f"{limit_bytes / GIBIBYTE:g} GiB: workers {limits['workers']}, a body of {limits['body_bytes'] / 2**20:.0f} MiB, "
                f"{limits['queue_bytes'] / 2**20:.0f} MiB held",
                flush=True,
            )
            for name, make in KINDS.items():
                if only not in name:
                    continue
                statuses, taken, seconds = _beside(port, make(limits["body_bytes"]))
                longest, died = max(taken), log.read_text().count("a worker died")
                good = set(statuses) <= _ALLOWED and {status for _, status in taken} == {200}
                is_good = is_good and bool(good) and longest[0] <= _SOON_S and not died
                slowest = " ".join(f"{each:.2f}" for each, _ in sorted(taken)[-4:])
                others = sorted({status for _, status in taken})
                print(
                    f"    ten of {name}: {dict(sorted(statuses.items()))} in {seconds:.1f} s; {len(taken)} small queries beside them, "
                    f"statuses {others}, the slowest {slowest} s; workers that died: {died}",
                    flush=True,
                )
            counted = [line for line in kills.read_text().splitlines() if line.startswith("oom_kill ")]
            print(f"    kills by the kernel: {' '.join(counted) or 'unknown'}", flush=True)
    return is_good


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks containers", description=__doc__)
    parser.add_argument("--gib", type=float, nargs="*", default=[1, 2, 4], help="limits of memory")
    parser.add_argument("--workers", type=int, default=0, help="worker processes; 0 = as many as the server takes by itself")
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    asked = parser.parse_args(arguments)
    results = [crowd(int(gib * GIBIBYTE), asked.workers, asked.only) for gib in asked.gib]
    return 0 if all(results) else 1
