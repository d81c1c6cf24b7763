"""What our processes ask of Linux: to die together, to stay within memory, to keep buffers, to enlarge sockets, to wait for them.

Where a call does not exist or is not allowed, the process runs on without that comfort; only `limit_address_space` is a promise and raises.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Final

# Numbers of the system's headers: linux/prctl.h, asm-generic/fcntl.h, glibc's malloc.h, asm-generic/socket.h.
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_F_SETSIG: Final = 10
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
# The state of a socket whose peer has reset the connection (include/net/tcp_states.h).
_TCP_CLOSE: Final = 7
_CPUCLOCK_SCHED: Final = 2  # of a process' clocks the one that counts by the nanosecond (include/linux/posix-timers_types.h)
# glibc refuses a larger threshold than half of its arenas' size (malloc.c, HEAP_MAX_SIZE / 2).
_MMAP_THRESHOLD_BYTES: Final = 32 << 20
_TRIM_THRESHOLD_BYTES: Final = 512 << 20  # freed memory is kept for the next body; front/server.py gives it back

# Nice values (setpriority(2)): of a process that computes for long, above the usual one; with 1 to 3 more the gain is less certain.
_LOWERED_BY: Final = 5
_LEAST_PRIORITY: Final = 19
# The system calls sched_setattr(2) and sched_getattr(2), for which older C libraries have no function, by machine.
_SCHED_ATTR: Final = {"x86_64": (314, 315), "aarch64": (274, 275)}
_SCHED_FLAG_KEEP_POLICY: Final = 0x08  # linux/sched.h: batch and idle threads stay what they are
# Three times the usual slice, so that nearly whoever wakes up comes first; a slice of 100 ms makes others wait for as long where the core is
# short and this thread has to get its share (Linux allows twice the slice of lag; measured).
_LONG_SLICE_NS: Final = 10_000_000
# How long one stays awake for what comes next: as long as a client that waits for each answer takes to send again, 150 to 250 µs with the
# front's part. To be woken takes 15 to 50 µs on a virtual machine, and what was computed with is no longer in the caches.
_AWAKE_S: Final = 0.0003
# Another process has had the core where giving it up took longer.
_YIELD_S: Final = 0.00001


class AdaptiveWait:
    """Waits for a socket: busily where what it waited for the last time came within `_AWAKE_S`, for so long at the most; else asleep.

    It gives up the core to whoever wants it, and sleeps then. Where nothing has come in time it sleeps until what comes has come soon again.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._comes_soon = False

    def wait(self, receive: Callable[[], int]) -> int:
        """What `receive` returns, which reads the socket and sleeps until there is something."""
        began = time.monotonic()
        if self._comes_soon:
            self._look(began)
        count = receive()
        self._comes_soon = time.monotonic() - began < _AWAKE_S
        return count

    def _look(self, now: float) -> None:
        """Return when there is something, when it is too late, or when another process wants the core."""
        is_readable, until, took = self._poll.poll, now + _AWAKE_S, 0.0
        while took < _YIELD_S and now < until and not is_readable(0):
            before = time.monotonic()
            os.sched_yield()
            now = time.monotonic()
            took = now - before


def die_with_parent(parent_pid: int) -> None:
    """Have this process killed when its parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # The parent may have died before the call.
    if os.getppid() != parent_pid:
        os._exit(0)


def die_with_pipe(descriptor: int) -> bool:
    """Have this process killed when the last writer of a pipe closes it or dies, whatever it computes then; False where that cannot be.

    `descriptor`, its reading end, is replaced by an opening of our own: the wish stands with the opening, which forks share.
    (fcntl(2): F_SETOWN, F_SETSIG, O_ASYNC.)
    """
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.dup2(own, descriptor)
        os.close(own)
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(descriptor, _F_SETSIG, int(signal.SIGKILL))
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    if poll.poll(0):
        # It was closed before the call.
        os._exit(0)
    return True


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent dies (prctl(2), PR_SET_CHILD_SUBREAPER), so that they can be reaped."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def exit_code(pid: int) -> tuple[bool, int | None]:
    """Whether a child has ended, which is then reaped, and how: the code, negative for a signal, None where another has reaped it."""
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True, None
    return (True, os.waitstatus_to_exitcode(status)) if reaped else (False, None)


@dataclass(frozen=True, slots=True)
class Activity:
    """What a process did when it was looked at: its state (proc(5): R, S, D, T, t, Z) and its CPU time, in clock ticks."""

    state: str
    ticks: int

    @property
    def is_stopped(self) -> bool:
        return self.state in "Tt"

    @property
    def is_running(self) -> bool:
        return self.state == "R"


def activity(pid: int) -> Activity | None:
    """Of a process, all its threads together; None where it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return Activity(fields[0], int(fields[11]) + int(fields[12]))


