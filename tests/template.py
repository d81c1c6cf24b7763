"""A process that has imported what `pullback serve` and the parent of its workers import, and forks a server for each that is asked for.

A start takes 3.4 s of CPU time, of which 3.2 are imports and PyTorch's first steps; forked from here it takes a tenth. A server so forked
runs `pullback serve` as it is, with its own variables, log and signals, and forks the parent of its workers, its child as ever, before it
puts PyTorch out of its own reach. `python -m tests.template` is this process; `tests/server.py` says who starts servers the other way.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from app.pool.environment import COMMANDS, NO_GPU, SINGLE_THREADED
from app.pool.handles import forkserver_process

ROOT: Final = Path(__file__).parent.parent
_REQUEST_BYTES: Final = 128 << 10  # all variables, which are some 5 KB; a packet is bounded by the socket's buffer, 208 KB
_AS_A_PROCESS: Final = forkserver_process.start


class Template:
    """Starts that process at once, and asks it for servers. It ends with the process that has asked."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.template", str(asked.fileno())]
        with asked:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**variables, **SINGLE_THREADED, **NO_GPU},
                pass_fds=[asked.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self._end)

    def serve(self, variables: Mapping[str, str], log: BinaryIO) -> subprocess.Popen[bytes]:
        """A process that has just begun to serve, with these variables alone."""
        line, other = socket.socketpair()
        with other:
            request = json.dumps({"variables": dict(variables), "folder": str(Path.cwd())}).encode()
            socket.send_fds(self._asking, [request], [log.fileno(), other.fileno()])
        return _Served(line)

    def _end(self) -> None:
        self._asking.close()
        self._process.wait()


class _Served(subprocess.Popen[bytes]):
    """A child of the template, of which its line tells the pid and the status."""

    def __init__(self, line: socket.socket) -> None:
        self.args = ["pullback", "serve"]
        self._line = line
        self.pid = self._number()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._line], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._line], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("pullback serve", timeout or 0.0)
            self.returncode = self._number()
            self._line.close()
        return self.returncode

    def _number(self) -> int:
        number = self._line.recv(8)
        if not number:
            raise RuntimeError("the template of the servers has ended; what it said stands above")
        return int.from_bytes(number, signed=True)


class _Forked(subprocess.Popen[bytes]):
    """A child that was forked, as if it had been started."""

    def __init__(self, command: Sequence[str], pid: int) -> None:
        self.args = command
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._reaped(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        status = self._reaped(0)
        assert status is not None
        return status

    def _reaped(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


class _Forking:
    """The template's loop over what is asked and its children's ends."""

    def __init__(self, asked: socket.socket, front: frozenset[str]) -> None:
        self._asked = asked
        self._front = front
        self._children: dict[int, tuple[int, socket.socket]] = {}  # pidfd → pid, and the line of who asked for it
        self._poll = select.poll()
        self._poll.register(asked, select.POLLIN)

    def run(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._asked.fileno():
                    self._reap(descriptor)
                elif not self._fork():
                    return

    def _fork(self) -> bool:
        request, descriptors, _, _ = socket.recv_fds(self._asked, _REQUEST_BYTES, 2)
        if not request:
            return False
        log, line = descriptors[0], socket.socket(fileno=descriptors[1])
        pid = os.fork()
        if pid == 0:
            line.close()
            self._become_server(json.loads(request), log)
        os.close(log)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = pid, line
        self._poll.register(pidfd, select.POLLIN)
        line.send(pid.to_bytes(8, signed=True))
        return True

    def _reap(self, pidfd: int) -> None:
        pid, line = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        with line:
            line.send(os.waitstatus_to_exitcode(status).to_bytes(8, signed=True))

    def _become_server(self, request: Mapping[str, Any], log: int) -> NoReturn:
        from app import cli

        self._asked.close()
        for pidfd, (_, line) in self._children.items():
            os.close(pidfd)
            line.close()
        for output in (1, 2):
            os.dup2(log, output)
        os.close(log)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(request["folder"])
        _set_variables(request["variables"])
        sys.argv = ["pullback", "serve"]
        forkserver_process.start = self._start
        _run(lambda: cli.main(["serve"]))

    def _start(
        self, command: Sequence[str], descriptors: Sequence[int], variables: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """The parent of the workers; one that follows it is started as ever, for this process has threads then."""
        from app.pool import forkserver, linux

        forkserver_process.start = _AS_A_PROCESS
        if tuple(command[:3]) != COMMANDS["local"]:
            return _AS_A_PROCESS(command, descriptors, variables)
        pid = os.fork()
        if pid == 0:
            linux.close_all_but(descriptors)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.close(nothing)
            _set_variables(variables)
            _run(lambda: forkserver.main(*map(int, command[3:])))
        self._forget_pytorch()
        return _Forked(command, pid)

    def _forget_pytorch(self) -> None:
        """The front has never imported it, and cannot."""
        for name in set(sys.modules) - self._front:
            if name.partition(".")[0] == "app":
                del sys.modules[name]
        sys.modules["torch"] = None  # type: ignore[assignment]


def _set_variables(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _run(program: Callable[[], int | None]) -> NoReturn:
    """A program to its end, as Python ends it, but that nothing is taken apart: it is shared with the template."""
    status: object = 1
    try:
        try:
            status = program()
        except SystemExit as end:
            status = end.code
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)  # noqa: T201
        status = 1
    sys.stdout.flush()
    os._exit(status if isinstance(status, int) else 0)


def main(descriptor: int) -> None:
    """Import what both import, and take the first steps of PyTorch that the parent of the workers takes; then fork until nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to whoever has asked, too
    gc.disable()
    import app.cli
    import app.front.application
    import app.front.server

    front = frozenset(sys.modules)
    import app.pool.forkserver
    from app.limits import Limits
    from app.road import Road

    Road(Limits(), "cpu").warm()
    gc.freeze()
    gc.enable()
    app.pool.forkserver._check_threads()
    _Forking(socket.socket(fileno=descriptor), front).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
