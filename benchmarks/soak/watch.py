"""Looks at the server's processes from outside, and kills workers: memory, descriptors, shared memory, who is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path


def children(pid: int) -> list[int]:
    """The living children of a process, zombies left out."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [child for child in map(int, text.split()) if is_alive(child)]


def is_alive(pid: int) -> bool:
    """It runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers(front: int) -> list[int]:
    """The workers of the server whose front is `front`."""
    return [worker for parent in children(front) for worker in children(parent)]


def resident_bytes(pid: int) -> int:
    """Memory that is this process's alone or its share of what it shares; 0 where it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def shared_memory() -> set[str]:
    with contextlib.suppress(OSError):
        return set(os.listdir("/dev/shm"))  # noqa: S108 - only looked at
    return set()


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment, when so many good queries had been answered."""

    answered: int
    front_bytes: int
    forkserver_bytes: int
    worker_bytes: int
    front_descriptors: int


def look(front: int, answered: int) -> Look:
    """Bytes of the workers are the mean of one."""
    parents, all_workers = children(front), workers(front)
    mean = sum(map(resident_bytes, all_workers)) // max(1, len(all_workers))
    return Look(answered, resident_bytes(front), sum(map(resident_bytes, parents)), mean, descriptors(front))


def growth_per_10_000(looks: list[Look], name: str) -> float:
    """Bytes by which the process grows in 10,000 queries: the slope of the best line through the looks after the first fifth."""
    later = looks[len(looks) // 5 :]
    if len(later) < 3 or later[-1].answered == later[0].answered:
        return 0.0
    mean_x = sum(each.answered for each in later) / len(later)
    mean_y = sum(getattr(each, name) for each in later) / len(later)
    covariance = sum((each.answered - mean_x) * (getattr(each, name) - mean_y) for each in later)
    return float(1e4 * covariance / sum((each.answered - mean_x) ** 2 for each in later))


class Cpu:
    """Whose the machine's CPU time is, from now on."""

    def __init__(self, front: int) -> None:
        self._front = front
        self._before = self._ticks()

    def _ticks(self) -> dict[str, int]:
        """Clock ticks of all cores, idle ones included; of the idle; of the server with all that it has reaped; of this process."""
        fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
        family = [self._front, *children(self._front), *workers(self._front)]
        return {
            "all": sum(fields),
            "idle": fields[3] + fields[4],
            "server": sum(map(_ticks, family)),
            "clients": _ticks(os.getpid()),
        }

    def shares(self) -> dict[str, float]:
        """Of the time since then: of the server, of its clients here, of others, and idle."""
        now = self._ticks()
        spent = {name: now[name] - self._before[name] for name in now}
        whole = max(1, spent.pop("all"))
        shares = {name: max(0.0, ticks / whole) for name, ticks in spent.items()}
        return {**shares, "others": max(0.0, 1 - sum(shares.values()))}


def _ticks(pid: int) -> int:
    """Of a process and of its children that have ended and been waited for."""
    try:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    except OSError:
        return 0


class Killer(threading.Thread):
    """Kills a worker, any, every `every_s` seconds until `end`. `times`: of the kills, by the monotonic clock."""

    def __init__(self, front: int, every_s: float) -> None:
        super().__init__(daemon=True)
        self.times: list[float] = []
        self._front = front
        self._every_s = every_s
        self._killing = threading.Lock()
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(self._every_s):
            victims = workers(self._front)
            if victims:
                with self._killing, contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(victims), signal.SIGKILL)
                    self.times.append(time.monotonic())

    def since(self, start: float) -> int:
        """How many it has killed since then. One whose end a client has already heard of is among them."""
        with self._killing:
            return sum(kill >= start for kill in self.times)

    def end(self) -> None:
        self._end.set()
        self.join()


def left_of(pids: list[int], limit_s: float) -> int:
    """How many of these processes still run after at most so many seconds."""
    until = time.monotonic() + limit_s
    while (left := sum(map(is_alive, pids))) and time.monotonic() < until:
        time.sleep(0.05)
    return left
