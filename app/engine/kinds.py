"""The table of kinds: how each is computed, its form for one sample of a batch, and what it asks of the plan.

A new kind is a row of `KINDS`, its function here, and its word in `app/query.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from app.engine import confirmation
from app.engine.adjoint import note_disagreement
from app.engine.autodiff import jacobian, layouts, products
from app.engine.autodiff.cotangents import Vectors
from app.engine.check.report import check, confirms
from app.engine.computation import Computation
from app.engine.confirmation import Check
from app.engine.explain.evidence import HUGE
from app.engine.explain.report import explain
from app.engine.joint.kind_passes import Passes, Recurring
from app.engine.per_sample import Sample
from app.engine.planning.build import leaves_of
from app.engine.planning.demand import Demand, Result, Sizes
from app.engine.precision.conversion import say_what_conversion_loses
from app.engine.precision.report import precision
from app.engine.tensors import to_torch
from app.errors import PullbackError


@dataclass(frozen=True, slots=True)
class Kind:
    """One row.

    Attributes:
        compute: its part of the answer's tree; tensors at the leaves.
        demand: what it asks of the plan.
        per_sample: its functional form under vmap; None: samples run one by one.
        confirm: what compares the derivatives of all samples, computed together, with another way through PyTorch.
        of_one_point: it looks at one point, so a batch is refused.
        again: its passes in a query that comes again with other numbers, None for the outputs; without it, each goes the whole road.
    """

    compute: Callable[[Computation], Any]
    demand: Demand
    per_sample: Callable[[Sample], Any] | None = None
    confirm: Check | None = None
    of_one_point: bool = False
    again: Callable[[Recurring], Passes | None] | None = None


def _outputs(computation: Computation) -> Any:
    return computation.evaluation.outputs


def _gradient(computation: Computation) -> Any:
    return products.gradient(computation.evaluation, computation.scalar)


def _vjp(computation: Computation) -> Any:
    return products.vjp(computation.evaluation, *computation.cotangents)


def _jvp(computation: Computation) -> Any:
    return products.jvp(computation.evaluation, *computation.tangents)


def _jacobian(computation: Computation) -> Any:
    plan, evaluation = computation.prepared.plan, computation.evaluation
    if computation.query.format == "dense" and not computation.is_complex:
        return jacobian.jacobian(evaluation, plan.method, plan.rows)
    return layouts.jacobian(evaluation, computation.layout_request)


def _hessian(computation: Computation) -> Any:
    if computation.query.format == "dense" and not computation.is_complex:
        return jacobian.hessian(computation.evaluation, computation.first, computation.prepared.plan.rows)
    of = computation.prepared.of or ""
    computation.scalar  # noqa: B018  # refuses where there is no derivative
    return layouts.hessian(computation.evaluation, of, computation.first, computation.layout_request)


def _hvp(computation: Computation) -> Any:
    return products.hvp(computation.evaluation, computation.first, *computation.tangents)


def _fisher(computation: Computation) -> Any:
    return jacobian.fisher(computation.evaluation, computation.scalar, computation.prepared.plan.rows)


def _fisher_diagonal(computation: Computation) -> Any:
    return jacobian.fisher_diagonal(computation.evaluation, computation.scalar, computation.prepared.plan.rows)


def _explain(computation: Computation) -> Any:
    return explain(computation.points, computation.prepared.wrt, partial(confirms, computation.points))


def _check(computation: Computation) -> Any:
    computation.evaluation.differentiable()  # refuses where there is no derivative to check
    for name in computation.query.expected:
        if name not in computation.prepared.wrt:
            raise PullbackError(
                "bad_parameter",
                f"`expected` has a derivative by `{name}`, which is no input that is differentiated.",
                at=f"expected.{name}",
                expected="one of " + ", ".join(computation.prepared.wrt),
                given=name,
                fix='Name each derivative after its input, and name that input in "wrt" if you send "wrt".',
            )
    expected = {
        name: to_torch(data, str(computation.evaluation.inputs[0].device)) for name, data in computation.query.expected.items()
    }
    kind = _compared_kind(computation)
    # Of one output alone where the query names it; the cotangents are all outputs' otherwise.
    alone = kind in ("gradient", "hessian") or (computation.query.of is not None and not computation.query.cotangent)
    vectors = None if alone else _single_cotangents(computation)
    of = computation.prepared.of or computation.query.of
    return check(computation.points, computation.prepared.wrt, vectors, expected, of, kind)


def _compared_kind(computation: Computation) -> str:
    """What `check` compares; refuses `expected` where what is wanted beside is something else, with which it would be compared wrongly."""
    wanted = computation.query.want
    kind = next((kind for kind in ("hessian", "jacobian", "gradient", "vjp") if kind in wanted), None)
    other = next((kind for kind in ("hvp", "jvp", "fisher", "fisher_diagonal") if kind in wanted), None)
    if kind is None and other is not None and computation.query.expected:
        raise PullbackError(
            "bad_parameter",
            f"`check` does not compare `expected` with `{other}`: only with a gradient, a VJP, a Jacobian or a Hessian.",
            at="expected",
            expected="what one of these is: gradient, vjp, jacobian, hessian",
            given=other,
            fix='Name what `expected` is in "want", as in ["check", "hessian"]; for a Hessian times a vector, sum the gradient times that '
            "vector within the program and check its gradient.",
        )
    return kind or "vjp"


def _precision(computation: Computation) -> Any:
    evaluation = computation.evaluation
    outputs = evaluation.differentiable()
    of = computation.prepared.of or computation.query.of
    if of in outputs and not computation.query.cotangent:
        vectors: Vectors = {of: torch.ones_like(outputs[of])}
    else:
        vectors = _single_cotangents(computation, "precision")
    derivatives = products.vjp(evaluation, vectors, None)
    function, seed = computation.prepared.function, computation.query.seed
    report = precision(function, computation.leaves, vectors, derivatives, seed)
    device = str(evaluation.inputs[0].device)
    sent = {name: to_torch(data, device) for name, data in leaves_of(computation.query.inputs)}
    say_what_conversion_loses(function, sent, computation.leaves, vectors, seed, evaluation.notes)
    return report


def _single_cotangents(computation: Computation, kind: str = "check") -> Vectors:
    """The cotangents that a report reduces by; without a note where each output is one number, for then there is nothing to choose."""
    outputs = computation.evaluation.differentiable()
    scalars = all(value.numel() == 1 for value in outputs.values())
    if scalars and not computation.query.cotangent:
        return {name: torch.ones_like(value) for name, value in outputs.items()}
    vectors, num_vectors = computation.cotangents
    if num_vectors is not None:
        raise PullbackError(
            "bad_cotangent", f"`{kind}` takes one cotangent of each output.", at="cotangent", fix="Send one at a time."
        )
    return vectors


# What `explain` and `check` cost in forwards: explain 20 to 60 (its own count, see explain/evidence.py), check 2 an element.
_LOOKS: Final = 30
# And what they hold at a time, of all steps' results and of each look at one of them: measured as the growth of a fresh process
# (`python -m tests.oracle.plan_sweep`), and of 1, 4 and 16 steps of `tanh`, `abs` and `relu` of 400,000 numbers, of `precision` 50,000.
_EXPLAIN_COPIES, _EXPLAIN_LOOKS, _EXPLAIN_LOOKS_OF_DIFFERENTIABLE = 4, (8, 32), (12, 12)
# Nothing is looked at from the sides then: plans 1.7 to 2.3 times what `round`, `relu`, `special.i1` take.
_EXPLAIN_LOOKS_OF_HUGE: Final = (4, 8)
_PRECISION_COPIES, _PRECISION_LOOKS = 40, (26, 26)
_CHECK_COPIES, _CHECK_LOOKS, _CHECK_LOOKS_OF_DIFFERENTIABLE = 1, (48, 48), (28, 28)


def _explain_looks(sizes: Sizes) -> tuple[int, int]:
    if sizes.elements > HUGE:
        return _EXPLAIN_LOOKS_OF_HUGE
    return _EXPLAIN_LOOKS_OF_DIFFERENTIABLE if sizes.differentiable_everywhere else _EXPLAIN_LOOKS


def _check_looks(sizes: Sizes) -> tuple[int, int]:
    return _CHECK_LOOKS_OF_DIFFERENTIABLE if sizes.differentiable_everywhere else _CHECK_LOOKS


def _jacobian_bytes(sizes: Sizes) -> int:
    return sizes.rows * sizes.columns * sizes.width if sizes.dense else _structured_bytes(sizes, *sizes.differentiable)


_INDEX_BYTES: Final = 8  # int64, of each axis of an entry that is sent by its place


def _structured_bytes(sizes: Sizes, *outputs: Result) -> int:
    """Of an entry on each line, with its place where entries are sent by these."""
    axes = max((len(r.shape) for r in outputs), default=0) + max((len(leaf.shape) for leaf in sizes.wrt), default=0)
    return sizes.lines * (sizes.width + (_INDEX_BYTES * axes if sizes.format == "sparse" else 0))


def _hessian_bytes(sizes: Sizes) -> int:
    return sizes.columns**2 * sizes.width if sizes.dense else _structured_bytes(sizes, *sizes.wrt)


# Real and imaginary parts are differentiated each by itself, and ∂f/∂z and ∂f/∂z̄ made of them: measured, five more matrices.
_COMPLEX_PARTS: Final = 5


def _complex_parts(sizes: Sizes) -> int:
    return _COMPLEX_PARTS * _jacobian_bytes(sizes) if sizes.is_complex else 0


# A Fisher matrix is made of all samples' gradients at once: they are held in chunks, and joined.
_FACTORS: Final = 2


def _jacobian_passes(sizes: Sizes) -> int:
    if not sizes.dense:
        return 1
    return sizes.columns if sizes.method == "forward" else sizes.rows


KINDS: Final[dict[str, Kind]] = {
    "outputs": Kind(
        _outputs,
        Demand(bytes=lambda s: sum(o.bytes for o in s.outputs), passes=lambda s: 0, mode="none", derives=False),
        per_sample=lambda sample: sample.outputs({}),
        again=Recurring.outputs,
    ),
    "gradient": Kind(
        _gradient,
        Demand(bytes=lambda s: s.wrt_bytes, passes=lambda s: 1, needs="scalar"),
        per_sample=Sample.gradient,
        confirm=confirmation.gradient,
        again=Recurring.gradient,
    ),
    "vjp": Kind(
        _vjp,
        Demand(bytes=lambda s: s.num_vectors * s.wrt_bytes, passes=lambda s: s.num_vectors, vectors="cotangent"),
        per_sample=Sample.vjp,
        confirm=confirmation.vjp,
        again=Recurring.vjp,
    ),
    "jvp": Kind(
        _jvp,
        Demand(
            bytes=lambda s: s.num_vectors * sum(o.bytes for o in s.differentiable),
            passes=lambda s: s.num_vectors,
            mode="forward",
            vectors="tangent",
        ),
        per_sample=Sample.jvp,
        confirm=confirmation.jvp,
        again=Recurring.jvp,
    ),
    "jacobian": Kind(
        _jacobian,
        Demand(
            bytes=_jacobian_bytes,
            passes=_jacobian_passes,
            mode="cheapest",
            by_rows=True,
            instead='Ask for "vjp" or "jvp" with the directions you need, or for "format": "diagonal".',
            working=_complex_parts,
            patterns=lambda s: 0 if s.dense else s.lines,
            by_outputs=True,
        ),
        per_sample=Sample.jacobian,
        confirm=confirmation.jacobian,
        again=Recurring.jacobian,
    ),
    "hessian": Kind(
        _hessian,
        Demand(
            bytes=_hessian_bytes,
            patterns=lambda s: 0 if s.dense else s.columns,
            passes=lambda s: 1 + (s.columns if s.dense else 1),
            needs="scalar",
            by_rows=True,
            order=2,
            instead='Ask for "hvp" with the directions you need, or for "format": "diagonal".',
        ),
        per_sample=Sample.hessian,
        confirm=confirmation.hessian,
        again=Recurring.hessian,
    ),
    "hvp": Kind(
        _hvp,
        Demand(
            bytes=lambda s: s.num_vectors * s.wrt_bytes,
            passes=lambda s: 1 + s.num_vectors,
            needs="scalar",
            order=2,
            vectors="tangent",
        ),
        per_sample=Sample.hvp,
        confirm=confirmation.hvp,
        again=Recurring.hvp,
    ),
    "fisher": Kind(
        _fisher,
        Demand(
            bytes=lambda s: sum(leaf.elements**2 for leaf in s.wrt) * s.width,
            passes=lambda s: s.samples,
            needs="likelihoods",
            by_rows=True,
            working=lambda s: _FACTORS * s.samples * s.columns * s.width,
            instead='Ask for "fisher_diagonal".',
        ),
    ),
    "fisher_diagonal": Kind(
        _fisher_diagonal,
        Demand(bytes=lambda s: s.wrt_bytes, passes=lambda s: s.samples, needs="likelihoods", by_rows=True),
    ),
    "explain": Kind(
        _explain,
        Demand(
            bytes=lambda s: 0,
            passes=lambda s: _LOOKS,
            mode="none",
            copies=_EXPLAIN_COPIES,
            looks=_explain_looks,
            past_writes=True,
        ),
        of_one_point=True,
    ),
    "precision": Kind(
        _precision,
        Demand(
            bytes=lambda s: 0,
            passes=lambda s: _LOOKS,
            mode="reverse",
            copies=_PRECISION_COPIES,
            looks=lambda s: _PRECISION_LOOKS,
            by_extents=True,
        ),
        of_one_point=True,
    ),
    "check": Kind(
        _check,
        Demand(bytes=lambda s: 0, passes=lambda s: _LOOKS, mode="none", copies=_CHECK_COPIES, looks=_check_looks),
        of_one_point=True,
    ),
}


def results(computation: Computation) -> dict[str, Any]:
    """The answer's tree, kind by kind in the order of `want`; tensors at its leaves. Raises PullbackError.

    Autograd keeps nothing where there is nothing to differentiate by.
    """
    with torch.set_grad_enabled(bool(computation.prepared.wrt)):
        tree = {kind: KINDS[kind].compute(computation) for kind in computation.query.want}
    note_disagreement(computation, tree)
    return tree
