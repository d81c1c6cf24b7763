"""One query at work: what its kinds share is computed once, and which room answers which kind.

Knows the table of kinds (contract, section 4). Refuses to know how queries arrive and leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from app.engine.autodiff import jacobian, layouts, products
from app.engine.autodiff.cotangents import Vectors, cotangents, tangents
from app.engine.autodiff.evaluation import Evaluation, Notes, no_derivative
from app.engine.check.report import check
from app.engine.explain.report import explain
from app.engine.planning.prepare import Prepared
from app.engine.tensors import to_torch
from app.errors import PullbackError
from app.limits import Limits
from app.query import Query


@dataclass
class Job:
    """One query with its leaves on the device. `forms`: path of a result → `dense`, `diagonal`, `block`, where not asked dense."""

    query: Query
    prepared: Prepared
    leaves: Mapping[str, Tensor]
    notes: Notes
    limits: Limits
    forms: dict[str, str] = field(default_factory=dict)

    @cached_property
    def evaluation(self) -> Evaluation:
        return Evaluation(self.prepared.function, self.leaves, self.prepared.wrt, self.query.seed, self.notes)

    @cached_property
    def scalar(self) -> Tensor:
        """The output that `gradient`, `hessian`, `hvp`, `fisher` are of. Raises `not_differentiable` where its path is cut."""
        name = self.prepared.of or ""
        value = self.evaluation.outputs[name]
        if not value.requires_grad:
            raise no_derivative(self.prepared.function.title, self.prepared.wrt, {name: value.dtype})
        return value

    @cached_property
    def first(self) -> tuple[Tensor | None, ...]:
        """∇ of `scalar`, differentiable again."""
        return products.first_derivative(self.evaluation, self.scalar)

    @cached_property
    def cotangents(self) -> tuple[Vectors, bool]:
        return cotangents(self.query.cotangent, self.evaluation.smooth(), self.evaluation.outputs, self.notes)

    @cached_property
    def tangents(self) -> tuple[Vectors, bool]:
        wrt = {name: leaf.detach() for name, leaf in zip(self.evaluation.wrt, self.evaluation.inputs, strict=True)}
        return tangents(self.query.tangent, wrt, self.notes)


def _outputs(job: Job) -> Any:
    return job.evaluation.outputs


def _gradient(job: Job) -> Any:
    return products.gradient(job.evaluation, job.scalar)


def _vjp(job: Job) -> Any:
    return products.vjp(job.evaluation, *job.cotangents)


def _jvp(job: Job) -> Any:
    return products.jvp(job.evaluation, *job.tangents)


def _jacobian(job: Job) -> Any:
    plan = job.prepared.plan
    if job.query.format == "dense":
        return jacobian.jacobian(job.evaluation, plan.method, plan.rows)
    return {
        name: layouts.structured(job.evaluation, value, f"jacobian.{name}", job.query.format, plan.rows, job.limits, job.forms)
        for name, value in job.evaluation.smooth().items()
    }


def _hessian(job: Job) -> Any:
    rows = job.prepared.plan.rows
    if job.query.format == "dense":
        return jacobian.hessian(job.evaluation, job.first, rows)
    return {
        name: layouts.structured(job.evaluation, value, f"hessian.{name}", job.query.format, rows, job.limits, job.forms)
        if value is not None and value.requires_grad
        else jacobian.zeros(job.evaluation, name)
        for name, value in zip(job.evaluation.wrt, job.first, strict=True)
    }


def _hvp(job: Job) -> Any:
    return products.hvp(job.evaluation, job.first, *job.tangents)


def _fisher(job: Job) -> Any:
    return jacobian.fisher(job.evaluation, job.scalar, job.prepared.plan.rows)


def _fisher_diagonal(job: Job) -> Any:
    return jacobian.fisher_diagonal(job.evaluation, job.scalar, job.prepared.plan.rows)


def _explain(job: Job) -> Any:
    return explain(job.prepared.function, job.leaves, job.prepared.wrt, job.query.seed)


def _check(job: Job) -> Any:
    job.evaluation.smooth()  # refuses where there is no derivative to check
    expected = {name: to_torch(data, str(job.evaluation.inputs[0].device)) for name, data in job.query.expected.items()}
    kind = next((kind for kind in ("jacobian", "gradient") if kind in job.query.want), "vjp")
    # Of one output alone where the query names it; the cotangents are all outputs' otherwise.
    alone = kind == "gradient" or (job.query.of is not None and not job.query.cotangent)
    vectors = None if alone else _single_cotangents(job)
    of = job.prepared.of or job.query.of
    return check(job.prepared.function, job.leaves, job.prepared.wrt, vectors, expected, of, kind, job.query.seed)


def _single_cotangents(job: Job) -> Vectors:
    """The cotangents that `check` reduces by; without a note where each output is one number, for then there is nothing to choose."""
    smooth = job.evaluation.smooth()
    scalars = all(value.numel() == 1 for value in smooth.values())
    if scalars and not job.query.cotangent:
        return {name: torch.ones_like(value) for name, value in smooth.items()}
    vectors, several = job.cotangents
    if several:
        raise PullbackError(
            "bad_cotangent", "`check` takes one cotangent of each output.", at="cotangent", fix="Send one at a time."
        )
    return vectors


KINDS: Final[dict[str, Callable[[Job], Any]]] = {
    "outputs": _outputs,
    "gradient": _gradient,
    "vjp": _vjp,
    "jvp": _jvp,
    "jacobian": _jacobian,
    "hessian": _hessian,
    "hvp": _hvp,
    "fisher": _fisher,
    "fisher_diagonal": _fisher_diagonal,
    "explain": _explain,
    "check": _check,
}


def results(job: Job) -> dict[str, Any]:
    """The answer's tree, kind by kind in the order of `want`; tensors at its leaves. Raises PullbackError.

    Autograd keeps nothing where there is nothing to differentiate by.
    """
    with torch.set_grad_enabled(bool(job.prepared.wrt)):
        return {kind: KINDS[kind](job) for kind in job.query.want}
