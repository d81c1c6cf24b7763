"""One query at work: what its kinds share is computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from app.engine.autodiff import products
from app.engine.autodiff.blocks import Report, Request
from app.engine.autodiff.cotangents import Vectors, cotangents, tangents
from app.engine.autodiff.evaluation import Evaluation
from app.engine.autodiff.layout_cache import LayoutCache
from app.engine.errors import no_derivative
from app.engine.notes import Notes
from app.engine.planning.prepare import Prepared
from app.engine.stepwise.bounds import BoundedStep, bounded_steps
from app.engine.stepwise.overflow import step_dtypes
from app.engine.stepwise.point import Points
from app.engine.tensors import is_narrow
from app.limits import Limits
from app.query import Query


@dataclass
class Computation:
    """One query with its leaves on the device.

    Attributes:
        layout_cache: layouts of earlier queries.
        layouts: what is said of the forms of Jacobians and Hessians, where not asked dense.
        fixed_forms: path of a result → the form that another sample of the query has.
        plan_times: its memory in multiples of the plan, where all steps ran once more to say notes.
    """

    query: Query
    prepared: Prepared
    leaves: Mapping[str, Tensor]
    notes: Notes
    limits: Limits
    layout_cache: LayoutCache
    layouts: Report = field(default_factory=Report)
    fixed_forms: Mapping[str, str] = field(default_factory=dict)
    plan_times: int = 1

    @cached_property
    def evaluation(self) -> Evaluation:
        prepared = self.prepared
        return Evaluation(
            prepared.function,
            self.leaves,
            prepared.wrt,
            self.query.seed,
            self.notes,
            is_watched=bool(prepared.wrt) and self.may_overflow,
            watched=[node for step in self.bounded_steps or () for node in (step.matrix, step.node)],
        )

    @cached_property
    def bounded_steps(self) -> list[BoundedStep] | None:
        """The steps of linear algebra that may be noted, which the forward remembers; None where it cannot, or one has no bound."""
        prepared = self.prepared
        if not prepared.wrt or prepared.samples is not None:
            return None
        steps = bounded_steps(prepared.function, prepared.function.pattern, prepared.wrt)
        if steps and not prepared.function.has_steps_of_pattern:
            return None
        return None if steps is None or any("sized" in step.node.meta for step in steps) else steps

    @cached_property
    def may_overflow(self) -> bool:
        """A step may be infinite that is finite in float64: something has a narrower dtype."""
        return any(map(is_narrow, self.dtypes))

    @cached_property
    def dtypes(self) -> frozenset[torch.dtype]:
        """Of the leaves and of what the steps give."""
        return step_dtypes(self.prepared.function.pattern).union([leaf.dtype for leaf in self.leaves.values()])

    @cached_property
    def points(self) -> Points:
        """What the reports on the point share."""
        return Points(self.prepared.function, self.leaves, self.query.seed, self.prepared.elsewhere)

    @cached_property
    def scalar(self) -> Tensor:
        """What `gradient`, `hessian`, `hvp`, `fisher` are of: an output, or its sum weighted by its cotangent.

        Raises PullbackError: `not_differentiable` where its path is cut.
        """
        name = self.prepared.of or ""
        value = self.evaluation.outputs[name]
        if not value.requires_grad:
            cut = self.evaluation.cut()
            raise no_derivative(self.prepared.function.title, self.prepared.wrt, {name: value.dtype}, cut)
        return (self.cotangents[0][name] * value).sum() if self.query.weighted else value

    @cached_property
    def first(self) -> tuple[Tensor | None, ...]:
        """∇ of `scalar`, differentiable again."""
        return products.first_derivative(self.evaluation, self.scalar)

    @property
    def is_complex(self) -> bool:
        """A derivative of or by complex numbers."""
        plan = self.prepared.plan
        return any(result.dtype.is_complex for result in (*plan.wrt, *plan.outputs))

    @property
    def layout_request(self) -> Request:
        return Request(
            self.query.format,
            self.fixed_forms,
            self.prepared.plan,
            self.limits,
            self.layout_cache,
            self.layouts,
            self.prepared.samples or 1,
            self.prepared.patterns,
        )

    @cached_property
    def cotangents(self) -> tuple[Vectors, int | None]:
        return cotangents(self.query.cotangent, self.evaluation.differentiable(), self.evaluation.outputs, self.notes)

    @cached_property
    def tangents(self) -> tuple[Vectors, int | None]:
        wrt = {name: leaf.detach() for name, leaf in zip(self.evaluation.wrt, self.evaluation.inputs, strict=True)}
        return tangents(self.query.tangent, wrt, self.notes)
