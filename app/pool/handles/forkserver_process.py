"""The forkserver's process, as it is started: before the front reads its own packages, so that both do at once."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence

from app.pool import linux
from app.pool.environment import COMMANDS, environment
from app.settings import Settings


class Lifeline:
    """A pipe whose writing end this process alone holds: whoever was given its reading end dies when this one does."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()

    def cut(self) -> None:
        os.close(self._writing)
        os.close(self.reading)


def start(command: Sequence[str], descriptors: Sequence[int], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A child of this process that has these descriptors and variables, and no other of its own.

    Its group of processes is its own: a terminal's Ctrl-C is for this process alone, and would find the child without handlers while it
    imports PyTorch.
    """
    # Our own module, no client's word in it.
    return subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL, env=variables, process_group=0)  # noqa: S603


class ForkserverProcess:
    """A forkserver that was just started, and what leads to it.

    Attributes:
        lifeline: its own and its children's; a new one where none is given.
        since: when it was started, on the monotonic clock.

    Raises:
        OSError: descriptors, processes or memory are used up.
    """

    def __init__(self, settings: Settings, lifeline: Lifeline | None = None) -> None:
        self.lifeline = lifeline or Lifeline()
        self.since = time.monotonic()
        try:
            self.connection, self.process = self._run(settings)
        except OSError:
            if lifeline is None:
                self.lifeline.cut()
            raise

    def _run(self, settings: Settings) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        connection, forkserver_end = socket.socketpair()
        descriptors = (forkserver_end.fileno(), self.lifeline.reading)
        with forkserver_end:
            try:
                linux.enlarge(connection)
                command = [*COMMANDS[settings.engine], str(os.getpid()), *map(str, descriptors)]
                process = start(command, descriptors, environment(settings))
            except OSError:
                connection.close()
                raise
        return connection, process
