"""The pace of a transfer: which bytes must have moved within which time, as pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# While bytes are short, a transfer that holds many of them must be this many times as fast, over a window of so many seconds:
# 128 KiB/s with the default floor, a megabit line. Who is slower can come again when there is room.
PRESSED_FACTOR: Final = 32
PRESSED_WINDOW_S: Final = 5.0
# What holds less is not worth cutting.
PRESSED_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Floors:
    """The slowest that a transfer may be: bytes a second over any window of `window_s` seconds, for bodies and for replies."""

    window_s: float
    body_bytes_per_s: float
    reply_bytes_per_s: float


class _Window:
    __slots__ = ("_count", "_since")

    def __init__(self, now: float, count: int) -> None:
        self._since = now
        self._count = count

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

    def is_too_slow(self, now: float, count: int, window_s: float, floor: float, *, pressed: bool) -> bool:
        """`count`: bytes moved until now. `pressed`: bytes are short, and this transfer holds many."""
        too_slow = self._steady.is_below(now, count, window_s, floor)
        below_pressed = self._pressed.is_below(now, count, PRESSED_WINDOW_S, floor * PRESSED_FACTOR)
        return too_slow or (pressed and below_pressed)


class Transfers:
    """What one connection receives and sends, and since when; times are seconds of the loop's clock."""

    __slots__ = ("_last_data", "_queued", "_receiving", "_sending", "_taken")

    def __init__(self) -> None:
        self._last_data = 0.0
        self._receiving: Pace | None = None
        self._sending: Pace | None = None
        self._queued = 0  # bytes that the transport had to keep when writing was paused
        self._taken = 0  # bytes that the client has taken since the first pause

    def receiving(self, now: float, count: int = 0) -> None:
        """A request begins, with `count` bytes there; or time begins anew, as it was us who did not read."""
        self._last_data = now
        self._receiving = Pace(now, count)

    def received(self, now: float) -> None:
        self._last_data = now

    def complete(self) -> None:
        """No request is being received any more."""
        self._receiving = None

    def receives_too_slowly(self, now: float, count: int, floors: Floors, *, pressed: bool) -> bool:
        """`count`: bytes of the request until now. Neither a silence of a whole window, nor less than the floor."""
        if self._receiving is None:
            return False
        pressed = pressed and count > PRESSED_BYTES
        too_slow = self._receiving.is_too_slow(now, count, floors.window_s, floors.body_bytes_per_s, pressed=pressed)
        return too_slow or now > self._last_data + floors.window_s

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

    def sends_too_slowly(self, now: float, unsent: int, floors: Floors, *, pressed: bool) -> bool:
        """`unsent`: bytes that wait now."""
        if self._sending is None:
            return False
        if unsent == 0:
            self._sending = None
            return False
        taken = self._taken + self._queued - unsent
        pressed = pressed and unsent > PRESSED_BYTES
        return self._sending.is_too_slow(now, taken, floors.window_s, floors.reply_bytes_per_s, pressed=pressed)
