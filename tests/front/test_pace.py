"""How slow a transfer may be: over any window, not in the mean."""

from __future__ import annotations

import pytest

from app.front.http.pace import PRESSED_FACTOR, PRESSED_WINDOW_S, TransferLimits, Transfers

LIMITS = TransferLimits(window_s=30.0, body_bytes_per_s=4096, reply_bytes_per_s=4096, discarded_bytes=1000)
TICK_S = 0.1


def seconds_allowed(rate: float, burst: int = 0, limit_s: float = 600.0, *, pressed: bool = False) -> float:
    """After how long an upload is refused that begins with `burst` bytes and goes on at `rate` bytes a second."""
    transfers = Transfers()
    transfers.receiving(0.0)
    now = 0.0
    while now < limit_s:
        now += TICK_S
        count = int(burst + rate * now)
        if rate:
            transfers.received(now)
        if transfers.receives_too_slowly(now, count, LIMITS) or transfers.is_in_the_way(now, count, LIMITS, pressed=pressed):
            return now
    return limit_s


@pytest.mark.parametrize("bits_per_s", [33_600, 64_000, 128_000, 384_000, 10_000_000])
def test_a_slow_mobile_line_is_fast_enough(bits_per_s: int) -> None:
    assert seconds_allowed(bits_per_s / 8) == 600


@pytest.mark.parametrize("rate", [0, 1, 10, 1024, 1200, 4000])
@pytest.mark.parametrize("burst", [0, 1000, 1 << 20, 1 << 30])
def test_a_trickle_is_refused_whatever_came_before(rate: float, burst: int) -> None:
    """A gigabyte at once does not buy days of trickling."""
    assert seconds_allowed(rate, burst) <= 60.5


def test_while_bytes_are_short_who_holds_many_must_be_faster() -> None:
    fast = 4096 * PRESSED_FACTOR * 1.1
    assert seconds_allowed(fast, 1 << 20, pressed=True) == 600
    assert seconds_allowed(fast / 2, 1 << 20, pressed=True) <= 2 * PRESSED_WINDOW_S + 1
    assert seconds_allowed(fast / 2, 1 << 20, pressed=False) == 600
    assert seconds_allowed(5000, 0, limit_s=12, pressed=True) == 12  # it holds next to nothing yet


def test_time_in_which_we_do_not_read_does_not_count() -> None:
    transfers = Transfers()
    transfers.receiving(0.0)
    transfers.receiving(100.0, 5000)
    assert not transfers.receives_too_slowly(110.0, 5000, LIMITS)
    assert transfers.receives_too_slowly(131.0, 5001, LIMITS)


def seconds_until_cut(rate: float, piece: int = 1 << 20, limit_s: float = 600.0) -> float:
    """After how long a client is cut that takes so many bytes a second of a reply sent piece by piece."""
    transfers = Transfers()
    now, taken, unsent = 0.0, 0.0, float(piece)
    transfers.paused(now, piece)
    while now < limit_s:
        now += TICK_S
        unsent -= rate * TICK_S
        taken += rate * TICK_S
        if unsent <= 0:
            transfers.resumed()
            unsent = float(piece)
            transfers.paused(now, piece)
        if transfers.sends_too_slowly(now, int(unsent), LIMITS, pressed=False):
            return now
    return limit_s


@pytest.mark.parametrize("rate", [0, 1, 100, 4000])
def test_who_takes_a_reply_too_slowly_is_cut(rate: float) -> None:
    assert seconds_until_cut(rate) <= 60.5
    assert seconds_until_cut(rate, piece=1000) <= 60.5


def test_who_takes_it_steadily_is_not() -> None:
    assert seconds_until_cut(5000) == 600
    assert seconds_until_cut(50_000) == 600


def test_a_refused_client_has_its_time_and_no_more() -> None:
    transfers = Transfers()
    transfers.linger(0.0)
    assert not transfers.has_lingered(9.0, LIMITS)
    assert transfers.has_lingered(11.0, LIMITS)
    transfers.discard(11.0, 1000)
    assert not transfers.has_lingered(12.0, LIMITS)
    transfers.discard(12.0, 1)
    assert transfers.has_lingered(12.0, LIMITS)


def test_time_in_which_we_do_not_run_does_not_count() -> None:
    """Neither for a body nor for a reply; who is too slow in the time that is left is refused all the same."""
    transfers = Transfers()
    transfers.receiving(0.0)
    transfers.paused(0.0, 1 << 20)
    transfers.forgive(100.0, 99.0)
    assert not transfers.receives_too_slowly(100.0, 1000, LIMITS)
    assert not transfers.is_in_the_way(100.0, 100_000, LIMITS, pressed=True)
    assert not transfers.sends_too_slowly(100.0, 1 << 20, LIMITS, pressed=True)
    assert transfers.is_in_the_way(105.0, 100_000, LIMITS, pressed=True)
    assert transfers.receives_too_slowly(131.0, 1000, LIMITS)
    assert transfers.sends_too_slowly(131.0, 1 << 20, LIMITS, pressed=False)


def test_what_is_forgiven_is_no_credit() -> None:
    """A body that began while we did not run has its time from now on, and not from later."""
    transfers = Transfers()
    transfers.receiving(95.0)
    transfers.forgive(100.0, 99.0)
    assert transfers.receives_too_slowly(131.0, 1000, LIMITS)
