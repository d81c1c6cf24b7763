"""A warm process that answers queries in a forked child of itself, so that a crash costs milliseconds and spoils nothing.

`python -m tests.forking` is that process: one JSON line of queries in, one JSON line of replies out. It forks as the pool's parent
does, and so it has one thread; a test's own process has more.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from app.pool.environment import SINGLE_THREADED

ROOT: Final = Path(__file__).parent.parent


@dataclass(frozen=True)
class Reply:
    """The status and the JSON body of one answer."""

    status: int
    body: Any


class ChildDiedError(Exception):
    """The child ended by a signal (`SIGSEGV`), or was ended after its time (`SIGKILL`)."""


class Forking:
    """Asks such a process. `environment`: variables that it is started with (a preloaded library, glibc's tunables)."""

    def __init__(self, environment: Mapping[str, str] | None = None, functions: str | None = None) -> None:
        command = [sys.executable, "-m", "tests.forking", *([functions] if functions else [])]
        variables = {**os.environ, **SINGLE_THREADED, **(environment or {})}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._receive()  # it is warm

    def __enter__(self) -> Forking:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate(timeout=600)

    def ask(self, *queries: Mapping[str, Any], limit_s: float = 300.0) -> list[Reply]:
        """The replies of one child to these queries, one after the other; it answers the next ones too, unless it ends.

        Raises:
            ChildDiedError: the child crashed, or did not end within `limit_s`.
        """
        if self._process.stdin is None:
            raise RuntimeError("not started")
        self._process.stdin.write(json.dumps({"queries": queries, "limit_s": limit_s}).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._receive()
        if isinstance(answer, str):
            raise ChildDiedError(answer)
        return [Reply(status, body) for status, body in answer]

    def _receive(self) -> Any:
        if self._process.stdout is None:
            raise RuntimeError("not started")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the warm process ended with {self._process.wait()}")
        return json.loads(line)


class _Child:
    """A fork that answers task after task; where one kills it, or takes too long, the next task gets another."""

    def __init__(self, road: Any) -> None:
        incoming, self._tasks = os.pipe()
        self._answers, outgoing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._tasks)
            os.close(self._answers)
            for line in os.fdopen(incoming):
                _write(outgoing, json.dumps([_answer(road, query) for query in json.loads(line)["queries"]]).encode() + b"\n")
            os._exit(0)
        os.close(incoming)
        os.close(outgoing)

    def answer(self, task: str) -> tuple[bytes, bool]:
        """The line of its replies, or of the signal that ended it; and whether it lives."""
        _write(self._tasks, task.encode())
        limit_s, answer = json.loads(task)["limit_s"], b""
        while not answer.endswith(b"\n"):
            if not select.select([self._answers], [], [], limit_s)[0]:
                os.kill(self._pid, signal.SIGKILL)
            piece = os.read(self._answers, 1 << 16)
            if not piece:
                return json.dumps(signal.Signals(os.WTERMSIG(self.end())).name).encode() + b"\n", False
            answer += piece
        return answer, True

    def end(self) -> int:
        """How it ended, once it has nothing more to read."""
        os.close(self._tasks)
        os.close(self._answers)
        return os.waitpid(self._pid, 0)[1]


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _answer(road: Any, query: Any) -> tuple[int, Any]:
    from app.road import Request

    body = memoryview(json.dumps(query).encode())
    reply = road.answer(Request("query", "test", "application/json", None, "application/json", body), lambda _: None)
    return reply.status, json.loads(b"".join(bytes(buffer) for buffer in reply.buffers))


def main(arguments: Sequence[str]) -> None:
    """Warms up as the pool's parent does, then answers line after line until its input ends."""
    gc.disable()  # as the pool's parent does (app/pool/forkserver.py)
    from app.limits import Limits
    from app.road import Road

    output = os.dup(1)
    os.dup2(2, 1)  # MKL writes its complaints there
    road = Road(Limits(), "cpu", next(iter(arguments), None))
    road.probe()
    road.warm()
    gc.freeze()
    gc.enable()
    _write(output, b"null\n")
    child: _Child | None = None
    for task in sys.stdin:
        child = child or _Child(road)
        answer, lives = child.answer(task)
        child = child if lives else None
        _write(output, answer)
    if child is not None:
        child.end()


if __name__ == "__main__":
    main(sys.argv[1:])
