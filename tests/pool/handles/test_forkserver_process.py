"""The forkserver's process, as it is started: one that cannot be started leaves no descriptor behind, for it is tried again and again."""

from __future__ import annotations

import os
import subprocess

import pytest

from app.pool.handles.forkserver_process import ForkserverProcess, Lifeline, start
from app.settings import Settings


def test_a_signal_of_the_terminal_is_not_for_it() -> None:
    """Ctrl-C goes to the whole group of the command; a child that still imports PyTorch would print where it was."""
    with start(["sleep", "60"], (), dict(os.environ)) as process:
        group = os.getpgid(process.pid)
        process.kill()
    assert group == process.pid


def test_one_that_cannot_be_started_leaves_nothing_open_but_the_lifeline_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(subprocess, "Popen", refuse)
    lifeline = Lifeline()
    before = set(os.listdir("/proc/self/fd"))
    for held in (None, lifeline):
        with pytest.raises(BlockingIOError):
            ForkserverProcess(Settings(), held)
        assert set(os.listdir("/proc/self/fd")) == before
    lifeline.cut()
