"""The metrics, in Prometheus' text format: counted in plain numbers for each request, made into families when they are read.

Their labels are the worker's, so their number is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.front.http.exchange import Exchange
from app.pool.pool import Pool

Labelled = TypeVar("Labelled", CounterMetricFamily, GaugeMetricFamily)
# Seconds; from a small query to the longest deadline.
_BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 100.0,
)  # fmt: skip
_BOUNDS: Final = (*map(str, _BUCKETS), "+Inf")


class Histogram:
    """Counts of seconds in buckets, and their sum."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_BUCKETS, seconds)] += 1
        self.sum += seconds

    def family(self, name: str, documentation: str) -> HistogramMetricFamily:
        cumulated, buckets = 0, []
        for bound, number in zip(_BOUNDS, self.counts, strict=True):
            cumulated += number
            buckets.append((bound, float(cumulated)))
        return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=self.sum)


class Metrics(Collector):
    """What has been counted since the start."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._requests: Counter[tuple[str, str]] = Counter()
        self._refusals: Counter[str] = Counter()
        self._bytes_in = 0
        self._bytes_out = 0
        self._request = Histogram()
        self._queue = Histogram()
        self._compute = Histogram()
        self._encode = Histogram()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def count(self, exchange: Exchange, ended: float) -> None:
        """Count one exchange that ended at `ended`, a second of CLOCK_MONOTONIC."""
        self._requests[exchange.labels.get("want", ""), str(exchange.status)] += 1
        if exchange.code:
            self._refusals[exchange.code] += 1
        self._bytes_in += exchange.bytes_in
        self._bytes_out += exchange.bytes_out
        if exchange.worker >= 0:
            self._request.observe(ended - exchange.arrived)
            self._queue.observe(exchange.queue_s)
            self._compute.observe(exchange.timings.get("compute", 0.0))
            self._encode.observe(exchange.timings.get("encode", 0.0))

    def families(self) -> list[Metric]:
        """Everything that this process has counted, and what is known of the process."""
        return list(self._registry.collect())

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "pullback_requests", "Requests, by what was wanted and HTTP status.", labels=("kind", "code")
        )
        for (kind, code), number in self._requests.items():
            requests.add_metric((kind, code), number)
        yield requests
        refusals = CounterMetricFamily("pullback_refusals", "Refusals, by error code.", labels=("code",))
        yield _by_label(refusals, self._refusals)
        yield self._request.family("pullback_request_seconds", "Seconds from a query's headers to its reply.")
        yield self._queue.family("pullback_queue_seconds", "Seconds that a query waited for a worker.")
        yield self._compute.family("pullback_compute_seconds", "Seconds that a worker computed.")
        yield self._encode.family("pullback_encode_seconds", "Seconds that a worker encoded.")
        yield GaugeMetricFamily("pullback_queue_length", "Queries that wait for a worker.", self._pool.waiting_count)
        yield GaugeMetricFamily(
            "pullback_queue_bytes", "Bytes of bodies and replies that are held.", self._pool.budget.held_bytes
        )
        yield _by_label(GaugeMetricFamily("pullback_workers", "Workers, by state.", labels=("state",)), self._pool.states())
        restarts = CounterMetricFamily("pullback_worker_restarts", "Replaced workers, by reason.", labels=("reason",))
        yield _by_label(restarts, self._pool.supervisor.restarts)
        yield CounterMetricFamily("pullback_received_bytes", "Bytes of bodies received.", self._bytes_in)
        yield CounterMetricFamily("pullback_sent_bytes", "Bytes of bodies sent.", self._bytes_out)


def _by_label(family: Labelled, numbers: Mapping[str, int]) -> Labelled:
    """The family with a line for each number, by the value of its only label."""
    for value, number in numbers.items():
        family.add_metric((value,), number)
    return family
