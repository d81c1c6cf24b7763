"""Products with the Jacobian and the Hessian: gradient, vjp, jvp, hvp, with the ladder of fallbacks.

Knows how each is computed from one Evaluation. Refuses to know the query's fields and the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from app.engine.autodiff.evaluation import Evaluation
from app.engine.autodiff.freivalds import certify, combined
from app.engine.planning.plan import FORWARD_MISSING, FORWARD_WRONG
from app.errors import PullbackError
from app.program.errors import is_memory

Vectors = Mapping[str, Tensor]


def gradient(evaluation: Evaluation, scalar: Tensor) -> dict[str, Tensor]:
    """∇ of one real scalar output: `{input: shape of input}`."""
    found = evaluation.grad((scalar,), (torch.ones_like(scalar),))
    return filled(evaluation, found)


def vjp(evaluation: Evaluation, cotangents: Vectors, several: bool) -> dict[str, Tensor]:
    """Jᵗ·cotangent, `{input: shape of input}`; with `several`, each with the cotangents' leading axis."""
    outputs = [evaluation.outputs[name] for name in cotangents]
    found = evaluation.grad(outputs, list(cotangents.values()), batched=several)
    count = next(iter(cotangents.values())).shape[0] if several else None
    return filled(evaluation, found, count)


def filled(evaluation: Evaluation, found: Sequence[Tensor | None], several: int | None = None) -> dict[str, Tensor]:
    """Zeros, and a note, where no path leads from an input to the output."""
    result = {}
    for name, leaf, value in zip(evaluation.wrt, evaluation.inputs, found, strict=True):
        if value is None:
            evaluation.notes.say(
                "disconnected",
                f"No path leads from `{name}` to the result, so its derivative is zero (PyTorch says None).",
                name,
            )
            shape = tuple(leaf.shape) if several is None else (several, *leaf.shape)
            value = torch.zeros(shape, dtype=leaf.dtype, device=leaf.device)
        result[name] = value
    return result


