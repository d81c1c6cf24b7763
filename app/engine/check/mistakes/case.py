"""Two derivatives that differ, and what a hypothesis may ask of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.check.objective import Curvature, Differentiated, Objective
from app.engine.stepwise.point import REFUSALS, Point, step_of
from app.engine.stepwise.trace import StepRecord, StepTrace, VjpRule, step_vjp, trace_steps
from app.program.function import Function

# A Jacobian of more rows is not differentiated again under a hypothesis, nor a longer program: both together are 4,096 backwards of a step,
# 80 ms.
_ROWS: Final = 64
_STEPS: Final = 64
# Steps differentiated backwards under all hypotheses together: some 20 µs each, so about a second.
_STEP_VJPS: Final = 40_000
# Of a number: where printed decimals leave more of it open they show nothing, and other mistakes look alike.
_SHOWS: Final = 0.01
_OWN: Final = 1e-3  # of the tolerance of the largest element, for an element that is much smaller


@dataclass(frozen=True, slots=True)
class Claim:
    """A mistake: its code, a sentence for a person, and the factor where there is one.

    Attributes:
        rank: the likelier, the less; claims of one rank stand in the order of the table.
    """

    code: str
    message: str
    factor: float | None = None
    rank: int = 0

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message} | ({} if self.factor is None else {"factor": self.factor})


@dataclass(frozen=True)
class Case:
    """Two derivatives that differ.

    Attributes:
        name: the input.
        ours, expected: shape [lead…, input…], and whatever was sent; float64 or complex128.
        relative: what two equal derivatives may differ by, relative to an element.
        objective: of which they are.
        seed: of the query.
        memory: what hypotheses found out and share.
        loosest: the largest `relative` under which the two are compared again where nothing fits.
        written: half of the last decimal that every number of `expected` is written with; zero where they are not rounded so.
    """

    name: str
    ours: Tensor
    expected: Tensor
    relative: float
    objective: Differentiated
    seed: int | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    loosest: float = 0.0
    written: float = 0.0
    _spent: list[int] = field(default_factory=lambda: [0])
    _nearly: list[bool] = field(default_factory=lambda: [False])
    _plain: dict[tuple[int, fx.Node], tuple[Sequence[Tensor | None], Sequence[Tensor | None]]] = field(default_factory=dict)

    @cached_property
    def trace(self) -> StepTrace:
        return self.objective.point.once(trace_steps)

    @property
    def blur(self) -> float:
        """What a factor between the two is known to, relative to it."""
        largest = float(self.expected.abs().max())
        return self.relative + (self.written / largest if self.written <= _SHOWS * largest else 0.0)

    def same(self, a: Tensor, b: Tensor, terms: int = 1) -> bool:
        """Equal within the tolerance, and not because both are zero; of sums of so many `terms` that were written one by one."""
        if a.shape != b.shape or not a.numel():
            return False
        size = a.abs()
        largest = float(size.max())
        if not 0 < largest < float("inf"):
            return False
        apart, allowed = (a - b).abs(), size + _OWN * largest
        written = self.written * terms if self.written * terms <= _SHOWS * largest else 0.0
        if bool((apart <= self.relative * allowed + written).all()):
            return True
        self._nearly[0] |= bool((apart <= self.loosest * allowed + written).all())
        return False

    @property
    def may_fit_loosely(self) -> bool:
        """Whether something that was compared so far differs by no more than the loosest comparison allows."""
        return self._nearly[0]

    def fits(self, changed: Tensor | None) -> bool:
        """Whether a changed derivative is what the client has, and ours is not."""
        return changed is not None and self.same(changed, self.expected) and not self.same(self.ours, changed)

    def factor(self, a: Tensor, b: Tensor) -> float | None:
        """The number c ≠ 1 with b = c · a, where there is one."""
        if a.shape != b.shape or not a.numel() or not bool(torch.isfinite(a).all() & torch.isfinite(b).all()):
            return None
        size = float(a.abs().max())
        if size == 0:
            return None
        scaled = a / size
        c = float((scaled.conj() * b).real.sum()) / float((scaled * scaled.conj()).real.sum()) / size
        # Of the numbers that are written, whose rounding is in the factor too.
        return c if c != 0 and abs(c - 1) > 10 * self.blur and self.same(c * a, b, terms=2) else None

    def elements(self, tensor: Tensor) -> int:
        """How many of its elements count: with one, every number is a factor."""
        size = tensor.abs()
        return int((size > 1e-3 * size.max()).sum()) if size.numel() else 0

    def confirming(self, c: float) -> int:
        """How many elements show the factor c each by itself, small ones too."""
        size = (c * self.ours).abs()
        allowed = self.relative * size + torch.where(self.written <= _SHOWS * size, self.written, 0.0)
        return int(((size > 0) & ((self.expected - c * self.ours).abs() <= allowed)).sum())

    def under(self, override: Mapping[fx.Node, VjpRule]) -> Tensor | None:
        """The derivative where some steps go backwards by another rule; None where that is not to be had."""
        objective, trace = self.objective, self.trace
        if (
            not isinstance(objective, Objective)
            or len(objective.rows) > _ROWS
            or objective.combined
            or len(trace.records) > _STEPS
        ):
            return None
        self._spent[0] += len(objective.rows) * len(trace.records)
        if self._spent[0] > _STEP_VJPS:
            return None
        where = dict(zip(objective.point.function.outputs, trace.outputs, strict=True))
        leaf, rows = trace.leaves[self.name], []
        if not self._plain and override:
            self.under({})
        try:
            for number, row in enumerate(objective.rows):
                rules = dict.fromkeys((record.node for record in trace.records), self._remembered(number)) | dict(override)
                derivative = trace.backward({where[name]: cotangent for name, cotangent in row.items()}, rules).get(leaf)
                rows.append(torch.zeros_like(trace.values[leaf]) if derivative is None else derivative.detach())
            stacked = torch.stack(rows).reshape(self.ours.shape)
        except REFUSALS:
            return None  # the rule's shapes do not fit there
        return stacked.conj().resolve_conj() if objective.conjugate and stacked.is_complex() else stacked

    def _remembered(self, row: int) -> VjpRule:
        """Each step's own rule; of a row in which nothing was changed on the way to a step, what it gave there."""

        def rule(record: StepRecord, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
            known = self._plain.get((row, record.node))
            if known is not None and _are_equal(known[0], cotangents):
                return known[1]
            gradients = step_vjp(record, cotangents)
            self._plain.setdefault((row, record.node), (cotangents, gradients))
            return gradients

        return rule

    def of_program(self, function: Function) -> Tensor | None:
        """The derivative of another program at the same inputs; None where it has none of the same shape."""
        objective, point = self.objective, self.objective.point
        self._spent[0] += len(objective.rows) * len(function.graph.nodes)
        if self._spent[0] > _STEP_VJPS or objective.combined:
            return None
        try:
            other = moved_to(objective, Point(function, point.leaves, self.seed, wide=point.wide))
            return other.derivative()[self.name].reshape(self.ours.shape)
        except REFUSALS:
            return None


def _are_equal(some: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> bool:
    pairs = zip(some, others, strict=True)
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def moved_to(objective: Differentiated, point: Point) -> Differentiated:
    """The same rows of another Function."""
    if isinstance(objective, Curvature):
        return Curvature(Objective(point, objective.gradient_of.wrt, objective.gradient_of.rows, ()), objective.name)
    return Objective(point, objective.wrt, objective.rows, objective.lead, objective.conjugate, objective.combined)


def place_of(node: fx.Node) -> str:
    """Where a step stands, in brackets."""
    step = step_of(node)
    return "" if step is None else f" (line {step.line}, `{step.text}`)"
