"""Our processes as /proc shows them: who came from whom, who still runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from benchmarks.soak.watch import children, is_alive, workers

__all__ = [
    "children", "cpu_ticks", "family", "forget_peak", "forkserver", "is_alive", "kill_who_computes", "resident_bytes", "wait_until_gone",
    "workers",
]  # fmt: skip

# Of 10 ms each: a tenth of a second of CPU time, the share of a query among ten processes, and more than what a worker does while it rests.
_LONG_TICKS: Final = 10


def cpu_ticks(pid: int) -> int:
    """Clock ticks that a process has computed for; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def forkserver(front: int) -> int:
    """The warm parent of the workers of the server whose front is `front`."""
    (parent,) = children(front)
    return parent


def family(front: int) -> list[int]:
    """The front, the forkserver and the workers."""
    return [front, *children(front), *workers(front)]


def kill_who_computes(pids: Iterable[int]) -> None:
    """Kills the process that has computed most within a second, if one has computed for long.

    On a slow machine none may have begun the query that is to lose its worker: its own moments, not those of a worker that rests or
    starts, are looked for, and a query that has lost six workers before it began is refused in another way.
    """
    before = {pid: cpu_ticks(pid) for pid in pids}
    time.sleep(1.0)
    ticks = {pid: cpu_ticks(pid) - start for pid, start in before.items()}
    victim = max(ticks, key=ticks.__getitem__, default=0)
    if ticks.get(victim, 0) >= _LONG_TICKS:
        with suppress(ProcessLookupError):  # it was replaced meanwhile
            os.kill(victim, signal.SIGKILL)


def wait_until_gone(pids: Iterable[int], limit_s: float = 30.0) -> list[int]:
    """Those of `pids` that still run after at most `limit_s` seconds: half of what a query of `heavy()` computes for."""
    end = time.monotonic() + limit_s
    left = [pid for pid in pids if is_alive(pid)]
    while left and time.monotonic() < end:
        time.sleep(0.01)
        left = [pid for pid in left if is_alive(pid)]
    return left


def resident_bytes(pid: int, field: str = "VmRSS") -> int:
    """Resident memory of a process; `VmHWM`: the most since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(field)


def forget_peak(pid: int) -> None:
    """From now on `VmHWM` is of what comes (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
