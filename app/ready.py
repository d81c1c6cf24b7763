"""Asks a server whether it is ready: exit status 0 or 1, for containers, Makefiles and scripts."""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import time
from collections.abc import Callable
from typing import Final

_EVERYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_ASK_TIMEOUT_S: Final = 2.0
_PAUSE_S: Final = 0.25


def is_ready(host: str, port: int) -> bool:
    """Whether the server at `host`:`port` answers 200 at `/health/ready` within two seconds."""
    connection = http.client.HTTPConnection(host, port, timeout=_ASK_TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


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
    host = os.environ.get("PULLBACK_HOST", "")
    parser = argparse.ArgumentParser(prog="python -m app.ready", description="Exit 0 if the server is ready, else 1.")
    parser.add_argument("--host", default=_EVERYWHERE.get(host, host), help="default: PULLBACK_HOST, or loopback")
    parser.add_argument(
        "--port", type=int, default=int(os.environ.get("PULLBACK_PORT", "8000")), help="default: PULLBACK_PORT, or 8000"
    )
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="go on asking for so long")
    parser.add_argument("--process", type=int, metavar="ID", help="give up when this process has ended")
    options = parser.parse_args(arguments)
    process = options.process
    alive = (lambda: True) if process is None else (lambda: exists(process))
    return 0 if wait(options.host, options.port, options.wait, alive) else 1


if __name__ == "__main__":
    sys.exit(main())
