"""Dense Jacobians, Hessians and Fisher matrices, in chunks of rows or columns that fit the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from app.engine.autodiff.evaluation import Evaluation
from app.engine.autodiff.freivalds import UncertifiedError, certify, weights
from app.engine.errors import Attempt, refusing_second_derivatives
from app.engine.planning.demand import Method

Matrix = dict[str, dict[str, Tensor]]


def basis(like: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
    """The unit vectors of `like`'s shape in order, `rows` at a time: (first index, tensor `[≤ rows, *like.shape]`)."""
    count = like.numel()
    for start in range(0, count, rows):
        size = min(rows, count - start)
        chunk = torch.zeros((size, count), dtype=like.dtype, device=like.device)
        chunk.diagonal(offset=start).fill_(1)
        yield start, chunk.view(size, *like.shape)


def jacobian(evaluation: Evaluation, method: Method, rows: int) -> Matrix:
    """`{output: {input: [output…, input…]}}` for every differentiable output.

    For complex functions see `plan.jacobian_method`: entries are ∂f/∂z, so that jvp = J·t and vjp = Jᴴ·v; of a real output with
    respect to a complex input they are PyTorch's gradient of each element.
    """
    outputs = evaluation.differentiable()
    if method == "forward":
        with Attempt() as attempt, evaluation.slow_rows_noted():
            return _confirmed(evaluation, outputs, _forward(evaluation, outputs, rows))
        why = "Reverse mode does not confirm it" if isinstance(attempt.error, UncertifiedError) else "An operation lacks it"
        evaluation.notes.say("fallback", f"Reverse mode was used instead of forward mode. {why}.", "jacobian")
    return {name: _reverse(evaluation, value, rows) for name, value in outputs.items()}


def _confirmed(evaluation: Evaluation, outputs: dict[str, Tensor], matrix: Matrix) -> Matrix:
    """The matrix, if one reverse pass in a random combination of its rows agrees; only real ones are compared."""
    for name, output in outputs.items():
        if output.dtype.is_complex or any(leaf.dtype.is_complex for leaf in evaluation.inputs):
            continue
        cotangent = weights(output.numel(), output.dtype, str(output.device)).reshape(output.shape)
        rows = tuple(
            matrix[name][wrt].reshape((-1, *leaf.shape)) for wrt, leaf in zip(evaluation.wrt, evaluation.inputs, strict=True)
        )
        gradients = evaluation.grad((output,), (cotangent,))
        certify(
            rows, [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, evaluation.inputs, strict=True)]
        )
    return matrix


def _reverse(evaluation: Evaluation, output: Tensor, rows: int) -> dict[str, Tensor]:
    blocks = backward_rows(evaluation, output, rows)
    if output.dtype.is_complex:
        imaginary = backward_rows(evaluation, output, rows, unit=1j)
        for name, block in blocks.items():
            # Row i of Jᴴ is what reverse mode gives: conj(∂f_i/∂z) of a complex input; of a real one its real part, and with
            # the cotangent i·e_i its imaginary part. There are no complex numbers of bfloat16.
            parts = (block.to(output.real.dtype), imaginary[name].to(output.real.dtype))
            blocks[name] = block.conj() if block.dtype.is_complex else torch.complex(*parts)
    return {name: block.reshape((*output.shape, *block.shape[1:])) for name, block in blocks.items()}


def backward_rows(evaluation: Evaluation, output: Tensor, rows: int, unit: complex = 1) -> dict[str, Tensor]:
    """One backward for each element of `output`: `{input: [elements, input…]}`."""
    single = output.numel() == 1
    if output.numel() == 0:
        return {n: i.new_zeros((0, *i.shape)) for n, i in zip(evaluation.wrt, evaluation.inputs, strict=True)}
    results: dict[str, Tensor] = {}
    for start, chunk in basis(output, rows):
        chunk = chunk * unit if unit != 1 else chunk
        gradients: Sequence[Tensor | None]
        if single:
            gradients = tuple(None if g is None else g.unsqueeze(0) for g in evaluation.grad((output,), (chunk[0],)))
        else:
            gradients = evaluation.grad_rows((output,), (chunk,))
        _fill(results, evaluation, gradients, start, chunk.shape[0], output.numel())
    return results


