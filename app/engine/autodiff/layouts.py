"""Jacobians and Hessians in the layout that they prove to have: `diagonal`, `block`, or dense."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from app.engine.autodiff import structure
from app.engine.autodiff.evaluation import Evaluation, backward_batch
from app.engine.autodiff.jacobian import basis
from app.engine.errors import refusing_second_derivatives
from app.engine.planning.plan import check_result_size
from app.errors import PullbackError
from app.limits import Limits


def structured(
    evaluation: Evaluation, output: Tensor, at: str, wanted: str, rows: int, limits: Limits, layouts: dict[str, str]
) -> dict[str, Tensor]:
    """`{input: tensor}`: the Jacobian of `output` in the wanted layout, which is written to `layouts` under `at.INPUT`.

    `diagonal` has the input's shape; `block` has `[n, output[1:]…, input[1:]…]`; `dense` `[output…, input…]`.

    Raises:
        PullbackError: `shape_mismatch` where a diagonal is wanted of a Jacobian that is not square; `result_too_large`.
    """
    result = {}
    for name, leaf in zip(evaluation.wrt, evaluation.inputs, strict=True):
        path = f"{at}.{name}"
        backward, backward_rows = _products(evaluation, output, leaf)
        with refusing_second_derivatives():
            result[name], layouts[path] = _one(evaluation, output, leaf, path, wanted, rows, limits, backward, backward_rows)
    return result


def _products(
    evaluation: Evaluation, output: Tensor, leaf: Tensor
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    def backward(cotangent: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad((output,), (leaf,), (cotangent,), retain_graph=True, allow_unused=True)
        return torch.zeros_like(leaf) if gradient is None else gradient

    def backward_rows(cotangents: Tensor) -> Tensor:
        def fast() -> Tensor:
            (rows,) = backward_batch((output,), (leaf,), (cotangents,))
            return leaf.new_zeros((cotangents.shape[0], *leaf.shape)) if rows is None else rows

        return evaluation.with_fallback(fast, lambda: torch.stack([backward(c) for c in cotangents]))

    return backward, backward_rows


def _one(
    evaluation: Evaluation,
    output: Tensor,
    leaf: Tensor,
    path: str,
    wanted: str,
    rows: int,
    limits: Limits,
    backward: Callable[[Tensor], Tensor],
    backward_rows: Callable[[Tensor], Tensor],
) -> tuple[Tensor, str]:
    def limit(size: int) -> None:
        check_result_size(path, size, limits)

    if wanted == "diagonal" and output.shape != leaf.shape:
        raise PullbackError(
            "shape_mismatch",
            f"Only a square Jacobian has a diagonal: here the output is {list(output.shape)} and the input {list(leaf.shape)}.",
            at=path,
            expected="output and input of one shape",
            given=f"{list(output.shape)} and {list(leaf.shape)}",
            fix='Ask for "format": "auto" or "dense", or name in "wrt" only inputs of the output\'s shape.',
        )
    entries = structure.diagonal(backward, output, leaf)
    if entries is not None:
        return entries, "diagonal"
    if wanted == "diagonal":
        evaluation.notes.say(
            "not_diagonal", "The matrix is not diagonal: this is its diagonal, its other entries are left out.", path
        )
        return structure.dense_diagonal(backward_rows, output, leaf, rows), "diagonal"
    blocks = structure.block(backward, backward_rows, output, leaf, limit)
    if blocks is not None:
        return blocks, "block"
    limit(output.numel() * leaf.numel() * leaf.element_size())
    pieces = [backward_rows(chunk) for _, chunk in basis(output.detach(), rows)]
    dense = torch.cat(pieces) if pieces else leaf.detach().new_zeros((0, *leaf.shape))
    return dense.reshape((*output.shape, *leaf.shape)), "dense"
