"""Jacobians and Hessians in the layout that they prove to have (`diagonal`, `block`, `sparse`, or dense), and those of complex functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from app.engine.autodiff import passes as passing
from app.engine.autodiff.blocks import Block, Matrices, Request, Result
from app.engine.autodiff.evaluation import Evaluation
from app.engine.errors import refusing_second_derivatives
from app.engine.planning.plan import entries_at_most, has_forward_mode
from app.engine.sparsity.dependence import Dependence, dependences, has_own_backward
from app.engine.sparsity.holomorphy import holomorphic


def jacobian(evaluation: Evaluation, request: Request) -> dict[str, dict[str, Result]]:
    """`{output: {input: …}}` of every differentiable output, in the forms of `blocks.Result`.

    Raises:
        PullbackError: `shape_mismatch` where a diagonal is wanted of a Jacobian that is not square; `result_too_large`, `too_costly`.
    """
    outputs, function = evaluation.differentiable(), evaluation.function
    forward = has_forward_mode(function.operations())
    numbers = [function.outputs.index(name) for name in outputs]

    def run(leaves: Mapping[str, Tensor]) -> Sequence[Tensor]:
        results = evaluation.run(leaves)
        return [results[number] for number in numbers]

    proved = _holomorphic(evaluation, tuple(outputs), run)
    matrices = Matrices(
        evaluation, request, "jacobian", None, lambda: _patterns(evaluation, request, tuple(outputs), run, False)
    )
    result: dict[str, dict[str, Result]] = {}
    for name, output in outputs.items():
        result[name] = {}
        for wrt, leaf in zip(evaluation.wrt, evaluation.inputs, strict=True):
            is_holomorphic = proved.get((name, wrt), False)
            block = Block(
                name, wrt, output, leaf, forward,
                lambda forward, n=name, w=wrt, h=is_holomorphic: passing.jacobian_passes(evaluation, n, w, h, forward=forward),  # type: ignore[misc]
            )  # fmt: skip
            result[name][wrt] = matrices.result(block)
            if leaf.dtype.is_complex and not is_holomorphic:
                evaluation.notes.say(
                    "not_holomorphic",
                    f"`{name}` is not proved to be a holomorphic function of `{wrt}`, so its Jacobian is the pair `z` = ∂f/∂z and "
                    "`conj_z` = ∂f/∂z̄: df = z·dz + conj_z·dz̄.",
                    f"jacobian.{name}.{wrt}",
                )
    return result


def hessian(
    evaluation: Evaluation, scalar: str, first: Sequence[Tensor | None], request: Request
) -> dict[str, dict[str, Result]]:
    """`{input: {input2: …}}` of the output `scalar`, whose gradient is `first`. Raises as `jacobian`, and `not_differentiable`."""
    wrt = evaluation.wrt
    number = evaluation.function.outputs.index(scalar)

    def run(leaves: Mapping[str, Tensor]) -> Sequence[Tensor | None]:
        value = evaluation.run(leaves)[number]
        point = [leaves[name] for name in wrt]
        return torch.autograd.grad(value, point, torch.ones_like(value), create_graph=True, allow_unused=True)

    is_symmetric = not has_own_backward(evaluation.function.operations())
    matrices = Matrices(evaluation, request, "hessian", scalar, lambda: _patterns(evaluation, request, wrt, run, True))
    result: dict[str, dict[str, Result]] = {}
    with refusing_second_derivatives():
        for name, row_leaf, gradient in zip(wrt, evaluation.inputs, first, strict=True):
            result[name] = {}
            for other, leaf, mirrored in zip(wrt, evaluation.inputs, first, strict=True):
                has_curvature = gradient is not None and gradient.requires_grad
                block = Block(
                    name, other, gradient if gradient is not None and has_curvature else torch.zeros_like(row_leaf), leaf, is_symmetric,
                    _hessian_passes(evaluation, gradient, leaf, row_leaf, mirrored) if has_curvature else None,
                    symmetric=is_symmetric and name == other and not leaf.dtype.is_complex,
                )  # fmt: skip
                result[name][other] = matrices.result(block)
                if leaf.dtype.is_complex:
                    evaluation.notes.say(
                        "not_holomorphic",
                        f"The Hessian by the complex `{other}` is the derivative of the gradient g (by PyTorch's convention 2·∂f/∂z̄), as "
                        "the pair `z` = ∂g/∂z and `conj_z` = ∂g/∂z̄.",
                        f"hessian.{name}.{other}",
                    )
    return result


def _hessian_passes(
    evaluation: Evaluation, gradient: Tensor | None, leaf: Tensor, row_leaf: Tensor, mirrored: Tensor | None
) -> Callable[[bool], passing.Passes]:
    def make(forward: bool) -> passing.Passes:
        assert gradient is not None  # noqa: S101  # blocks without curvature have no passes
        return passing.hessian_passes(evaluation, gradient, leaf, row_leaf, mirrored if forward else None)

    return make


def _patterns(
    evaluation: Evaluation,
    request: Request,
    names: Sequence[str],
    run: Callable[[Mapping[str, Tensor]], Sequence[Tensor | None]],
    differentiates: bool,
) -> dict[tuple[str, str], Dependence]:
    """(result, input) → dependence, for the results of `run`, which are called `names`."""
    function, limit = evaluation.function, entries_at_most(request.plan, request.limits)
    known = None if differentiates or request.patterns is None else request.patterns
    by_result = None if known is None else known.dependences(names, evaluation.wrt, limit)
    if by_result is None:
        by_result = dependences(
            run, evaluation.leaves, evaluation.wrt, limit,
            differentiates=differentiates, operations=function.operations(), static=function.static,
        )  # fmt: skip
    return {(name, wrt): one for name, by_input in zip(names, by_result, strict=True) for wrt, one in by_input.items()}


def _holomorphic(
    evaluation: Evaluation, names: Sequence[str], run: Callable[[Mapping[str, Tensor]], Sequence[Tensor]]
) -> dict[tuple[str, str], bool]:
    """(output, complex input) → whether the one is proved to be a holomorphic function of the other."""
    wrt = [name for name in evaluation.wrt if evaluation.leaves[name].dtype.is_complex]
    if not wrt:
        return {}
    point = {name: leaf.detach().clone() for name, leaf in evaluation.leaves.items()}
    proved = holomorphic(lambda: run(point), [point[name] for name in wrt])
    return {(name, leaf): known for name, row in zip(names, proved, strict=True) for leaf, known in zip(wrt, row, strict=True)}