def jvp(evaluation: Evaluation, tangents: Vectors, several: bool) -> dict[str, Tensor]:
    """J·tangent, `{output: shape of output}` for every differentiable output; with `several`, with a leading axis.

    Forward mode; where an operation lacks it, reverse mode applied twice (J·t is the derivative in u of (Jᵗu)·t; Townsend,
    "A new trick for calculating Jacobian vector products", 2017); where that fails too, central differences, labelled.
    """
    smooth = tuple(evaluation.smooth())
    names = tuple(tangents)
    primals = tuple(evaluation.leaves[name].detach() for name in names)
    directions = tuple(tangents.values())

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        results = dict(zip(evaluation.function.outputs, evaluation.at(dict(zip(names, values, strict=True))), strict=True))
        return tuple(results[name] for name in smooth)

    def forward(*direction: Tensor) -> tuple[Tensor, ...]:
        return torch.func.jvp(outputs, primals, direction)[1]  # type: ignore[no-any-return]

    def one_by_one(product: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        rows = [product(*(d[k] for d in directions)) for k in range(directions[0].shape[0])]
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))

    def together(product: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        rows: tuple[Tensor, ...] = torch.func.vmap(product, randomness="same")(*directions)
        certify(rows, product(*(combined(d) for d in directions)))
        return rows

    def attempt(product: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        if not several:
            return product(*directions)
        return evaluation.ladder(lambda: together(product), lambda: one_by_one(product))

    if not evaluation.function.operations() & (FORWARD_WRONG | FORWARD_MISSING):
        try:
            return dict(zip(smooth, attempt(forward), strict=True))
        except (NotImplementedError, RuntimeError) as error:
            if is_memory(error):
                raise
    try:
        found = attempt(lambda *direction: _double_vjp(evaluation, outputs, primals, direction))
        evaluation.notes.say("fallback", "An operation has no forward-mode derivative; reverse mode was applied twice.", "jvp")
    except (NotImplementedError, RuntimeError) as error:
        if is_memory(error):
            raise
        found = attempt(lambda *direction: _central_differences(outputs, primals, direction))
        evaluation.notes.say(
            "finite_differences",
            "An operation has no forward-mode and no second derivative; these are central differences.",
            "jvp",
        )
    return dict(zip(smooth, found, strict=True))


def _double_vjp(
    evaluation: Evaluation,
    outputs: Callable[..., tuple[Tensor, ...]],
    primals: tuple[Tensor, ...],
    direction: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    inputs = tuple(p.detach().requires_grad_() for p in primals)
    values = outputs(*inputs)
    probes = tuple(torch.zeros_like(v, requires_grad=True) for v in values)
    first = torch.autograd.grad(values, inputs, probes, create_graph=True, allow_unused=True)
    pairs = [(g, d) for g, d in zip(first, direction, strict=True) if g is not None and g.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(v) for v in values)
    found = torch.autograd.grad([g for g, _ in pairs], probes, [d for _, d in pairs], allow_unused=True)
    return tuple(torch.zeros_like(v) if g is None else g for g, v in zip(found, values, strict=True))


def _central_differences(
    outputs: Callable[..., tuple[Tensor, ...]], primals: tuple[Tensor, ...], direction: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    # h = eps^(1/3) balances the error of the formula against that of rounding (Nocedal & Wright, Numerical Optimization, 8.1).
    eps = max(torch.finfo(p.dtype).eps for p in primals)
    scale = max(1.0, *(float(p.abs().max()) if p.numel() else 1.0 for p in primals))
    h = eps ** (1 / 3) * scale
    with torch.no_grad():
        ahead = outputs(*(p + h * d for p, d in zip(primals, direction, strict=True)))
        behind = outputs(*(p - h * d for p, d in zip(primals, direction, strict=True)))
    return tuple((a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True))


def first_derivative(evaluation: Evaluation, scalar: Tensor) -> tuple[Tensor | None, ...]:
    """∇ of a real scalar output, itself differentiable; what Hessians start from (reverse over reverse)."""
    return evaluation.grad((scalar,), (torch.ones_like(scalar),), twice=True)


def hvp(evaluation: Evaluation, first: Sequence[Tensor | None], tangents: Vectors, several: bool) -> dict[str, Tensor]:
    """H·tangent, `{input: shape of input}`, from the first derivative; with `several`, with the tangents' leading axis."""
    pairs = [
        (g, tangents[n])
        for n, g in zip(evaluation.wrt, first, strict=True)
        if n in tangents and g is not None and g.requires_grad
    ]
    count = next(iter(tangents.values())).shape[0] if several else None
    if not pairs:
        return _no_curvature(evaluation, count)
    try:
        found = evaluation.grad([g for g, _ in pairs], [t for _, t in pairs], batched=several)
    except (RuntimeError, NotImplementedError) as error:
        raise no_second_derivative(error) from error
    return _zeros_where_none(evaluation, found, count)


def no_second_derivative(error: BaseException) -> BaseException:
    """The refusal for an operation whose derivative PyTorch cannot differentiate again; other errors as they are."""
    if is_memory(error) or "does not require grad" in str(error):
        return error
    return PullbackError(
        "not_differentiable",
        "An operation here cannot be differentiated twice by PyTorch, so there is no Hessian of it.",
        given=str(error).splitlines()[0],
        fix='Ask for "gradient", or write the operation out of twice differentiable ones in a program.',
    )


def _no_curvature(evaluation: Evaluation, several: int | None) -> dict[str, Tensor]:
    return _zeros_where_none(evaluation, (None,) * len(evaluation.inputs), several)


def _zeros_where_none(evaluation: Evaluation, found: Sequence[Tensor | None], several: int | None) -> dict[str, Tensor]:
    lead = () if several is None else (several,)
    return {
        name: torch.zeros((*lead, *leaf.shape), dtype=leaf.dtype, device=leaf.device) if value is None else value
        for name, leaf, value in zip(evaluation.wrt, evaluation.inputs, found, strict=True)
    }
