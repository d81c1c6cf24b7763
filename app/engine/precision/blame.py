"""Which step lost the digits: followed from a derivative back to the last place where they were still there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from app.catalogue.dtypes import dtype_name
from app.catalogue.facts import operations_with
from app.engine.precision.digits import full_digits, largest, magnitudes, right_digits, smallest
from app.engine.precision.exact_arithmetic.numbers import MP
from app.engine.precision.runs import Run
from app.engine.stepwise.point import Ref, name_of
from app.engine.stepwise.trace import StepRecord, StepTrace


@dataclass(frozen=True, slots=True)
class Blame:
    """The step that lost digits, and how."""

    node: fx.Node
    reason: str


class Investigation:
    """Follows lost digits through two runs of the same steps: the ordinary one and the reference."""

    def __init__(self, trace: StepTrace, run: Run, reference: Run, zero: float, dtype: torch.dtype) -> None:
        self._trace, self._run, self._reference = trace, run, reference
        self._zero, self._dtype, self._whole = zero, dtype, full_digits(dtype)
        self._maker = trace.maker
        self._memory: dict[tuple[str, Ref], float] = {}
        self._scale = max((largest(c) for c in reference.cotangents.values()), default=1.0)

    def of_gradient(self, leaf: Ref) -> Blame | None:
        """The step at which the derivative with respect to `leaf` lost its digits."""
        for _ in range(len(self._trace.records) + 1):
            digits = self._cotangent(leaf)
            shares = self._shares(leaf)
            if not shares:
                return None
            record, share = min(shares, key=lambda pair: pair[1])
            if share > self._near(digits):
                return self._join([record for record, _ in shares])
            worse = [ref for ref in record.refs() if ref in self._run.cotangents and self._cotangent(ref) <= self._near(share)]
            if worse:
                leaf = min(worse, key=self._cotangent)
                continue
            steepest = min(
                (ref for ref in (*record.parents, *record.refs()) if ref in self._run.values), key=self._value, default=None
            )
            if steepest is not None and self._value(steepest) <= self._near(share):
                blame = self.of_value(steepest)
                if blame is not None:
                    return blame
            return Blame(record.node, self._backward_reason(leaf, share))
        return None

    def of_value(self, ref: Ref) -> Blame | None:
        """The step at which the forward pass lost the digits of this tensor."""
        while ref in self._maker:
            record = self._maker[ref]
            digits = self._value(ref)
            parents = [parent for parent in record.parents if parent in self._run.values]
            worst = min(parents, key=self._value, default=None)
            if worst is None or self._value(worst) > self._near(digits):
                return Blame(record.node, self._forward_reason(record, ref, worst, digits))
            ref = worst
        return None

    def _near(self, digits: float) -> float:
        """What is at most this has lost most of what `digits` has lost."""
        return digits + (self._whole - digits) / 2

    def _value(self, ref: Ref) -> float:
        return self._digits("value", ref, self._run.values[ref], self._reference.values.get(ref))

    def _cotangent(self, ref: Ref) -> float:
        return self._digits("cotangent", ref, self._run.cotangents[ref], self._reference.cotangents.get(ref))

    def _shares(self, ref: Ref) -> list[tuple[StepRecord, float]]:
        others = {record.node: share for record, share in self._reference.parts.get(ref, ())}
        return [
            (record, self._compared(share, others[record.node]))
            for record, share in self._run.parts.get(ref, ())
            if record.node in others
        ]

    def _digits(self, what: str, ref: Ref, values: Any, reference: Any) -> float:
        if (what, ref) not in self._memory:
            self._memory[what, ref] = self._compared(values, reference)
        return self._memory[what, ref]

    def _compared(self, values: Any, reference: Any) -> float:
        if reference is None or not values.size:
            return self._whole
        scale = self._scale if largest(reference) == 0 else largest(reference)
        return float(right_digits(values, reference, self._dtype, scale, self._zero).min())

    def _join(self, records: Sequence[StepRecord]) -> Blame:
        """Paths that are each right and cancel where they meet: the first step that depends on all of them did it."""
        reach: dict[Ref, set[fx.Node]] = {}
        for record in self._trace.records:
            nodes: set[fx.Node] = set().union(*(reach.get(parent, set()) for parent in record.parents))
            if record in records:
                nodes.add(record.node)
            for ref in record.refs():
                reach[ref] = nodes
            if len(nodes) == len({r.node for r in records}):
                return Blame(
                    record.node,
                    "The derivatives of what it combines are nearly equal and opposite, and cancel: each is right, their sum is not.",
                )
        return Blame(records[0].node, "The derivatives of several paths cancel here: each is right, their sum is not.")

    def _forward_reason(self, record: StepRecord, ref: Ref, parent: Ref | None, digits: float) -> str:
        values, reference = self._run.values[ref], self._reference.values[ref]
        before = self._whole if parent is None else self._value(parent)
        went = f"{before:.1f} digits go in, {digits:.1f} come out"
        if not np.isfinite(values).all() and _all_finite(reference):
            if largest(reference) > torch.finfo(self._dtype).max:
                return (
                    f"Overflow: a finite result of up to {largest(reference):.3g} is too large for {dtype_name(self._dtype)}."
                )
            return f"It is given what has become zero or infinite in {dtype_name(self._dtype)}; the right result is at most {largest(reference):.3g}."
        if _flushed(values, reference, self._dtype):
            return (
                f"Underflow: results down to {_written(reference)} are too small for {dtype_name(self._dtype)} and become zero."
            )
        if name_of(record.node) in operations_with("cancels"):
            inputs = max(
                (largest(self._reference.values[p]) for p in record.parents if p in self._reference.values), default=0.0
            )
            if inputs > 10 * smallest(reference):
                return f"Cancellation: numbers of up to {inputs:.3g} leave {smallest(reference):.3g}, and their rounding errors stay: {went}."
        return (
            f"It magnifies the rounding of what it is given ({dtype_name(self._dtype)} keeps {self._whole:.1f} digits): {went}."
        )

    def _backward_reason(self, leaf: Ref, digits: float) -> str:
        values, reference = self._run.cotangents[leaf], self._reference.cotangents[leaf]
        if not np.isfinite(values).all() and _all_finite(reference):
            most = largest(reference)
            return f"Its derivative overflows or meets infinity in {dtype_name(self._dtype)}, though the right one is at most {most:.3g}."
        if _flushed(values, reference, self._dtype):
            return f"Underflow: derivatives down to {_written(reference)} are too small for {dtype_name(self._dtype)} and become zero."
        return f"Its derivative is computed with a loss of digits: {self._whole:.1f} go in, {digits:.1f} come out."


def _all_finite(numbers: Any) -> bool:
    return all(size < MP.inf for size in magnitudes(numbers))


def _flushed(values: Any, reference: Any, dtype: torch.dtype) -> bool:
    small = torch.finfo(dtype).tiny
    pairs = zip(magnitudes(values), magnitudes(reference), strict=True)
    return any(0 < right < small and value < small for value, right in pairs)


def _written(reference: Any) -> str:
    """The smallest magnitude, which may be far below what a float can hold."""
    return str(MP.nstr(min(size for size in magnitudes(reference) if size > 0), 3))
