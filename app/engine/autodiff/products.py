"""Products with the Jacobian and the Hessian: gradient, vjp, jvp, hvp, and what is tried where PyTorch lacks a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from app.engine.autodiff.evaluation import Evaluation
from app.engine.autodiff.freivalds import certify, combined
from app.engine.errors import Attempt, refusing_second_derivatives
from app.engine.planning.plan import has_forward_mode
from app.engine.tensors import is_differentiable
from app.program.errors import REFUSALS

Vectors = Mapping[str, Tensor]


def gradient(evaluation: Evaluation, scalar: Tensor) -> dict[str, Tensor]:
    """∇ of one real scalar output: `{input: shape of input}`."""
    return filled(evaluation, evaluation.grad((scalar,), (torch.ones_like(scalar),)))


def vjp(evaluation: Evaluation, cotangents: Vectors, num_vectors: int | None) -> dict[str, Tensor]:
    """Jᵗ·cotangent, `{input: shape of input}`; of several, each with the cotangents' leading axis."""
    outputs = [evaluation.outputs[name] for name in cotangents]
    product = evaluation.grad if num_vectors is None else evaluation.grad_rows
    return filled(evaluation, product(outputs, list(cotangents.values())), num_vectors)


def filled(evaluation: Evaluation, gradients: Sequence[Tensor | None], num_vectors: int | None = None) -> dict[str, Tensor]:
    """Zeros, and a note, where no path leads from an input to the output."""
    for name, gradient in zip(evaluation.wrt, gradients, strict=True):
        if gradient is None:
            evaluation.notes.say(
                "disconnected",
                f"No path leads from `{name}` to the result, so its derivative is zero (PyTorch says None).",
                name,
            )
    return _zeros_where_none(evaluation, gradients, num_vectors)


