"""The verdict: crashes are the query's fault; kills are, unless it had hardly begun or they befall others as well."""

from __future__ import annotations

import signal

import pytest

from app.pool.queueing.verdict import SIGKILL, Verdict


@pytest.mark.parametrize("code", [-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGBUS, 1, 0])
@pytest.mark.parametrize("ran_s", [0.0, 10.0])
def test_a_crash_is_its_fault(code: int, ran_s: float) -> None:
    assert Verdict().is_guilty(code, 1, ran_s, now=100)


def test_an_unknown_end_is_not() -> None:
    assert not Verdict().is_guilty(None, 1, 10.0, now=100)


def test_a_kill_is_unless_it_had_hardly_begun() -> None:
    verdict = Verdict()
    assert not verdict.is_guilty(SIGKILL, 1, 0.05, now=100)
    assert verdict.is_guilty(SIGKILL, 1, 0.5, now=101)
    assert verdict.is_guilty(SIGKILL, 1, 0.5, now=102)


@pytest.mark.parametrize("code", [SIGKILL, None], ids=["known as kills", "told too late"])
def test_kills_at_random_are_nobodys_fault(code: int | None) -> None:
    verdict = Verdict()
    for second, number in enumerate([1, 0, 2, 0]):
        verdict.is_guilty(code, number, 1.0, now=100 + second)
    assert not verdict.is_guilty(SIGKILL, 3, 1.0, now=104)
    assert verdict.is_guilty(-signal.SIGSEGV, 3, 1.0, now=104)
    # When they are long past, it is a query's again.
    assert verdict.is_guilty(SIGKILL, 3, 1.0, now=120)
