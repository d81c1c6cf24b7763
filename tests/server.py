"""A real server for the tests: a process of its own on a free port, started as people start it, or forked from one that has imported."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from app.ready import wait
from app.settings import PREFIX
from tests.template import Template

# Guards against what hangs: a start takes some 5 s, and an end milliseconds where nothing is drained.
START_LIMIT_S: Final = 300.0
END_LIMIT_S: Final = 120.0
CLIENT_LIMIT_S: Final = 290.0
HAS_GPU: Final = Path("/dev/nvidiactl").exists()


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
    """A ready server with the variables `settings`; ended by SIGTERM, and it must end well.

    It is forked from a process that has imported everything, for a start takes 3.4 s of CPU time, which was a third of that of all tests
    (tests/template.py). Variables that are not Pullback's may count at an import, and a GPU does: servers with them are started. The
    variable that shows GPUs is read when CUDA is asked for the first time, which no import does.
    """
    if HAS_GPU or not all(name.startswith(PREFIX) or name == "CUDA_VISIBLE_DEVICES" for name in settings):
        return serving_as_people_do(log, **settings)
    return _serving(lambda variables, output: _template().serve(variables, output), log, settings)


def serving_as_people_do(log: Path, **settings: str) -> AbstractContextManager[Server]:
    """The same by the command, for tests of the start and the end, of memory and of what the processes are started with."""
    return serving_in(None, log, **settings)


def serving_in(group: Path | None, log: Path, **settings: str) -> AbstractContextManager[Server]:
    """The same in a control group."""
    command = [str(Path(sys.executable).parent / "pullback"), "serve"]
    if group is not None:
        command = ["sh", "-c", 'echo $$ > "$0"; exec "$@"', str(group / "cgroup.procs"), *command]

    def start(variables: Mapping[str, str], output: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)

    return _serving(start, log, settings)


@cache
def _template() -> Template:
    """Of this process, once."""
    return Template(clean_environment())


@contextmanager
def _serving(
    start: Callable[[Mapping[str, str], BinaryIO], subprocess.Popen[bytes]], log: Path, settings: Mapping[str, str]
) -> Iterator[Server]:
    port = free_port()
    with log.open("wb") as output:
        process = start(clean_environment(**{"PULLBACK_PORT": str(port), "PULLBACK_WORKERS": "1", **settings}), output)
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
