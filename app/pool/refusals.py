"""The pool's refusals, in words that a client can act on."""

from __future__ import annotations

from typing import Final

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


_CRASHERS: Final = "NaN, extreme or out-of-range values in its inputs, on which PyTorch is known to crash"


def killed_for_memory(size: int, memory_bytes: int) -> PullbackError:
    return PullbackError(
        "out_of_memory",
        "The worker that computed this query was ended by the system, because all processes together had reached the memory that "
        "they may take.",
        expected=f"all processes of the service within {memory_bytes} bytes",
        given=f"a body of {size} bytes, and what its answer needs",
        fix="Send smaller tensors or ask for less at once; or give the service more memory, or fewer workers.",
    )


def worker_crashed() -> PullbackError:
    return PullbackError(
        "worker_crashed",
        "Your query crashed: two workers died, one after the other, while they computed it.",
        fix=f"Look for {_CRASHERS}; other queries are answered.",
    )


def workers_lost(count: int) -> PullbackError:
    """By no fault that is known of the query."""
    return PullbackError(
        "starting",
        f"{count} workers were lost, one after the other, while they had this query, which is not known to be the cause.",
        fix="Try again in a moment.",
        retry_after_s=2,
    )


def quarantined(left_s: int) -> PullbackError:
    return PullbackError(
        "worker_crashed",
        f"The very same query cost two workers a moment ago, so it was not tried now and is refused for {left_s} s more.",
        expected="a query that has not just crashed",
        fix=f"Look for {_CRASHERS}, and send the query when it is changed, or later.",
        retry_after_s=left_s,
    )


def body_without_memory(size: int) -> PullbackError:
    return PullbackError(
        "out_of_memory",
        f"The body of {size} bytes does not fit into this worker's memory.",
        expected="a body that fits into the memory of a worker (PULLBACK_WORKER_MEMORY_BYTES)",
        given=f"{size} bytes",
        fix="Send smaller tensors, in several queries.",
    )


def headers_too_large(size: int, limit: int) -> PullbackError:
    return PullbackError(
        "headers_too_large",
        "What the request's address and headers say of the query is too long.",
        expected=f"at most {limit} bytes of Content-Type, Content-Encoding, Accept and address together",
        given=f"{size} bytes",
        fix="Send shorter headers; tensors and names belong into the body.",
    )