def jvp(evaluation: Evaluation, tangents: Vectors, num_vectors: int | None) -> dict[str, Tensor]:
    """J·tangent, `{output: shape of output}` for every differentiable output; of several, with a leading axis.

    Forward mode; where an operation lacks it, reverse mode applied twice (J·t is the derivative in u of (Jᵗu)·t; Townsend,
    "A new trick for calculating Jacobian vector products", 2017); where that fails too, central differences, labelled.
    """
    wanted = tuple(evaluation.differentiable())
    names = tuple(tangents)
    primals = tuple(evaluation.leaves[name].detach() for name in names)
    directions = tuple(tangents.values())

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        results = dict(zip(evaluation.function.outputs, evaluation.at(dict(zip(names, values, strict=True))), strict=True))
        return tuple(results[name] for name in wanted)

    def forward(*direction: Tensor) -> tuple[Tensor, ...]:
        return torch.func.jvp(outputs, primals, direction)[1]  # type: ignore[no-any-return]

    def one_by_one(product: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        rows = [product(*(d[k] for d in directions)) for k in range(num_vectors or 0)]
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))

    def together(product: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        rows: tuple[Tensor, ...] = torch.func.vmap(product, randomness="same")(*directions)
        certify(rows, product(*(combined(d) for d in directions)))
        return rows

    def alone(product: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        return product(*directions) if num_vectors is None else one_by_one(product)

    if has_forward_mode(evaluation.function.operations()):
        with Attempt():
            if num_vectors is None:
                return dict(zip(wanted, forward(*directions), strict=True))
            columns = evaluation.with_fallback(lambda: together(forward), lambda: one_by_one(forward))
            return dict(zip(wanted, columns, strict=True))
    with Attempt():
        columns = alone(lambda *direction: _double_vjp(outputs, primals, direction))
        evaluation.notes.say("fallback", "An operation has no forward-mode derivative; reverse mode was applied twice.", "jvp")
        return dict(zip(wanted, columns, strict=True))
    columns = alone(
        lambda *direction: tuple(_central_differences(evaluation, dict(zip(names, direction, strict=True))).values())
    )
    evaluation.notes.say(
        "finite_differences", "An operation has no forward-mode and no second derivative; these are central differences.", "jvp"
    )
    return dict(zip(wanted, columns, strict=True))


def _double_vjp(
    outputs: Callable[..., tuple[Tensor, ...]], primals: tuple[Tensor, ...], direction: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    inputs = tuple(p.detach().requires_grad_() for p in primals)
    values = outputs(*inputs)
    probes = tuple(torch.zeros_like(v, requires_grad=True) for v in values)
    first = torch.autograd.grad(values, inputs, probes, create_graph=True, allow_unused=True)
    pairs = [(g, d) for g, d in zip(first, direction, strict=True) if g is not None and g.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(v) for v in values)
    products = torch.autograd.grad([g for g, _ in pairs], probes, [d for _, d in pairs], allow_unused=True)
    return tuple(torch.zeros_like(v) if p is None else p for p, v in zip(products, values, strict=True))


def _central_differences(evaluation: Evaluation, tangents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(f(x + h·t) - f(x - h·t))/2h of every differentiable output; in float64, of which narrower dtypes leave too few digits, if it takes that."""
    wide = {
        name: leaf.detach().to(torch.promote_types(leaf.dtype, torch.float64)) if is_differentiable(leaf.dtype) else leaf
        for name, leaf in evaluation.leaves.items()
    }
    try:
        differences = _differences_at(evaluation, wide, tangents)
    except REFUSALS:
        differences = _differences_at(evaluation, {name: leaf.detach() for name, leaf in evaluation.leaves.items()}, tangents)
    return {name: differences[name].to(value.dtype) for name, value in evaluation.differentiable().items()}


def _differences_at(evaluation: Evaluation, leaves: Mapping[str, Tensor], tangents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # h = eps^(1/3) balances the error of the formula against that of rounding (Nocedal & Wright, Numerical Optimization, 8.1).
    eps = max(torch.finfo(leaves[name].dtype).eps for name in tangents)
    scale = max(1.0, *(float(leaves[name].abs().max()) for name in tangents if leaves[name].numel()))
    h = eps ** (1 / 3) * scale
    with torch.no_grad():
        ahead, behind = (
            evaluation.run({**leaves, **{name: leaves[name] + step * t.to(leaves[name].dtype) for name, t in tangents.items()}})
            for step in (h, -h)
        )
    return {
        name: (a - b) / (2 * h)
        for name, a, b in zip(evaluation.function.outputs, ahead, behind, strict=True)
        if is_differentiable(a.dtype)
    }


def first_derivative(evaluation: Evaluation, scalar: Tensor) -> tuple[Tensor | None, ...]:
    """∇ of a real scalar output, itself differentiable; what Hessians start from (reverse over reverse)."""
    return evaluation.grad((scalar,), (torch.ones_like(scalar),), create_graph=True)


def hvp(
    evaluation: Evaluation, first: Sequence[Tensor | None], tangents: Vectors, num_vectors: int | None
) -> dict[str, Tensor]:
    """H·tangent, `{input: shape of input}`, from the first derivative; of several, with the tangents' leading axis."""
    pairs = [
        (g, tangents[n])
        for n, g in zip(evaluation.wrt, first, strict=True)
        if n in tangents and g is not None and g.requires_grad
    ]
    if not pairs:
        return _zeros_where_none(evaluation, (None,) * len(evaluation.inputs), num_vectors)
    product = evaluation.grad if num_vectors is None else evaluation.grad_rows
    with refusing_second_derivatives():
        products = product([g for g, _ in pairs], [t for _, t in pairs])
    return _zeros_where_none(evaluation, products, num_vectors)


def _zeros_where_none(evaluation: Evaluation, values: Sequence[Tensor | None], num_vectors: int | None) -> dict[str, Tensor]:
    lead = () if num_vectors is None else (num_vectors,)
    return {
        name: torch.zeros((*lead, *leaf.shape), dtype=leaf.dtype, device=leaf.device) if value is None else value
        for name, leaf, value in zip(evaluation.wrt, evaluation.inputs, values, strict=True)
    }
