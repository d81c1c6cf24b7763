"""Compares proven patterns with dense derivatives: every entry that is not zero must be inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.engine.sparsity.tracer import Trace, trace
from app.program.function import Function

ENTRIES = 32_000_000
Bools = NDArray[np.bool_]


def traced(function: Function, leaves: Mapping[str, Tensor], wrt: Sequence[str], seed: int = 0) -> list[Trace]:
    """Patterns of the outputs with respect to `wrt`, together."""

    def run() -> tuple[Tensor, ...]:
        torch.default_generator.manual_seed(seed)
        return function.call(*(leaves[name] for name in function.leaves))

    with torch.no_grad():
        return trace(run, [leaves[name] for name in wrt], list(leaves.values()), ENTRIES, cut=True)


def traced_gradient(
    function: Function, leaves: Mapping[str, Tensor], wrt: Sequence[str], output: int, seed: int = 0
) -> list[Trace]:
    """Patterns of the gradient of one scalar output: those of the Hessian."""
    point = {name: leaf.detach().requires_grad_(name in wrt) for name, leaf in leaves.items()}

    def run() -> list[Tensor | None]:
        torch.default_generator.manual_seed(seed)
        value = function.call(*(point[name] for name in function.leaves))[output]
        inputs = [point[name] for name in wrt]
        return list(torch.autograd.grad(value, inputs, torch.ones_like(value), create_graph=True, allow_unused=True))

    with torch.enable_grad():
        return trace(run, [point[name] for name in wrt], list(point.values()), ENTRIES, cut=False)


def dense_rows(outputs: Sequence[Tensor | None], inputs: Sequence[Tensor]) -> list[Bools]:
    """For each output, `[elements, input elements]`: where the derivative by autograd, one row at a time, is not zero.

    Not what is below the rounding of the row's largest entry: a few backwards (cumprod's) subtract what they have added.
    """
    columns = sum(tensor.numel() for tensor in inputs)
    matrices = []
    for output in outputs:
        count = 0 if output is None else output.numel()
        matrix = np.zeros((count, columns), dtype=bool)
        if output is not None and output.requires_grad:
            for row in range(count):
                for unit in (1, 1j) if output.dtype.is_complex else (1,):
                    matrix[row] |= _row(output, inputs, row, unit)
        matrices.append(matrix)
    return matrices


def _row(output: Tensor, inputs: Sequence[Tensor], row: int, unit: complex) -> Bools:
    cotangent = torch.zeros_like(output).reshape(-1)
    cotangent[row].fill_(unit)
    gradients = torch.autograd.grad(output, inputs, cotangent.reshape(output.shape), retain_graph=True, allow_unused=True)
    sizes = torch.cat(
        [
            torch.zeros(i.numel(), dtype=torch.float64) if g is None else g.reshape(-1).abs().to(torch.float64)
            for g, i in zip(gradients, inputs, strict=True)
        ]
    )
    sizes = sizes.nan_to_num(0.0, posinf=torch.inf)
    largest = float(sizes[sizes.isfinite()].max()) if bool(sizes.isfinite().any()) else 0.0
    nonzero: Bools = (sizes > 64 * torch.finfo(output.dtype).eps * largest).numpy()
    return nonzero


def missing(traces: Sequence[Trace], matrices: Sequence[Bools]) -> tuple[int, int, int]:
    """(entries outside the pattern, entries of the pattern, entries that are not zero)."""
    outside = inside = there = 0
    for traced, matrix in zip(traces, matrices, strict=True):
        pattern = traced.pattern
        held = np.ones(matrix.shape, bool) if pattern.matrix is None else pattern.matrix.toarray()
        outside += int((matrix & ~held).sum())
        inside += int(held.sum())
        there += int(matrix.sum())
    return outside, inside, there
