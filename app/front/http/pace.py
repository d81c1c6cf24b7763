"""The pace of a transfer: which bytes must have moved within which time, as pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# While bytes are short, a transfer that holds many of them must be this many times as fast, over a window of so many seconds:
# 128 KiB/s with the default floor, a megabit line. Who is slower can come again when there is room.
PRESSED_FACTOR: Final = 32
PRESSED_WINDOW_S: Final = 5.0
# A refused client is waited for until it sends nothing for so long, and never longer than that in all.
_LINGER_S: Final = 10.0
_LINGER_LIMIT_S: Final = 60.0
# What holds less is not worth cutting.
PRESSED_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """The slowest that a transfer may be: bytes a second over any window of `window_s` seconds, for bodies and for replies.

    `discarded_bytes`: how many more a client may send whose request has been refused.
    """

    window_s: float
    body_bytes_per_s: float
    reply_bytes_per_s: float
    discarded_bytes: int


class _Window:
    __slots__ = ("_count", "_since")

    def __init__(self, now: float, count: int) -> None:
        self._since = now
        self._count = count

    def forgive(self, now: float, seconds: float) -> None:
        self._since = min(now, self._since + seconds)

    def is_below(self, now: float, count: int, seconds: float, floor: float) -> bool:
        """At the end of each window of so many seconds: whether less than `floor` bytes a second came in it."""
        elapsed = now - self._since
        if elapsed < seconds:
            return False
        below = count - self._count < floor * elapsed
        self._since, self._count = now, count
        return below


class Pace:
    """One transfer that began at `now`, a second of the loop's clock, with `count` bytes moved already.

    A mean over all of it would let who has sent much hold it for long: 256 MB once, and then nothing for days.
    """

    __slots__ = ("_pressed", "_steady")

    def __init__(self, now: float, count: int = 0) -> None:
        self._steady = _Window(now, count)
        self._pressed = _Window(now, count)

    def forgive(self, now: float, seconds: float) -> None:
        """So much of the time until now is not counted."""
        self._steady.forgive(now, seconds)
        self._pressed.forgive(now, seconds)

    def is_too_slow(self, now: float, count: int, window_s: float, floor: float) -> bool:
        """`count`: bytes moved until now."""
        return self._steady.is_below(now, count, window_s, floor)

    def is_in_the_way(self, now: float, count: int, floor: float, *, pressed: bool) -> bool:
        """Slower than one may be that holds many bytes while they are short (`pressed`)."""
        return self._pressed.is_below(now, count, PRESSED_WINDOW_S, floor * PRESSED_FACTOR) and pressed


class Transfers:
    """What one connection receives and sends, and since when; times are seconds of the loop's clock."""

    __slots__ = ("_discarded_bytes", "_last_data", "_lingering_since", "_queued", "_receiving", "_sending", "_taken")

    def __init__(self) -> None:
        self._last_data = 0.0
        self._lingering_since: float | None = None
        self._discarded_bytes = 0
        self._receiving: Pace | None = None
        self._sending: Pace | None = None
        self._queued = 0  # bytes that the transport had to keep when writing was paused
        self._taken = 0  # bytes that the client has taken since the first pause

    def discard(self, now: float, count: int) -> None:
        """`count` bytes have come of a request that is refused already."""
        self._last_data = now
        self._discarded_bytes += count

    def linger(self, now: float) -> None:
        """The last response is out, but the client may still be sending, and should read it first."""
        self._last_data = now
        self._receiving = None
        if self._lingering_since is None:
            self._lingering_since = now

    def has_lingered(self, now: float, limits: TransferLimits) -> bool:
        """The client has had its time, or sends without an end."""
        if self._discarded_bytes > limits.discarded_bytes:
            return True
        since = self._lingering_since
        return since is not None and (self.is_silent(now, _LINGER_S) or now > since + _LINGER_LIMIT_S)

    def forgive(self, now: float, seconds: float) -> None:
        """For so long until now it was us who neither read nor wrote: that is not the client's time."""
        self._last_data = min(now, self._last_data + seconds)
        if self._lingering_since is not None:
            self._lingering_since = min(now, self._lingering_since + seconds)
        for pace in (self._receiving, self._sending):
            if pace is not None:
                pace.forgive(now, seconds)

    def receiving(self, now: float, count: int = 0) -> None:
        """A request begins, with `count` bytes there; or time begins anew, as it was us who did not read."""
        self._last_data = now
        self._discarded_bytes = 0
        self._receiving = Pace(now, count)

    def received(self, now: float) -> None:
        self._last_data = now

    def complete(self) -> None:
        """No request is being received any more."""
        self._receiving = None

    def receives_too_slowly(self, now: float, count: int, limits: TransferLimits) -> bool:
        """`count`: bytes of the request until now. Neither a silence of a whole window, nor less than the floor."""
        if self._receiving is None:
            return False
        too_slow = self._receiving.is_too_slow(now, count, limits.window_s, limits.body_bytes_per_s)
        return too_slow or self.is_silent(now, limits.window_s)

    def is_in_the_way(self, now: float, count: int, limits: TransferLimits, *, pressed: bool) -> bool:
        """The same while bytes are short (`pressed`), for who holds many."""
        pressed = pressed and count > PRESSED_BYTES
        return self._receiving is not None and self._receiving.is_in_the_way(
            now, count, limits.body_bytes_per_s, pressed=pressed
        )

    def is_silent(self, now: float, seconds: float) -> bool:
        """Nothing has come for so long."""
        return now > self._last_data + seconds

    @property
    def is_receiving(self) -> bool:
        return self._receiving is not None

    def paused(self, now: float, queued: int) -> None:
        """The client does not take what is sent; `queued` bytes wait for it."""
        self._queued = queued
        if self._sending is None:
            self._taken = 0
            self._sending = Pace(now)

    def resumed(self) -> None:
        self._taken += self._queued
        self._queued = 0

    def sends_too_slowly(self, now: float, unsent: int, limits: TransferLimits, *, pressed: bool) -> bool:
        """`unsent`: bytes that wait now."""
        if self._sending is None:
            return False
        if unsent == 0:
            self._sending = None
            return False
        taken = self._taken + self._queued - unsent
        floor = limits.reply_bytes_per_s
        in_the_way = self._sending.is_in_the_way(now, taken, floor, pressed=pressed and unsent > PRESSED_BYTES)
        return self._sending.is_too_slow(now, taken, limits.window_s, floor) or in_the_way
