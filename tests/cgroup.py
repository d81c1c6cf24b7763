"""A real control group of memory for a test, where this machine lets us make one."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

_PLACES = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """The folder of a new group with this limit; a process joins by writing its id to `cgroup.procs`. Skips where that is not allowed."""
    for parent, limit in _PLACES:
        group = parent / f"pullback-{uuid.uuid4().hex[:8]}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(limit_bytes))
            if not os.access(group / "cgroup.procs", os.W_OK):
                raise OSError
        except OSError:
            group.rmdir()
            continue
        try:
            yield group
        finally:
            # The last process has ended, but the kernel may need a moment.
            for _ in range(100):
                with contextlib.suppress(OSError):
                    group.rmdir()
                    break
        return
    pytest.skip("no control group of memory can be made here")
