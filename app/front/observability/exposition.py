"""The exposition: metrics as numbers by name, which can be summed over several fronts, and as the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import orjson
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from app.group.counts import COUNTER, GAUGE, LARGEST, LEAST

# How samples of several fronts come together, where their family's type does not say it.
_EXCEPTIONS: Final[Mapping[str, str]] = {"process_start_time_seconds": LEAST, "python_info": LARGEST}
_LASTING: Final = frozenset({"counter", "histogram"})


def numbers(families: Iterable[Metric]) -> dict[str, float]:
    """Every sample by a name that holds the rule by which it is summed, its family, its own name and its labels."""
    return {
        _rule(family) + orjson.dumps([family.name, sample.name, sample.labels]).decode(): sample.value
        for family in families
        for sample in family.samples
    }


def families(counts: Mapping[str, float], known: Iterable[Metric]) -> list[Metric]:
    """The families again, of all fronts. `known`: this front's, by which their types and descriptions are known."""
    renewed = {family.name: Metric(family.name, family.documentation, family.type, family.unit) for family in known}
    for name, number in counts.items():
        family, sample, labels = orjson.loads(name[1:])
        if family in renewed:
            renewed[family].add_sample(sample, labels, number)
    return list(renewed.values())


def text(families: Iterable[Metric]) -> bytes:
    """As Prometheus reads it."""
    return generate_latest(_Families(families))


def _rule(family: Metric) -> str:
    return _EXCEPTIONS.get(family.name) or (COUNTER if family.type in _LASTING else GAUGE)


class _Families(Collector):
    """What can be collected of them: they themselves."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families
