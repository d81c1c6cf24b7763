"""The service, put together: settings → application → server, once, or in several fronts. Imports no torch; the workers do.

The front is imported where it runs, so that the parent of several stays small and has one thread.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.errors import EXIT_SETTINGS, ServiceError
from app.front.access.loopback import is_loopback_name
from app.front.observability.log_lines import LINE, event_fields
from app.group.board import Board
from app.group.messages import Line
from app.group.parent import Parent
from app.machine.memory_budget import LEAST_WORKER_BYTES, Budget, Machine, derive
from app.pool import linux
from app.pool.environment import COMMANDS
from app.pool.handles.forkserver_process import ForkserverProcess
from app.settings import Settings, checked_keys

if TYPE_CHECKING:
    from app.front.application import Application

_STDOUT: Final = 1  # POSIX
# The parent of several fronts waits no longer for one that writes to the log, which takes microseconds; its own line is dropped then.
_LINE_PATIENCE_S: Final = 0.1
# A small body and its reply (`SMALL_BYTES` of app/pool/budget.py); and a query, or an answer: the catalogue's examples have 200 to 2,000 bytes.
_LEAST_QUEUE_BYTES: Final = 128 << 10
_LEAST_LIMIT_BYTES: Final = 4096
# What a size in mebibytes would be taken for.
_LEAST: Final = (
    ("worker_memory_bytes", LEAST_WORKER_BYTES, "in which no worker can start"),
    ("queue_bytes", _LEAST_QUEUE_BYTES, "in which a small body and its reply have no room"),
    ("body_limit_bytes", _LEAST_LIMIT_BYTES, "in which hardly a query has room"),
    ("result_limit_bytes", _LEAST_LIMIT_BYTES, "in which hardly an answer has room"),
)


class BadSettingsError(ServiceError):
    """These settings do not make a server; the message says what to change."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, EXIT_SETTINGS)


