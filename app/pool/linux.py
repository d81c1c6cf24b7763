"""What our processes ask of Linux: to die together, to stay within memory, to keep buffers, to enlarge sockets.

Knows system calls. Refuses to know why a process asks. Where a call does not exist or is not allowed, the process runs on
without that comfort; only `limit_address_space` is a promise and raises.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
from collections.abc import Iterable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
# glibc refuses a larger threshold than half of its arenas' size (malloc.c, HEAP_MAX_SIZE / 2).
_MMAP_THRESHOLD_BYTES: Final = 32 << 20
_TRIM_THRESHOLD_BYTES: Final = 512 << 20


def die_with_parent(parent_pid: int) -> None:
    """Have this process killed when its parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # The parent may have died before the call.
    if os.getppid() != parent_pid:
        os._exit(0)


def keep_buffers() -> None:
    """Let malloc keep freed buffers of some megabytes for the next body instead of giving their pages back each time.

    An 8 MB echo through an HTTP server took 17 ms, and 5.7 ms with these thresholds: the rest was page faults (mallopt(3)).
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)


def enlarge(connection: socket.socket, size: int = 4 << 20) -> None:
    """Larger socket buffers, in bytes: beyond the system's maximum where this process may, else up to it."""
    for force, ordinary in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            connection.setsockopt(socket.SOL_SOCKET, force, size)
        except OSError:
            connection.setsockopt(socket.SOL_SOCKET, ordinary, size)


def status_field(name: str) -> int:
    """A number from /proc/self/status: `Threads`, or `VmSize`, `VmRSS` in KiB; 0 where there is no such file."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1])
    except OSError:
        return 0
    return 0


def limit_address_space(extra_bytes: int) -> None:
    """Let this process map at most `extra_bytes` beyond what it has mapped already (setrlimit(2), RLIMIT_AS)."""
    limit = status_field("VmSize") * 1024 + extra_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def raise_file_limit() -> None:
    """As many open files, and so connections, as this process may have (setrlimit(2), RLIMIT_NOFILE)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def volunteer_for_oom() -> None:
    """Where the machine runs out of memory, let the kernel take this process before the front (proc(5), oom_score_adj)."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def close_all_but(keep: Iterable[int]) -> None:
    """Close every file descriptor except the standard three and `keep`."""
    previous = 3
    for descriptor in [*sorted(keep), os.sysconf("SC_OPEN_MAX")]:
        os.closerange(previous, descriptor)
        previous = descriptor + 1


def ignore_terminal_signals() -> None:
    """Leave SIGINT and SIGTERM, which a terminal or an init system sends to all of us, to the front."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)


def kill(pid: int, pidfd: int | None) -> None:
    """SIGKILL by pidfd where there is one, so that a pid that was given to another process is never hit."""
    with contextlib.suppress(ProcessLookupError):
        if pidfd is None:
            os.kill(pid, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return None
