"""The request recorder: takes note of every exchange in a microsecond, and counts and logs them a little later, many at a time."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from prometheus_client.core import Metric

from app.front.http.exchange import Exchange
from app.front.observability.log import Log
from app.front.observability.metrics import Metrics

# Lines and counters are written a little later and several at once, so that no reply waits for them; 40 times a second
# at most.
_DELAY_S: Final = 0.025
# So many at once cost the event loop about half a millisecond.
_BATCH: Final = 100


class RequestRecorder:
    """Exchanges that have ended and are not yet counted and logged."""

    def __init__(self, metrics: Metrics, log: Log) -> None:
        self.log = log
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._ended: list[tuple[Exchange, float]] = []

    def ended(self, exchange: Exchange) -> None:
        """The response is out, or the client is gone."""
        if not self._ended:
            self._loop.call_later(_DELAY_S, self.flush)
        self._ended.append((exchange, time.monotonic()))
        if len(self._ended) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Count and log all that has ended."""
        ended, self._ended = self._ended, []
        if not ended:
            return
        for exchange, at in ended:
            self._metrics.count(exchange, at)
        self.log.requests(ended, time.monotonic())

    def families(self) -> list[Metric]:
        """The metrics, with all that has ended until now."""
        self.flush()
        return self._metrics.families()
