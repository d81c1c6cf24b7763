"""Which elements of an input move the steps that bend, jump or end at their own inputs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from app.engine.explain.evidence import Evidence
from app.engine.explain.singularities import seen_at_any
from app.engine.stepwise.one_sided import Marks
from app.engine.stepwise.point import step_of
from app.engine.stepwise.trace import StepRecord


@dataclass
class Suspects:
    """Those on the way from the input `name`.

    One backward pass tells what moves any of many steps, a bisection by nine passes which of 400 is the first: a pass for each is
    quadratic in the turns of a loop.
    """

    evidence: Evidence
    name: str
    records: Sequence[StepRecord] = ()
    _known: dict[tuple[StepRecord, ...], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        depends = self.evidence.trace.depends
        self.records = tuple(r for r in self.evidence.steps if any(self.name in depends[p] for p in r.parents))

    def moved_by(self, records: Sequence[StepRecord]) -> Tensor:
        """Elements of the input that move any of `records`."""
        key = tuple(records)
        if key not in self._known:
            mask = seen_at_any(self.evidence, self.name, key, Marks.__slots__)
            leaf = self.evidence.trace.point.leaves[self.name]
            self._known[key] = torch.zeros_like(leaf, dtype=torch.bool) if mask is None else mask
        return self._known[key]

    def first(self, elements: Sequence[int], among: Sequence[StepRecord]) -> StepRecord | None:
        """The first of the steps `among` that any of the elements (flat) moves."""

        def is_moved(count: int) -> bool:
            return bool(self.moved_by(among[: count + 1]).reshape(-1)[list(elements)].any())

        if not elements or not among or not is_moved(len(among) - 1):
            return None
        return among[bisect_left(range(len(among) - 1), True, key=is_moved)]

    def alike(self) -> Iterator[Sequence[StepRecord]]:
        """The steps, together those of one place in the program's text: the turns of a loop."""
        groups: dict[object, list[StepRecord]] = {}
        for record in self.records:
            groups.setdefault(step_of(record.node) or record, []).append(record)
        yield from groups.values()
