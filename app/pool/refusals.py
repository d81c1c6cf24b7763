"""The pool's refusals, in words that a client can act on.

Knows the sentences. Refuses to know when they are due.
"""

from __future__ import annotations

from app.errors import PullbackError


def queue_full(why: str) -> PullbackError:
    return PullbackError("queue_full", f"The queue is full: {why}.", fix="Try again in a moment.", retry_after_s=1)


def bytes_full(held: int, limit: int) -> PullbackError:
    return queue_full(f"{held} bytes of bodies and replies are held already, of {limit} at most")


def reply_without_room(size: int) -> PullbackError:
    """The answer was computed, and had to be dropped."""
    return queue_full(f"the answer's {size} bytes found no room beside the bodies and replies that are held already")


def draining() -> PullbackError:
    return PullbackError(
        "draining", "The service is shutting down.", fix="Send the query again, to another server.", retry_after_s=5
    )


def starting() -> PullbackError:
    return PullbackError("starting", "No worker was ready before the deadline.", fix="Try again in a moment.", retry_after_s=2)


def deadline_exceeded(seconds: float) -> PullbackError:
    return PullbackError(
        "deadline_exceeded",
        f"There was no answer within {seconds:g} s, so the computation was stopped.",
        at="timeout_s",
        given=f"{seconds:g} s",
        fix="Give it more time by timeout_s, up to the server's maximum, or ask for less.",
    )


def worker_crashed(retry_after_s: int | None = None) -> PullbackError:
    return PullbackError(
        "worker_crashed",
        "Two workers died while they computed this query, so it is not tried again for a while.",
        fix="Look for NaN, extreme or out-of-range values in its inputs, on which PyTorch is known to crash; other queries are answered.",
        retry_after_s=retry_after_s,
    )
