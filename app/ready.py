"""Asks a server whether it is ready: exit status 0 or 1, for containers, Makefiles and scripts.

A container asks every few seconds for as long as it lives, so this imports next to nothing: what is left is Python's own start.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # typing itself takes as long to import as all that is asked here
if TYPE_CHECKING:
    from collections.abc import Callable

_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_DEFAULT_PORT = 8000  # as in Settings, which would take pydantic, and with it half a second, to import
_ASK_TIMEOUT_S = 2.0  # a front answers within 4 ms, on busy cores 30 (measured)
_PAUSE_S = 0.25  # four looks a second: a start takes some five seconds
_REQUEST = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def is_ready(host: str, port: int) -> bool:
    """Whether the server at `host`:`port` answers 200 at `/health/ready` within two seconds."""
    import socket

    try:
        with socket.create_connection((host, port), _ASK_TIMEOUT_S) as connection:
            connection.sendall(_REQUEST)
            reply = b""
            while b"\r\n" not in reply and (piece := connection.recv(4096)):
                reply += piece
    except OSError:
        return False
    return reply.startswith(b"HTTP/1.1 200 ")


def exists(process: int) -> bool:
    """Whether a process has this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait(host: str, port: int, timeout_s: float, alive: Callable[[], bool] = lambda: True) -> bool:
    """Asks until the server is ready, `timeout_s` seconds have passed, or the server is no longer `alive`."""
    until = time.monotonic() + timeout_s
    while alive():
        if is_ready(host, port):
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(_PAUSE_S)
    return False


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    host = os.environ.get("PULLBACK_HOST", "")
    host = _EVERYWHERE.get(host, host)
    # What is no number here is refused, or known for what it is, by the server, which then listens at the default.
    setting = os.environ.get("PULLBACK_PORT", "")
    port = int(setting) if setting.isdigit() else _DEFAULT_PORT
    if not arguments:
        return 0 if is_ready(host, port) else 1
    return _asked_for_more(arguments, host, port)


def _asked_for_more(arguments: list[str], host: str, port: int) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="python -m app.ready", description="Exit 0 if the server is ready, else 1.")
    parser.add_argument("--host", default=host, help="default: PULLBACK_HOST, or loopback")
    parser.add_argument("--port", type=int, default=port, help="default: PULLBACK_PORT, or 8000")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="go on asking for so long")
    parser.add_argument("--process", type=int, metavar="ID", help="give up when this process has ended")
    chosen = parser.parse_args(arguments)
    process = chosen.process
    alive = (lambda: True) if process is None else (lambda: exists(process))
    return 0 if wait(chosen.host, chosen.port, chosen.wait, alive) else 1


if __name__ == "__main__":
    sys.exit(main())
