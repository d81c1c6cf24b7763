"""One soak: the server, its clients for so many seconds, and the report."""

from __future__ import annotations

import argparse
import http.client
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
import orjson
import torch

from benchmarks import servers
from benchmarks.soak import good, hostile, watch

# A good query of the mix takes milliseconds; none waits for so long unless something is wrong.
LATE_S: Final = 2.0
_END_LIMIT_S: Final = 60.0
_REPLY_LIMIT_S: Final = 60.0
_LOOK_EVERY_S: Final = 1.0
# Connections of clients that left take a moment to be closed at the other end, and the light worker goes after four idle seconds.
_SETTLE_S: Final = 15.0
_GOOD_BYTES: Final = 250_000_000
# Of what else runs on the machine, beyond which times say nothing.
_OTHERS_SHARE: Final = 0.1
_NUMBERS: Final = count(1)
# 24 clients without a pause wait for one another whatever the machine, as each asks again at once. With this one they ask some twenty
# times a second, for 10 ms of CPU a good query and a second or two a hostile one of six: half of what two cores can do, clients included.
_PAUSE_S: Final = 1.0


@dataclass(slots=True)
class Outcome:
    """What the clients saw. `lost`: without any reply; `late`: good ones that took over `LATE_S` seconds, which are right all the same.

    `killed_twice`: queries that the killer has hit in two workers, one after the other.
    """

    answered: int = 0
    hostile: int = 0
    killed_twice: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    late: list[str] = field(default_factory=list)
    late_requests: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Ending:
    """What was left: descriptors more than before the load, processes after the end, names in shared memory; the kills.

    `shares`: of the machine's CPU time, by whose it was. `late`: what the server's log says of the late queries.
    """

    kills: int
    descriptors: int
    processes: int
    shared_memory: int
    exit_status: int
    shares: Mapping[str, float]
    late: str


class Client(threading.Thread):
    """One client, at an address of its own: a query after the other, until `until`; one in `1 / share` is another's, a hostile one's.

    `killer`: who kills workers beside it.
    """

    def __init__(
        self,
        number: int,
        port: int,
        cases: Sequence[tuple[float, good.Good]],
        share: float,
        pause_s: float,
        until: float,
        outcome: Outcome,
        killer: watch.Killer,
    ) -> None:
        super().__init__(daemon=True)
        self._address = f"127.0.1.{number % 250 + 1}"
        self._port = port
        self._weights = [weight for weight, _ in cases]
        self._cases = [case for _, case in cases]
        self._share = share
        self._pause_s = pause_s
        self._until = until
        self._outcome = outcome
        self._killer = killer
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        while time.monotonic() < self._until:
            if random.random() < self._share:
                self._misbehave()
            else:
                self._ask(random.choices(self._cases, self._weights)[0])
            if self._pause_s:
                # As many independent people ask (a Poisson process).
                time.sleep(min(random.expovariate(1 / self._pause_s), max(0.0, self._until - time.monotonic())))
        if self._connection is not None:
            self._connection.close()

    def _misbehave(self) -> None:
        misdeed = random.choice(hostile.CLIENTS)
        with self._outcome.lock:
            self._outcome.hostile += 1
        start = time.monotonic()
        try:
            misdeed(self._port)
        except hostile.UnexpectedReplyError as reply:
            if self._was_killed_twice(reply.code, start):
                return
            fault = str(reply)
        except (OSError, http.client.HTTPException) as error:
            fault = type(error).__name__
        else:
            return
        with self._outcome.lock:
            self._outcome.unexpected[f"{misdeed.__name__}: {fault}"] += 1

    def _was_killed_twice(self, code: str, start: float) -> bool:
        """Two workers died under a query, as the killer has killed two since its `start`: it is counted, and no fault of the server's."""
        was = code == "worker_crashed" and self._killer.since(start) >= 2
        with self._outcome.lock:
            self._outcome.killed_twice += was
        return was

    def _ask(self, case: good.Good) -> None:
        outcome = self._outcome
        request_id = f"{self._address}-{next(_NUMBERS)}"
        start = time.monotonic()
        try:
            status, body = self._reply(case, request_id)
        except (OSError, http.client.HTTPException) as error:
            self._connection = None
            with outcome.lock:
                outcome.lost.append(f"{case.name}: {type(error).__name__} after {time.monotonic() - start:.1f} s")
            return
        took_s = time.monotonic() - start
        is_right = case.is_right(status, body)
        if status != 200 and self._was_killed_twice(orjson.loads(body).get("code", ""), start):
            return
        with outcome.lock:
            outcome.answered += is_right
            outcome.seconds.append(took_s)
            if status != 200:
                outcome.failed[f"{status} {case.name}: {body[:160].decode(errors='replace')}"] += 1
            elif not is_right:
                outcome.wrong.append(case.name)
            if took_s > LATE_S:
                outcome.late.append(f"{case.name}: {'over 4' if took_s > 2 * LATE_S else '2 to 4'} s")
                outcome.late_requests.append(request_id)

    def _reply(self, case: good.Good, request_id: str) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=_REPLY_LIMIT_S, source_address=(self._address, 0)
            )
        self._connection.request("POST", case.path, case.body, {**case.headers, "X-Request-Id": request_id})
        reply = self._connection.getresponse()
        return reply.status, reply.read()