def create(settings: Settings | None = None) -> Application:
    """The ASGI application; its workers start and end with the server's lifespan."""
    from app.front.application import Application

    # Whoever serves it has one process for it.
    settings = (settings or Settings()).model_copy(update={"fronts": 1})
    budget = derive(settings, Machine.here())
    return Application(budget.settled(settings), budget)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; every process of the service has ended when this returns.

    Raises:
        BadSettingsError: it would be open to the network without a key, or the address cannot be had.
        ServiceError: its workers cannot be had, now or on another try.
    """
    settings = _with_keys_of_file(settings)
    if not (is_loopback_name(settings.host) or settings.api_keys or settings.open_to_network):
        raise BadSettingsError(
            f"{settings.host} is not a loopback address and no API key is set, so everybody on the network could use this server. "
            "Set PULLBACK_API_KEYS or PULLBACK_API_KEYS_FILE, or PULLBACK_OPEN_TO_NETWORK=true if that is what you want."
        )
    _check_together(settings)
    listener = _listen(settings.host, settings.port, "PULLBACK_PORT")
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host

    def on_ready() -> None:
        sys.stderr.write(f"Pullback answers on http://{shown}:{port} — docs at /docs\n")
        sys.stderr.flush()

    linux.raise_file_limit()
    budget = derive(settings, Machine.here())
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listener)]
        if settings.metrics_port:
            listeners.append(stack.enter_context(_listen(settings.host, settings.metrics_port, "PULLBACK_METRICS_PORT")))
        (_serve_together if budget.fronts > 1 else _serve_alone)(settings, budget, listeners, on_ready)


def _serve_alone(settings: Settings, budget: Budget, listeners: Sequence[socket.socket], on_ready: Callable[[], None]) -> None:
    """In this process."""
    settled = budget.settled(settings)
    started = _started(settled)
    from app.front.application import Application
    from app.front.server import Server

    server = Server(Application(settled, budget, started=started), settings, on_ready)
    server.run(sockets=list(listeners))
    if server.failure is not None:
        raise server.failure


def _serve_together(
    settings: Settings, budget: Budget, listeners: Sequence[socket.socket], on_ready: Callable[[], None]
) -> None:
    """In several processes, whose parent this one is."""
    board = Board(budget.fronts)

    def run(index: int, line: Line) -> int:
        settled = budget.settled(settings)
        started = _started(settled)
        from app.front.application import Application
        from app.front.member_server import MemberServer
        from app.front.membership import Membership

        membership = Membership(index, board, line)
        server = MemberServer(Application(settled, budget, membership, started), settings, membership)
        server.run()
        if server.failure is not None:
            membership.tell_failure(server.failure)
            return server.failure.exit_status
        return 0

    def note(event: str, **facts: Any) -> None:
        board.write(_STDOUT, LINE[settings.log_format](event_fields(event, facts, time.time())), _LINE_PATIENCE_S)

    Parent(board, listeners, run, note, on_ready).serve()


def _started(settings: Settings) -> ForkserverProcess | None:
    """The parent of the workers, which imports PyTorch while this process imports its own; None where the pool has to try again."""
    try:
        return ForkserverProcess(settings)
    except OSError:
        return None


def _with_keys_of_file(settings: Settings) -> Settings:
    """The settings with the keys of the file among the others.

    Raises:
        BadSettingsError: it cannot be read, or has no key; a server that was to have keys must not be open for that.
    """
    if settings.api_keys_file is None:
        return settings
    try:
        with open(settings.api_keys_file, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
        keys = checked_keys(tuple(line for line in lines if line and not line.startswith("#")))
    except OSError as error:
        raise BadSettingsError(f"PULLBACK_API_KEYS_FILE: {settings.api_keys_file}: {error.strerror}.") from None
    except ValueError:
        raise BadSettingsError(
            f"PULLBACK_API_KEYS_FILE: {settings.api_keys_file} is not a text of keys, one a line; sha256: stands before a hash of 64 "
            "hexadecimal digits."
        ) from None
    if not keys:
        raise BadSettingsError(f"PULLBACK_API_KEYS_FILE: {settings.api_keys_file} has no key.")
    return settings.model_copy(update={"api_keys": settings.api_keys + keys})


def _check_together(settings: Settings) -> None:
    """Raises BadSettingsError where settings do not go together, or one is no size for what it is of."""
    if settings.engine not in COMMANDS:
        raise BadSettingsError(f"This version has no engine {settings.engine!r}: leave PULLBACK_ENGINE at local.")
    if settings.workers and settings.fronts > settings.workers:
        raise BadSettingsError(
            f"PULLBACK_FRONTS is {settings.fronts}, but there are {settings.workers} workers, and each front needs one of its own: set "
            f"PULLBACK_FRONTS to {settings.workers} at most, or leave it at 0."
        )
    for name, least, why in _LEAST:
        size: int = getattr(settings, name)
        if 0 < size < least:
            raise BadSettingsError(
                f"PULLBACK_{name.upper()} is {size:,}, {why}: set it to {least:,} at least, or leave it at 0; it is in bytes."
            )
    if 0 < settings.queue_bytes < settings.body_limit_bytes:
        raise BadSettingsError(
            f"PULLBACK_BODY_LIMIT_BYTES is {settings.body_limit_bytes:,}, but bodies and replies may have {settings.queue_bytes:,} bytes "
            "together: set it to PULLBACK_QUEUE_BYTES at most, or leave it at 0."
        )
    if settings.default_deadline_s > settings.maximum_deadline_s and "default_deadline_s" in settings.model_fields_set:
        raise BadSettingsError(
            f"PULLBACK_DEFAULT_DEADLINE_S is {settings.default_deadline_s:g}, but no deadline is longer than "
            f"{settings.maximum_deadline_s:g} s: set it to that at most, or raise PULLBACK_MAXIMUM_DEADLINE_S."
        )
    if settings.functions_folder and not Path(settings.functions_folder).is_dir():
        raise BadSettingsError(
            f"PULLBACK_FUNCTIONS_FOLDER is {settings.functions_folder}, and there is no such folder: make it, or leave the setting out."
        )


def _listen(address: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise BadSettingsError(
            f"Cannot listen on {address}, port {port}: {error.strerror}. PULLBACK_HOST and {setting} say where."
        ) from None
    return listener
