"""The control groups of this process: how much memory and processor time it may take, and whom the kernel has killed for memory.

Reads cgroup v1, v2 and both side by side (cgroups(7), the kernel's cgroup-v2.rst and cgroup-v1/memory.rst): the process's own group
and all above it that can be seen, since the tightest of them counts. In a container, and in a unit of systemd, that group is seldom
the root of what is mounted. `root` is where the file system begins, for tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path("/")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")  # of spaces and the like in mountinfo, proc(5)


class _Mount(NamedTuple):
    version: int
    root: str  # the group that stands at `point`
    point: str
    controllers: frozenset[str]  # of v1; v2 has all its own in one hierarchy


def memory_limit(root: Path = ROOT) -> int | None:
    """The bytes of memory that this process's groups may take; None where none of them has a limit.

    Above `memory.high` the kernel holds a group's processes up instead of killing them, so a service must stay under that too.
    """
    limits = [
        int(text)
        for version, folder in _groups("memory", root)
        for name in (("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",))
        if (text := _text(folder / name)).isdigit()
    ]
    # Without a limit, v1 shows the largest number of pages that it can count.
    return min((limit for limit in limits if limit < 1 << 62), default=None)


def cpu_limit(root: Path = ROOT) -> float | None:
    """The processors' worth of time that this process's groups may take; None where none of them has a quota."""
    quotas = []
    for version, folder in _groups("cpu", root):
        names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        match " ".join(_text(folder / name) for name in names).split():
            case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def oom_kills(root: Path = ROOT) -> int:
    """How many processes of this process's group the kernel has killed for lack of memory, since the group was made.

    Where there is no group that counts, of the whole machine since it was started.
    """
    for version, folder in _groups("memory", root):
        count = _field(_text(folder / ("memory.events" if version == 2 else "memory.oom_control")), "oom_kill")
        if count is not None:
            return count
    return _field(_text(root / "proc/vmstat"), "oom_kill") or 0


class OomKills:
    """Tells the deaths that the kernel has caused for lack of memory, one for each that it counts, from others."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._explained = oom_kills(root)

    def explain_one(self) -> bool:
        """Whether the kernel has killed one more for memory than was asked for here; the kernel counts before it kills."""
        if oom_kills(self._root) <= self._explained:
            return False
        self._explained += 1
        return True


def _groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Version and folder of this process's group for a controller, and of all groups above it, from the inside out."""
    mounts = list(_mounts(root))
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        version = 1 if names else 2
        if version == 1 and controller not in names.split(","):
            continue
        for mount in mounts:
            if mount.version == version and (version == 2 or controller in mount.controllers):
                yield from ((version, folder) for folder in _upwards(mount, path, root))
                break


def _upwards(mount: _Mount, path: str, root: Path) -> Iterator[Path]:
    point = root / mount.point.lstrip("/")
    if mount.root == "/" or path == mount.root or path.startswith(mount.root + "/"):
        inside = path if mount.root == "/" else path[len(mount.root) :]
    else:
        inside = ""  # the group lies outside of what is mounted: what is mounted is as near as we can look
    parts = [part for part in inside.split("/") if part]
    if ".." in parts or not point.joinpath(*parts).is_dir():
        parts = []
    for length in range(len(parts), -1, -1):
        yield point.joinpath(*parts[:length])


def _mounts(root: Path) -> Iterator[_Mount]:
    """The mounted hierarchies, by proc(5): fields, a dash, then type, source and options of the file system."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        fields, _, file_system = line.partition(" - ")
        where, what = fields.split(), file_system.split()
        if len(where) > 4 and len(what) > 2 and what[0] in ("cgroup", "cgroup2"):
            version = 2 if what[0] == "cgroup2" else 1
            yield _Mount(version, _unescaped(where[3]), _unescaped(where[4]), frozenset(what[2].split(",")))


def _unescaped(path: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), path)


def _field(text: str, name: str) -> int | None:
    """The number behind a name in lines of `name number`."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
