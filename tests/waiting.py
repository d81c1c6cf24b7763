"""Waiting for what must come about: by looking again and again, with a limit that only something broken reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

# Beyond what a machine needs that is ten times slower than a laptop and busy besides; whoever waits so long waits for ever.
HANG_S: Final = 120.0
# To look costs the test and the server some 5 ms each: what takes seconds is looked at ten times a second, and with the next look it is seen.
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.1


def wait_for(condition: Callable[[], object], limit_s: float = HANG_S) -> None:
    """Returns as soon as the condition holds.

    Raises:
        AssertionError: it does not hold after `limit_s` seconds.
    """
    end, pause_s = time.monotonic() + limit_s, _FIRST_PAUSE_S
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(pause_s)
        pause_s = min(_LONGEST_PAUSE_S, 1.2 * pause_s)
