"""Passes of reverse and forward mode for one matrix, an output's derivative by one input, real and complex.

A complex function has two derivatives, A = ∂f/∂z and B = ∂f/∂z̄, with df = A·dz + B·dz̄. Reverse mode with the cotangent c gives
Aᴴ·c + Bᵀ·c̄ (PyTorch's convention, https://pytorch.org/docs/stable/notes/autograd.html#autograd-for-complex-numbers), forward mode with
the tangent t gives A·t + B·t̄; the cotangents 1 and i, or the tangents, tell A and B apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from app.engine.autodiff.evaluation import Evaluation, backward, backward_batch
from app.engine.sparsity.compression import Compression

# Below this many elements a pass costs its overhead, and several run together cost little more; above, each fills the memory's
# bandwidth by itself (measured: 16 passes of a heat step, n = 10,000, take 5 ms apart and 2 ms together; at 100,000 alike).
_SMALL: Final = 20_000
# What vmap and its confirmation cost in calls of their own, whatever the size (measured: 0.6 ms, a pass 0.06).
_APART_AT_MOST: Final = 8
# Results of passes that are held until their entries are picked: an eighth of a useful worker's memory (memory_budget.py).
_HELD_BYTES: Final = 64 << 20

# A derivative and, where the function is not holomorphic, the one by the conjugate.
Pair = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, slots=True)
class Passes:
    """Products with one matrix.

    Attributes:
        output, leaf: whose derivative, and with respect to what; their shapes and dtypes count.
        row: a cotangent → Jᵗ·cotangent, shape of `leaf`; rows: several at once, None where they cannot be.
        column: a tangent → J·tangent, shape of `output`; None where forward mode cannot be had.
        columns: several at once.
        holomorphic: proved; the derivative by the conjugate is zero.
    """

    output: Tensor
    leaf: Tensor
    row: Callable[[Tensor], Tensor]
    rows: Callable[[Tensor], Tensor]
    column: Callable[[Tensor], Tensor] | None
    columns: Callable[[Tensor], Tensor] | None
    holomorphic: bool

    @property
    def paired(self) -> bool:
        """Whether there are two derivatives."""
        return self.leaf.dtype.is_complex and not self.holomorphic

    @property
    def dtype(self) -> torch.dtype:
        """Of the derivative."""
        return torch.promote_types(self.output.dtype, self.leaf.dtype)

    def by_rows(self, groups: Tensor, numbers: range, chunk: int) -> Pair:
        """The sums of the rows of each group of `numbers`: `[groups, leaf elements]`.

        Arguments:
            groups: of each row, -1 for none; chunk: passes that may run together.
        """
        run, like = (self.row, self.rows), self.output
        first = _grouped(*run, groups, numbers, like, self.leaf, chunk, 1)
        if not self.output.dtype.is_complex:
            return (first.conj() / 2, first / 2) if self.leaf.dtype.is_complex else (first, None)
        if self.leaf.dtype.is_complex and self.holomorphic:
            return first.conj(), None
        second = _grouped(*run, groups, numbers, like, self.leaf, chunk, 1j)
        if self.leaf.dtype.is_complex:
            return (first - 1j * second).conj() / 2, (first + 1j * second) / 2
        part = self.dtype.to_real()  # there are no complex numbers of bfloat16
        return torch.complex(first.to(part), second.to(part)), None

    def by_columns(self, groups: Tensor, numbers: range, chunk: int) -> Pair:
        """The sums of the columns of each group of `numbers`: `[groups, output elements]`. Only where `column` is not None."""
        if self.column is None or self.columns is None:
            raise NotImplementedError("forward mode")
        run, like = (self.column, self.columns), self.leaf
        first = _grouped(*run, groups, numbers, like, self.output, chunk, 1)
        if not self.paired:
            return first, None
        second = _grouped(*run, groups, numbers, like, self.output, chunk, 1j)
        return (first - 1j * second) / 2, (first + 1j * second) / 2


def _grouped(
    row: Callable[[Tensor], Tensor],
    rows: Callable[[Tensor], Tensor],
    groups: Tensor,
    numbers: range,
    like: Tensor,
    result: Tensor,
    chunk: int,
    unit: complex,
) -> Tensor:
    count = len(numbers)
    if count == 0:
        return result.detach().new_zeros((0, result.numel()))
    groups = groups.to(like.device)
    apart = _run_apart(count, groups.numel())
    step = chunk if not apart else 1 if groups.numel() > _SMALL else count
    pieces = []
    for start in range(numbers.start, numbers.stop, step):
        some = torch.arange(start, min(start + step, numbers.stop), device=groups.device)
        seeds = (groups == some[:, None]).to(like.dtype).reshape((len(some), *like.shape))
        if unit != 1:
            seeds = seeds * unit
        if apart:
            pieces += [row(seed).reshape(1, -1) for seed in seeds.unbind()]
        else:
            pieces.append(rows(seeds).reshape(len(some), -1))
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).detach()


def _run_apart(count: int, elements: int) -> bool:
    """Whether so many passes, each with a seed of so many elements, run one after the other."""
    return count <= _APART_AT_MOST or (elements > _SMALL and count <= _SMALL)


def _rows_of(
    evaluation: Evaluation, output: Tensor, leaf: Tensor
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    def row(cotangent: Tensor) -> Tensor:
        (gradient,) = backward((output,), (cotangent,), True, False, (leaf,), allow_unreachable=True, accumulate_grad=False)
        return torch.zeros_like(leaf) if gradient is None else gradient

    def rows(cotangents: Tensor) -> Tensor:
        def fast() -> Tensor:
            (gradients,) = backward_batch((output,), (leaf,), (cotangents,))
            return leaf.new_zeros((cotangents.shape[0], *leaf.shape)) if gradients is None else gradients

        return evaluation.with_fallback(fast, lambda: torch.stack([row(c) for c in cotangents]))

    return row, rows


def jacobian_passes(evaluation: Evaluation, name: str, wrt: str, holomorphic: bool, *, forward: bool) -> Passes:
    """Of output `name` with respect to the input `wrt`; forward mode where `forward`."""
    output, leaf = evaluation.outputs[name], evaluation.leaves[wrt]
    index = evaluation.function.outputs.index(name)
    point = leaf.detach()

    def column(tangent: Tensor) -> Tensor:
        product: Tensor = torch.func.jvp(lambda value: evaluation.at({wrt: value})[index], (point,), (tangent,))[1]
        return product

    def columns(tangents: Tensor) -> Tensor:
        return evaluation.with_fallback(
            lambda: torch.func.vmap(column, randomness="same")(tangents), lambda: torch.stack([column(t) for t in tangents])
        )

    row, rows = _rows_of(evaluation, output, leaf)
    return Passes(output, leaf, row, rows, column if forward else None, columns if forward else None, holomorphic)


def hessian_passes(evaluation: Evaluation, gradient: Tensor, leaf: Tensor, row_leaf: Tensor, mirrored: Tensor | None) -> Passes:
    """Of `gradient`, the one with respect to `row_leaf`, with respect to `leaf`.

    Columns come from `mirrored`, the gradient with respect to `leaf`: a Hessian is symmetric. Of a real function of complex numbers
    the gradient is 2·∂f/∂z̄, whose derivative by z is Hermitian and by z̄ symmetric, so reverse mode gives A·t + B·t̄ there too.
    """
    row, rows = _rows_of(evaluation, gradient, leaf)
    if mirrored is None or not mirrored.requires_grad:
        return Passes(gradient, leaf, row, rows, None, None, holomorphic=False)
    column, columns = _rows_of(evaluation, mirrored, row_leaf)
    return Passes(gradient, leaf, row, rows, column, columns, holomorphic=False)


def held_bytes(compression: Compression, rows: int, columns: int, itemsize: int) -> int:
    """Of the results of passes that are held at a time, of a matrix `[rows, columns]`."""
    whole = (compression.row_passes * columns + compression.column_passes * rows) * itemsize
    return min(whole, max(_HELD_BYTES, max(rows, columns) * itemsize))


def at_once(compression: Compression | None, rows: int, columns: int, chunk: int) -> int:
    """Passes that run together at most, of a matrix `[rows, columns]`; `compression` is None where there is one for each row or column."""
    runs = [(min(rows, columns, chunk), min(rows, columns))]
    if compression is not None:
        runs = [(compression.row_passes, rows), (compression.column_passes, columns)]
    return max([1 if _run_apart(count, elements) else min(chunk, count) for count, elements in runs])


def entries(passes: Passes, compression: Compression, chunk: int) -> Pair:
    """The values of the entries that `compression` places; a few passes at a time, where all of them would take much memory."""
    m, n, device = passes.output.numel(), passes.leaf.numel(), passes.leaf.device
    positions = compression.positions.to(device)
    runs = [
        (run, groups, numbers, width, offset + numbers.start * width)
        for run, groups, count, width, offset in (
            (passes.by_rows, compression.row_groups, compression.row_passes, n, 0),
            (passes.by_columns, compression.column_groups, compression.column_passes, m, compression.row_passes * n),
        )
        for numbers in _pieces(count, width * passes.dtype.itemsize)
    ]
    if len(runs) <= 2:
        pairs = [run(groups, numbers, chunk) for run, groups, numbers, _, _ in runs]
        first, second = (_joined([pair[part] for pair in pairs], passes) for part in range(2))
        return first.index_select(0, positions), second.index_select(0, positions) if passes.paired else None
    order = torch.argsort(positions)
    ordered = positions[order]
    results = [torch.empty(len(positions), dtype=passes.dtype, device=device) for _ in range(2 if passes.paired else 1)]
    for run, groups, numbers, width, offset in runs:
        limits = torch.tensor([offset, offset + len(numbers) * width], device=device)
        start, stop = torch.searchsorted(ordered, limits).tolist()
        for result, buffer in zip(results, run(groups, numbers, chunk), strict=False):
            if buffer is not None:
                result[order[start:stop]] = buffer.reshape(-1)[ordered[start:stop] - offset].to(passes.dtype)
    return results[0], results[1] if passes.paired else None


def _joined(buffers: Sequence[Tensor | None], passes: Passes) -> Tensor:
    """The results of passes, one after the other."""
    flat = [buffer.reshape(-1) for buffer in buffers if buffer is not None]
    if len(flat) == 1:
        return flat[0]
    empty = torch.zeros(0, dtype=passes.dtype, device=passes.leaf.device)
    return torch.cat([empty, *(buffer.to(passes.dtype) for buffer in flat)])


def _pieces(count: int, line_bytes: int) -> Iterator[range]:
    """The numbers from 0 to `count`, as many at a time as may be held."""
    step = max(1, _HELD_BYTES // max(1, line_bytes))
    return (range(start, min(start + step, count)) for start in range(0, count, step))


def full(passes: Passes, chunk: int) -> Pair:
    """The whole matrix, `[output elements, leaf elements]`, by whichever mode takes fewer passes."""
    m, n = passes.output.numel(), passes.leaf.numel()
    by_columns = passes.column is not None and n < m
    run = passes.by_columns if by_columns else passes.by_rows
    pieces = [run(groups, range(size), chunk) for groups, size in _identity(n if by_columns else m, chunk, passes.leaf.device)]
    if not pieces:
        empty = torch.zeros((m, n), dtype=passes.dtype, device=passes.leaf.device)
        return empty, empty if passes.paired else None
    first = torch.cat([piece[0] for piece in pieces])
    second = torch.cat([piece[1] for piece in pieces if piece[1] is not None]) if passes.paired else None
    return (first.mT, None if second is None else second.mT) if by_columns else (first, second)


def full_diagonal(passes: Passes, chunk: int) -> Pair:
    """The diagonal of the whole matrix, chunk of rows by chunk."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    start = 0
    for groups, size in _identity(passes.output.numel(), chunk, passes.leaf.device):
        for diagonals, rows in zip(parts, passes.by_rows(groups, range(size), chunk), strict=True):
            if rows is not None:
                diagonals.append(rows.diagonal(offset=start).clone())
        start += size
    empty = torch.zeros(0, dtype=passes.dtype, device=passes.leaf.device)
    first = torch.cat([empty, *parts[0]])
    return first, torch.cat([empty, *parts[1]]) if passes.paired else None


def _identity(count: int, chunk: int, device: torch.device) -> Iterator[tuple[Tensor, int]]:
    """Each line a group of its own, `chunk` at a time."""
    for start in range(0, count, chunk):
        size = min(chunk, count - start)
        groups = torch.full((count,), -1, device=device)
        groups[start : start + size] = torch.arange(size, device=device)
        yield groups, size