def _seen_by_the_server(log: Path, late: Sequence[str]) -> str:
    """Where the time of late queries went, by the server's own clock."""
    wanted, lines = set(late), []
    for line in log.read_bytes().splitlines():
        if b'"event":"request"' in line and (entry := orjson.loads(line))["request_id"] in wanted:
            lines.append(entry)
    slow = [entry for entry in lines if entry["ms"] > 1e3 * LATE_S]
    waited = [entry for entry in slow if entry.get("queue_ms", 0) > entry["ms"] / 2]
    return (
        f"of {len(late)} late queries {len(slow)} took over {LATE_S:g} s in the server, most of it in its queue: {len(waited)}; the others "
        "waited for their client, which shares this machine"
    )


def _settled(front: int, limit: int) -> int:
    """The front's descriptors, when they are back at `limit` or have had their time."""
    until = time.monotonic() + _SETTLE_S
    while (count := watch.descriptors(front)) > limit and time.monotonic() < until:
        time.sleep(0.1)
    return count


def soak(
    seconds: float, clients: int, kill_every_s: float, share: float, workers: int, pause_s: float = 0.0
) -> tuple[Outcome, list[watch.Look], Ending]:
    """Load for so many seconds. `kill_every_s`: 0 = no kills; `share`: of hostile clients; `workers`: 0 = as many as cores.

    `pause_s`: between an answer and the client's next query, on the mean.
    """
    torch.set_num_threads(1)
    cases = good.mix(np.random.default_rng(0))
    outcome, looks = Outcome(), []
    before = watch.shared_memory()
    with tempfile.TemporaryDirectory() as folder, servers.logged_pullback(workers, Path(folder) / "log.txt") as (port, process):
        time.sleep(0.5)
        descriptors = watch.descriptors(process.pid)
        until = time.monotonic() + seconds
        killer = watch.Killer(process.pid, kill_every_s)
        threads = [Client(number, port, cases, share, pause_s, until, outcome, killer) for number in range(clients)]
        cpu = watch.Cpu(process.pid)
        for thread in (*threads, *([killer] if kill_every_s else [])):
            thread.start()
        while time.monotonic() < until:
            looks.append(watch.look(process.pid, outcome.answered))
            time.sleep(min(_LOOK_EVERY_S, max(0.0, until - time.monotonic())))
        for thread in threads:
            thread.join()
        shares = cpu.shares()
        if kill_every_s:
            killer.end()
        more = _settled(process.pid, descriptors) - descriptors
        looks.append(watch.look(process.pid, outcome.answered))
        family = [process.pid, *watch.children(process.pid), *watch.workers(process.pid)]
        process.send_signal(signal.SIGTERM)
        exit_status = process.wait(_END_LIMIT_S)
        ending = Ending(
            len(killer.times),
            more,
            watch.left_of(family, _SETTLE_S),
            len(watch.shared_memory() - before),
            exit_status,
            shares,
            _seen_by_the_server(Path(folder) / "log.txt", outcome.late_requests),
        )
    return outcome, looks, ending


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def report(outcome: Outcome, looks: Sequence[watch.Look], ending: Ending) -> bool:
    """Print what was seen; True where nothing of it is wrong."""
    faults = {
        "lost": outcome.lost, "wrong": outcome.wrong, "not answered with 200": list(outcome.failed.elements()),
        f"over {LATE_S:g} s": outcome.late, "hostile with another reply than expected": list(outcome.unexpected.elements()),
    }  # fmt: skip
    print(
        f"good answers, each compared with PyTorch: {outcome.answered:,}; hostile clients: {outcome.hostile:,}; kills: {ending.kills}, "
        f"twice of the same query: {outcome.killed_twice}"
    )
    print(
        f"seconds a good query: median {_quantile(outcome.seconds, 0.5):.4f}, 99 % {_quantile(outcome.seconds, 0.99):.3f}, "
        f"longest {max(outcome.seconds, default=0):.3f}"
    )
    print("CPU time of the machine: " + ", ".join(f"{whose} {share:.0%}" for whose, share in ending.shares.items()))
    print(f"seen by the server: {ending.late}")
    if ending.shares["others"] > _OTHERS_SHARE:
        print(f"other processes took more than {_OTHERS_SHARE:.0%} of the CPU time: these times are not the server's alone")
    for name, texts in faults.items():
        print(f"{name}: {len(texts)}")
        for text, number in Counter(texts).most_common(8):
            print(f"    {number} × {text}")
    for label, name in (("front", "front_bytes"), ("forkserver", "forkserver_bytes"), ("a worker", "worker_bytes")):
        growth = watch.growth_per_10_000(list(looks), name) / 1e6
        print(f"memory of {label}: {getattr(looks[-1], name) / 1e6:.0f} MB at the end, {growth:+.1f} MB per 10,000 queries")
    print(
        f"left: {ending.descriptors} descriptors more than before, {ending.processes} processes, {ending.shared_memory} names in "
        f"shared memory; exit status {ending.exit_status}"
    )
    is_clean = ending.descriptors <= 0 and not ending.processes and not ending.shared_memory and ending.exit_status == 0
    return not any(faults.values()) and is_clean and looks[-1].front_bytes < _GOOD_BYTES


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load")
    parser.add_argument("--clients", type=int, default=24, help="connections at once")
    parser.add_argument("--kill-every", type=float, default=3.0, help="seconds between two kills of a worker; 0 = none")
    parser.add_argument("--hostile", type=float, default=0.1, help="share of hostile clients, 0 to 1")
    parser.add_argument("--workers", type=int, default=0, help="worker processes; 0 = as many as the server takes by itself")
    parser.add_argument(
        "--pause",
        type=float,
        default=_PAUSE_S,
        help="mean seconds between an answer and the client's next query; 0 = none, which is more than any machine carries",
    )
    asked = parser.parse_args(arguments)
    return 0 if report(*soak(asked.seconds, asked.clients, asked.kill_every, asked.hostile, asked.workers, asked.pause)) else 1
