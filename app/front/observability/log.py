"""The log: lines on standard output, one a request and one an event, as JSON or as text, never waited for."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from app.front.http.exchange import Exchange
from app.front.observability.log_lines import LINE, Form, event_fields, stamp

# Of a reader that has stopped reading, so that we neither block nor grow.
_BACKLOG_LIMIT: Final = 1000
# At the end: a backlog of 1,000 lines of some 300 bytes is 0.3 MB, which a reader that still reads takes in ms.
_STOP_LIMIT_S: Final = 1.0


class Writer:
    """Writes blocks of bytes to a file descriptor from a thread of its own. A block that finds no room is dropped.

    Arguments:
        writing: held while a block is written, where other processes write to the same.
    """

    def __init__(self, descriptor: int, writing: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._descriptor = descriptor
        self._writing = writing
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_BACKLOG_LIMIT)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, block: bytes) -> bool:
        """False where the block was dropped."""
        try:
            self._blocks.put_nowait(block)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Write what is left, for as long as someone reads it."""
        with contextlib.suppress(queue.Full):
            self._blocks.put(None, timeout=_STOP_LIMIT_S)
        self._thread.join(_STOP_LIMIT_S)

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            view = memoryview(block)
            try:
                with self._writing():
                    while view:
                        view = view[os.write(self._descriptor, view) :]
            except OSError:
                # Nobody reads the log any more; the service goes on.
                return


def _request_fields(exchange: Exchange, ended: float, now_s: float) -> dict[str, Any]:
    labels, timings = exchange.labels, exchange.timings
    fields: dict[str, Any] = {
        "ts": stamp(now_s),
        # 503 is said while starting and draining: nothing is broken then.
        "level": "error" if exchange.status >= 500 and exchange.status != 503 else "info",
        "event": "request",
        "request_id": exchange.request_id,
        "method": exchange.method,
        "path": exchange.path[:200],
        "status": exchange.status,
        "ms": milliseconds(ended - exchange.arrived),
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
    }
    if exchange.code:
        fields["code"] = exchange.code
    if exchange.worker >= 0:
        fields["worker"] = exchange.worker
        fields["operation"] = labels.get("operation", "")
        fields["want"] = labels.get("want", "")
        fields["queue_ms"] = milliseconds(exchange.queue_s)
        for name, seconds in timings.items():
            fields[name + "_ms"] = milliseconds(seconds)
    if exchange.traceparent is not None:
        fields["trace_id"] = exchange.traceparent[3:35].decode()
    return fields


def milliseconds(seconds: float) -> float:
    """Milliseconds with three digits; `round` to digits would take ten times as long."""
    return round(seconds * 1e6) / 1e3


class Log:
    """Formats lines and hands them to the writer, many at a time."""

    def __init__(self, form: Form, writer: Writer) -> None:
        self._line = LINE[form]
        self._writer = writer

    def requests(self, exchanges: list[tuple[Exchange, float]], now: float) -> None:
        """Exchanges with the CLOCK_MONOTONIC second at which each ended; `now` is that clock's time."""
        offset = time.time() - now
        self._write([_request_fields(exchange, ended, ended + offset) for exchange, ended in exchanges])

    def event(self, event: str, **facts: Any) -> None:
        """Something that an operator wants to read."""
        self._write([event_fields(event, facts, time.time())])

    def close(self) -> None:
        self._writer.close()

    def _write(self, lines: list[dict[str, Any]]) -> None:
        self._writer.write(b"".join(map(self._line, lines)))