def _fill(
    results: dict[str, Tensor], evaluation: Evaluation, chunk: Sequence[Tensor | None], start: int, size: int, total: int
) -> None:
    """Writes a chunk of rows into the whole; the whole is the chunk where one chunk suffices."""
    for name, leaf, rows in zip(evaluation.wrt, evaluation.inputs, chunk, strict=True):
        if size == total:
            results[name] = leaf.new_zeros((total, *leaf.shape)) if rows is None else rows
            continue
        if name not in results:
            results[name] = leaf.detach().new_zeros((total, *leaf.shape))
        if rows is not None:
            results[name][start : start + size] = rows


def _forward(evaluation: Evaluation, wanted: dict[str, Tensor], rows: int) -> Matrix:
    names = tuple(wanted)
    result: Matrix = {name: {} for name in names}
    for wrt, leaf in zip(evaluation.wrt, evaluation.inputs, strict=True):
        point = leaf.detach()

        def outputs(value: Tensor, wrt: str = wrt) -> tuple[Tensor, ...]:
            values = dict(zip(evaluation.function.outputs, evaluation.at({wrt: value}), strict=True))
            return tuple(values[name] for name in names)

        def column(direction: Tensor, point: Tensor = point) -> tuple[Tensor, ...]:
            return torch.func.jvp(outputs, (point,), (direction,))[1]  # type: ignore[no-any-return]

        pieces = [torch.func.vmap(column, randomness="same")(chunk) for _, chunk in basis(point, rows)]
        for index, name in enumerate(names):
            value = wanted[name]
            if not pieces:
                result[name][wrt] = value.detach().new_zeros((*value.shape, *point.shape))
                continue
            columns = pieces[0][index] if len(pieces) == 1 else torch.cat([piece[index] for piece in pieces])
            # [inputs, output…] → [output…, input…]
            result[name][wrt] = columns.movedim(0, -1).reshape((*value.shape, *point.shape))
    return result


def hessian(evaluation: Evaluation, first: Sequence[Tensor | None], rows: int) -> Matrix:
    """`{input: {input2: [input…, input2…]}}` from the first derivative, reverse over reverse."""
    result: Matrix = {}
    for name, leaf, derivative in zip(evaluation.wrt, evaluation.inputs, first, strict=True):
        if derivative is None or not derivative.requires_grad:
            result[name] = zeros(evaluation, name)
            continue
        with refusing_second_derivatives():
            blocks = backward_rows(evaluation, derivative, rows)
        result[name] = {n: block.reshape((*leaf.shape, *block.shape[1:])) for n, block in blocks.items()}
    return result


def zeros(evaluation: Evaluation, name: str) -> dict[str, Tensor]:
    """The Hessian's row of an input in which the output has no curvature."""
    row = evaluation.leaves[name].shape
    return {n: i.detach().new_zeros((*row, *i.shape)) for n, i in zip(evaluation.wrt, evaluation.inputs, strict=True)}


def fisher(evaluation: Evaluation, likelihoods: Tensor, rows: int) -> dict[str, Tensor]:
    """The empirical Fisher matrix `[n, n]` of each input: the mean over samples of g·gᵀ (Martens, JMLR 21(146), 2020, section 5)."""
    result = {}
    for name, factor in backward_rows(evaluation, likelihoods, rows).items():
        g = factor.reshape(factor.shape[0], -1)
        result[name] = g.mT.conj() @ g / factor.shape[0]
    return result


def fisher_diagonal(evaluation: Evaluation, likelihoods: Tensor, rows: int) -> dict[str, Tensor]:
    """The mean over samples of g², the shape of each input; one chunk of per-sample gradients is held at a time."""
    total: dict[str, Tensor] = {}
    count = likelihoods.numel()
    for _, chunk in basis(likelihoods, rows):
        gradients = evaluation.grad_rows((likelihoods,), (chunk,))
        for name, leaf, g in zip(evaluation.wrt, evaluation.inputs, gradients, strict=True):
            square = torch.zeros_like(leaf.detach()) if g is None else (g * g.conj()).real.sum(0)
            total[name] = total[name] + square if name in total else square
    return {name: value / count for name, value in total.items()}