def computed_s(pid: int) -> float | None:
    """CPU time of a process, all its threads together; None where it is gone, or the system does not tell (clock_getcpuclockid(3))."""
    try:
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError:
        return None


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


def resident_bytes() -> int:
    """This process's own resident memory, without what it shares with files or other processes; 0 where /proc has no such file."""
    try:
        with open("/proc/self/statm") as file:
            resident, shared = map(int, file.read().split()[1:3])
            return (resident - shared) * resource.getpagesize()
    except OSError:
        return 0


def trim_heap() -> None:
    """Give the pages of freed memory back to the system (malloc_trim(3))."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def is_reset(connection: socket.socket) -> bool:
    """The other side has said that nobody is there any more (tcp(7), TCP_INFO)."""
    try:
        return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE)
    except (OSError, AttributeError):
        return False


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
    """Leave the signals that a terminal or an init system sends to all of us to the front."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)


@cache
def can_raise_priority() -> bool:
    """Whether a process that was given a lower priority can be given its former one (CAP_SYS_NICE or RLIMIT_NICE); tried on a thread."""
    outcome: list[bool] = []

    def attempt() -> None:
        thread = threading.get_native_id()
        try:
            usual = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(usual + 1, _LEAST_PRIORITY))
            os.setpriority(os.PRIO_PROCESS, thread, usual)
        except OSError:
            outcome.append(False)
        else:
            outcome.append(True)

    attempting = threading.Thread(target=attempt)
    attempting.start()
    attempting.join()
    return outcome == [True]


class _SchedulingAttributes(ctypes.Structure):
    """`struct sched_attr` as sched_setattr(2) has it; `runtime` is the slice of an ordinary thread, in nanoseconds."""

    _fields_: ClassVar = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    ]


def slice_ns(thread: int) -> int:
    """For how long a thread may compute until another that waits for its core comes next; 0 where the system does not tell (Linux 6.12)."""
    attributes = _attributes(thread)
    return 0 if attributes is None else int(attributes.runtime)


def _attributes(thread: int) -> _SchedulingAttributes | None:
    attributes = _SchedulingAttributes()
    call = _SCHED_ATTR.get(platform.machine())
    failed = call is None or ctypes.CDLL(None).syscall(call[1], thread, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    return None if failed else attributes


def _set_slice(thread: int, nanoseconds: int) -> None:
    attributes = _attributes(thread)
    if attributes is not None:
        attributes.flags, attributes.runtime = _SCHED_FLAG_KEEP_POLICY, nanoseconds
        ctypes.CDLL(None).syscall(_SCHED_ATTR[platform.machine()][0], thread, ctypes.byref(attributes), 0)


def set_priority(pid: int, *, lowered: bool) -> None:
    """Give all threads of a process the slice and priority of this one, or a longer and a lower one.

    Then what wakes up for a moment need not wait for it. On a core where another process computes, 28 of 700 wake-ups waited for longer than
    a millisecond, up to a tick of the kernel's clock; with the lower priority 13, with the slice 6, with both 3 (measured, Linux 6.18). A
    thread has its share of the core whatever its slice, in longer pieces, and may change its slice; only who may raise priorities lowers them.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    priority = min(usual + _LOWERED_BY, _LEAST_PRIORITY) if lowered else usual
    nanoseconds = _LONG_SLICE_NS if lowered else slice_ns(0)
    with contextlib.suppress(OSError):  # it has ended
        # Linux keeps one for each thread, and a new thread begins with that of the one that starts it (setpriority(2)).
        for thread in map(int, os.listdir(f"/proc/{pid}/task")):
            _set_slice(thread, nanoseconds)
            if can_raise_priority():
                with contextlib.suppress(OSError):  # this one has
                    os.setpriority(os.PRIO_PROCESS, thread, priority)


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
