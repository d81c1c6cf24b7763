"""Mistakes in a Hessian: curvature that is left out, has another sign or size, or is taken for something else; the chain rule on one side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx

from app.engine.check.mistakes.case import Case, Claim, moved_to, place_of
from app.engine.check.objective import Curvature
from app.engine.explain.findings import operation_of
from app.engine.stepwise.point import REFUSALS, Point, Ref, name_of
from app.engine.stepwise.trace import StepRecord, StepTrace

_CURVED: Final = 64  # elements of a tensor between input and output whose curvature is left out
# Of a program: each asks for a matrix of its own, of up to 64 × 64 second derivatives; longer ones are not named.
_CURVED_STEPS: Final = 40
_TELLING: Final = 4  # elements that must show what any number would do for: of a symmetric matrix, two or three
# What is taken instead of a second derivative, as a multiple of it.
_MULTIPLES: Final = (
    (0.0, "missing_term", "A term is missing: {} is left out."),
    (-1.0, "sign_of_term", "The sign of one term is wrong: that of {}."),
)
# What is taken for the second derivative of a step that goes element by element, of its output y and its first derivative f.
_SECOND: Final[Sequence[tuple[str, Callable[[Tensor, Tensor], Tensor]]]] = (
    ("its first derivative", lambda y, f: f),
    ("the square of its first derivative", lambda y, f: f * f),
    ("its first derivative times its output", lambda y, f: f * y),
    ("its first derivative times 1 - y, y its output", lambda y, f: f * (1 - y)),
    ("its first derivative times 1 + 2 y, y its output", lambda y, f: f * (1 + 2 * y)),
    ("its output", lambda y, f: y),
    ("its output times -2", lambda y, f: -2 * y),
    ("1", lambda y, f: torch.ones_like(y)),
)


def _of_input(case: Case) -> Curvature | None:
    """The Hessian, where its program is short enough."""
    objective = case.objective
    is_short = isinstance(objective, Curvature) and len(case.trace.records) <= _CURVED_STEPS
    return objective if is_short and case.ours.shape == case.expected.shape else None  # type: ignore[return-value]


def of_steps(case: Case) -> Iterator[Claim]:
    """A step's second derivative left out, with the other sign, half or twice; or that of one step alone.

    A Hessian is linear in the second derivative of each step: without it, it is that of the program in which the step is its tangent.
    """
    if _of_input(case) is None or case.ours.is_complex():
        return
    numbers = {node: k for k, node in enumerate(case.objective.point.nodes)}
    shares: dict[str, list[tuple[StepRecord, Tensor]]] = {}
    for record in case.trace.records:
        if len(record.outputs) != 1 or not any(case.name in case.trace.live[parent] for parent in record.parents):
            continue
        without = _with_tangents(case, [numbers[record.node]])
        if without is not None and not case.same(without, case.ours):
            shares.setdefault(name_of(record.node), []).append((record, case.ours - without))
    groups = [[share] for alike in shares.values() for share in alike] + [alike for alike in shares.values() if len(alike) > 1]
    for group in groups:
        record, share = group[0][0], torch.stack([share for _, share in group]).sum(0)
        step = f"the second derivative of `{operation_of(record.node)}`{place_of(record.node)}"
        known = [(by, code, sentence.format(step)) for by, code, sentence in _MULTIPLES]
        if case.elements(share) >= _TELLING and not case.same(share, case.ours):  # a factor of the whole says more
            by = 1 + float(((case.expected - case.ours) * share).sum() / share.square().sum())
            known.append((by, "factor_of_term", f"T{step[1:]} is taken times {by:.6g}."))
            known.append((0.0, "missing_term", f"Terms are missing: yours has {step} alone, and that of no other step."))
        for by, code, sentence in known:
            if case.fits(share if "alone" in sentence else case.ours + (by - 1) * share):
                yield Claim(code, sentence, by or None)
                return


def _with_tangents(case: Case, steps: list[int]) -> Tensor | None:
    """The Hessian of the program in which some steps, by their numbers, are their tangents at the point."""
    function, point, copy = case.objective.point.function, case.objective.point, fx.Graph()
    copy.output(copy.graph_copy(function.graph, {}))
    nodes = [node for node in copy.nodes if node.op == "call_function"]
    for number in steps:
        nodes[number].target = _tangent(point.target(nodes[number]))
    try:
        changed = Point(dataclasses.replace(function, held_graph=copy), point.leaves, case.seed, wide=point.wide)
        return moved_to(case.objective, changed).derivative()[case.name].reshape(case.ours.shape)
    except REFUSALS:
        return None


def _tangent(call: Callable[..., Any]) -> Callable[..., Any]:
    """What `call` gives, with its first derivative and no second one."""

    def tangent(*args: Any, **kwargs: Any) -> Any:
        moving = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.requires_grad]
        held = {id(x): x.detach().clone().requires_grad_() for x in moving}
        with torch.enable_grad():
            value = call(*(held.get(id(x), x) for x in args), **{key: held.get(id(x), x) for key, x in kwargs.items()})
            if not isinstance(value, Tensor) or not value.requires_grad:
                return call(*args, **kwargs)
            weight = torch.zeros_like(value).requires_grad_()
            gradients = torch.autograd.grad(value, list(held.values()), weight, create_graph=True, allow_unused=True)
            moves = {id(x): x - x.detach() for x in moving}
            pairs = [(g, moves[key]) for g, key in zip(gradients, held, strict=True) if g is not None and g.requires_grad]
            (rise,) = torch.autograd.grad([g for g, _ in pairs], weight, [move for _, move in pairs], create_graph=True)
        return value.detach() + rise

    return tangent


def in_place_of_curvature(case: Case) -> Iterator[Claim]:
    """Jᵀ·M·J with something else for M, the second derivative by the value of a step; or J on one side, or on none."""
    objective = _of_input(case)
    if objective is None:
        return
    for record in case.trace.records:
        known = _matrices(case, objective, (record.node, 0))
        if known is None:
            continue
        jacobian, hessian, gradient = known
        own = jacobian.T @ hessian @ jacobian
        by = f"by the value of `{operation_of(record.node)}`{place_of(record.node)}"
        for code, what, matrix in _instead(hessian, gradient):
            if _fits_beside(case, own, jacobian.T @ matrix @ jacobian):
                yield Claim(code, f"{what.format(by)}.")
                return
        for once in (hessian @ jacobian, jacobian.T @ hessian):
            if once.numel() == own.numel() and _fits_beside(case, own, once):
                yield Claim(
                    "missing_factor", f"The chain rule is applied once: the second derivative {by} has J on one side alone."
                )
                return


def _instead(hessian: Tensor, gradient: Tensor) -> Iterator[tuple[str, str, Tensor]]:
    """What people take for a second derivative, with a code and a sentence about it."""
    one, square = torch.eye(len(hessian)).to(hessian), torch.diag(gradient**2)
    yield "diagonal_only", "Of the second derivative {} only the diagonal is used", torch.diag(hessian.diagonal())
    yield "wrong_rule", "The second derivative {} is taken as 1", one
    yield "wrong_rule", "The second derivative {} is taken as 1, divided by their number", one / len(hessian)
    yield "wrong_rule", "The first derivative {} stands where the second belongs", torch.diag(gradient)
    yield "outer_product", "The square of the derivative {} stands where the second derivative belongs", square
    yield (
        "outer_product",
        "The mean square of the derivative {} stands where the second derivative belongs",
        square * len(hessian),
    )


def _fits_beside(case: Case, own: Tensor, other: Tensor) -> bool:
    """Whether the client has `other` in the place of a share of the Hessian."""
    return case.elements(other) >= _TELLING and _fits_instead(case, own, other)


def _fits_instead(case: Case, own: Tensor, other: Tensor) -> bool:
    return case.fits((case.ours.reshape(own.shape) - own + other.reshape(own.shape)).reshape(case.ours.shape))


def of_elements(case: Case) -> Iterator[Claim]:
    """Another second derivative of a step that goes element by element."""
    objective = _of_input(case)
    if objective is None or case.ours.is_complex():
        return
    trace = case.trace
    outputs = dict(zip(objective.point.function.outputs, trace.outputs, strict=True))
    reached = trace.backward({outputs[name]: c for name, c in objective.gradient_of.rows[0].items()})
    for record in trace.records:
        known = _pointwise(case, record)
        weight, entry = reached.get((record.node, 0)), record.parents[0]
        if known is None or weight is None or entry not in trace.values:
            continue
        first, second = known
        jacobian = _jacobian(trace, entry, case.name)
        size, y = case.objective.point.leaves[case.name].numel(), record.outputs[0].detach()
        own = (jacobian.T * (weight * second).reshape(-1)) @ jacobian
        for what, function in _SECOND:
            other = (jacobian.T * (weight * function(y, first)).reshape(-1)) @ jacobian
            if case.elements(other - own) >= min(size, _TELLING) > 1 and _fits_instead(case, own, other):
                yield Claim(
                    "wrong_rule",
                    f"The second derivative of `{operation_of(record.node)}` is taken as {what}{place_of(record.node)}.",
                )
                return


def _pointwise(case: Case, record: StepRecord) -> tuple[Tensor, Tensor] | None:
    """First and second derivative of a step that takes one tensor element by element; None of any other."""
    x, y = record.inputs[0], record.outputs[0]
    is_one = len(record.inputs) == 1 and len(record.outputs) == 1 and x.shape == y.shape and 0 < x.numel() <= _CURVED
    if not is_one or not x.dtype.is_floating_point or case.name not in case.trace.live[record.parents[0]]:
        return None
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        (value,) = case.trace.again(record, [leaf])
        (first,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
        weights = torch.arange(1, y.numel() + 1).to(y).reshape(y.shape)
        (weighted,) = torch.autograd.grad(value, leaf, weights, retain_graph=True)
        second = torch.autograd.grad(first.sum(), leaf)[0] if first.requires_grad else torch.zeros_like(leaf)
    return (first.detach(), second) if torch.allclose(weighted, weights * first) else None


def of_one_part(case: Case) -> Iterator[Claim]:
    """What lies on the diagonal, or beside it, with another sign or a factor; the inverse."""
    if _of_input(case) is None or case.ours.is_complex() or case.ours.ndim % 2:
        return
    size = case.objective.point.leaves[case.name].numel()
    ours = case.ours.reshape(size, size)
    diagonal = torch.diag(ours.diagonal())
    beside = ours - diagonal
    for part, rest, where in ((beside, diagonal, "beside the diagonal"), (diagonal, beside, "on the diagonal")):
        for by, code, what in (
            (2.0, "factor_of_term", "twice ours"), (0.5, "factor_of_term", "half of ours"), (-1.0, "sign_of_term", "ours with the opposite sign"),
        ):  # fmt: skip
            if case.elements(part) > 1 and bool(rest.any()) and case.fits((rest + by * part).reshape(case.ours.shape)):
                yield Claim(code, f"Every element {where} is {what}, and the others are ours.", by)
                return
    inverse, failed = torch.linalg.inv_ex(ours)
    if size > 1 and not bool(failed) and case.fits(inverse.reshape(case.ours.shape)):
        yield Claim("inverse", "Yours is the inverse of the Hessian.")


def gauss_newton(case: Case) -> Iterator[Claim]:
    """Jᵀ·∇²L·J, where L is what follows a step and J the derivative of what comes before: the curvature of that is left out."""
    objective = _of_input(case)
    if objective is None:
        return
    gradient = objective.values({})
    outer = torch.outer(gradient, gradient).reshape(case.ours.shape)
    if case.fits(outer):
        yield Claim(
            "outer_product", "Yours is the outer product of the gradient with itself, g·gᵀ: it has no second derivatives."
        )
    for record in case.trace.records:
        known = _matrices(case, objective, (record.node, 0))
        if known is None or not case.fits((known[0].T @ known[1] @ known[0]).reshape(case.ours.shape)):
            continue
        # Without curvature in what leads to the step, and with all other: of what goes round it, nothing is left out.
        if case.fits(_with_tangents(case, _leading_to(case, record))):
            yield Claim(
                "gauss_newton",
                f"Yours is the Gauss-Newton matrix Jᵀ·∇²L·J: the second derivative of what leads to this step{place_of(record.node)} is "
                "left out.",
            )
            return


def _leading_to(case: Case, record: StepRecord) -> list[int]:
    """The numbers of a step and of all that come before it on the way."""
    wanted = {record.node}
    for node in reversed(case.objective.point.nodes):
        wanted |= set(node.all_input_nodes) if node in wanted else set()
    return [k for k, node in enumerate(case.objective.point.nodes) if node in wanted]


def _matrices(case: Case, objective: Curvature, ref: Ref) -> tuple[Tensor, Tensor, Tensor] | None:
    """J, H and g at the tensor `ref`: its derivative by the input, and the Hessian and gradient of the objective by it; None of an output."""
    tensor = case.trace.values[ref]
    if not tensor.dtype.is_floating_point or tensor.numel() > _CURVED or (ref[0], 1) in case.trace.values:
        return None
    if case.name not in case.trace.live[ref] or ref in case.trace.outputs:
        return None
    known: dict[Ref, Any] = case.memory.setdefault("curvature", {})
    if ref not in known:
        known[ref] = _derivatives(case.trace, objective, ref)
    return known[ref]  # type: ignore[no-any-return]


def _jacobian(trace: StepTrace, ref: Ref, name: str) -> Tensor:
    """The derivative of a tensor by an input, shape [elements of the one, of the other]."""
    middle, leaf = trace.values[ref], trace.leaves[name]
    basis = torch.eye(middle.numel(), dtype=middle.dtype, device=middle.device)
    if ref == leaf:
        return basis
    rows = [trace.backward({ref: row}).get(leaf) for row in basis.reshape(-1, *middle.shape)]
    filled = [torch.zeros_like(trace.values[leaf]) if row is None else row for row in rows]
    return torch.stack(filled).reshape(len(rows), -1).detach()


def _derivatives(trace: StepTrace, objective: Curvature, ref: Ref) -> tuple[Tensor, Tensor, Tensor] | None:
    middle = trace.values[ref]
    try:
        jacobian = _jacobian(trace, ref, objective.name)
        with torch.enable_grad():
            moved = middle.detach().clone().requires_grad_()
            total = _objective_after(trace, objective, ref, moved)
            if total is None or not total.requires_grad:
                return None
            (gradient,) = torch.autograd.grad(total, moved, create_graph=True)
            if not gradient.requires_grad:
                return None
            parts = [torch.autograd.grad(part, moved, retain_graph=True)[0].reshape(-1) for part in gradient.reshape(-1)]
    except REFUSALS:
        return None
    return jacobian, torch.stack(parts).detach(), gradient.detach().reshape(-1)


def _objective_after(trace: StepTrace, objective: Curvature, ref: Ref, moved: Tensor) -> Tensor | None:
    """The objective as a function of the tensor `ref` alone."""
    values: dict[Ref, Tensor] = {ref: moved}
    for record in trace.records:
        if any(parent in values for parent in record.parents) and record.node is not ref[0]:
            _run_again(trace, record, values)
    outputs = dict(zip(objective.point.function.outputs, trace.outputs, strict=True))
    row = objective.gradient_of.rows[0]
    parts = [(c * values.get(outputs[n], trace.values[outputs[n]])).sum() for n, c in row.items()]
    return torch.stack(parts).sum() if parts else None


def _run_again(trace: StepTrace, record: StepRecord, values: dict[Ref, Tensor]) -> None:
    inputs = [values.get(parent, tensor.detach()) for parent, tensor in zip(record.parents, record.inputs, strict=True)]
    values.update(zip(record.refs(), trace.again(record, inputs), strict=True))
