"""A real server for the tests: a process of its own on a free port, started as people start it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from app.ready import wait

# Guards against what hangs: a start takes some 5 s, and an end milliseconds where nothing is drained.
START_LIMIT_S: Final = 300.0
END_LIMIT_S: Final = 120.0
CLIENT_LIMIT_S: Final = 290.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: `http` has its address as base URL; `log` is what it has written."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    http: httpx.Client


def free_port() -> int:
    """A port that nobody has, and that the system gives to no outgoing connection until the server takes it."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(lowest // 2, lowest)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without its settings of Pullback, and with `settings`."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PULLBACK_")}
    return {**inherited, "OMP_NUM_THREADS": "1", **settings}


def serving(log: Path, **settings: str) -> AbstractContextManager[Server]:
    """A ready server with the variables `settings`; ended by SIGTERM, and it must end well."""
    return serving_in(None, log, **settings)


@contextmanager
def serving_in(group: Path | None, log: Path, **settings: str) -> Iterator[Server]:
    """The same in a control group."""
    port = free_port()
    environment = clean_environment(**{"PULLBACK_PORT": str(port), "PULLBACK_WORKERS": "1", **settings})
    command = [str(Path(sys.executable).parent / "pullback"), "serve"]
    if group is not None:
        command = ["sh", "-c", 'echo $$ > "$0"; exec "$@"', str(group / "cgroup.procs"), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        assert wait("127.0.0.1", port, START_LIMIT_S, lambda: process.poll() is None), f"not ready:\n{log.read_text()[-4000:]}"
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=CLIENT_LIMIT_S) as http:
            yield Server(url, port, process, log, http)
    finally:
        # A test of the end may have ended it already.
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
