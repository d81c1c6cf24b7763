"""A plan of few passes for a sparse matrix: which rows and columns are differentiated together, and where each entry is then found.

Rows of one group share a pass of reverse mode, columns of one group a pass of forward mode (Curtis, Powell and Reid, "On the
estimation of sparse Jacobian matrices", IMA J. Appl. Math. 13(1), 1974). A few long rows or columns are taken apart, one pass each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from app.engine.sparsity.coloring import color_columns
from app.engine.sparsity.csr import Csr, Numbers, lengths, row_numbers, transposed

# A pass of forward mode runs the function again, one of reverse mode only its backward: 2.2 times as long (measured, heat step).
_FORWARD_COST: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Compression:
    """Of a matrix `[m, n]` with entries in row-major order.

    Attributes:
        row_groups: the pass of reverse mode that each row is in, -1 for none; column_groups: of forward mode, each column.
        row_passes, column_passes: how many of each.
        positions: for each entry its place in the results of the passes, one after the other: `[row_passes, n]`, `[column_passes, m]`.
    """

    row_groups: Tensor
    column_groups: Tensor
    row_passes: int
    column_passes: int
    positions: Tensor

    @property
    def passes(self) -> int:
        return self.row_passes + self.column_passes

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.row_groups, self.column_groups, self.positions))


class ClashError(RuntimeError):
    """Two entries would be read from one place: a bug in a colouring."""


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Groups of rows and of columns.

    Attributes:
        by_rows: entries are read from rows but in columns that have a group; else from columns but in rows that have one.
        mirrored: rows of a symmetric matrix whose entries are read for the columns of the same numbers too.
    """

    rows: Numbers
    columns: Numbers
    by_rows: bool
    mirrored: Numbers

    @property
    def cost(self) -> float:
        return _count(self.rows) + _FORWARD_COST * _count(self.columns)


_NO_LINES: Final = np.empty(0, np.int64)


def _count(groups: Numbers) -> int:
    return int(groups.max(initial=-1)) + 1


def compress(pattern: Csr, output: Sequence[int], leaf: Sequence[int], *, forward: bool, symmetric: bool) -> Compression:
    """The fewest passes that the colourings give.

    Arguments:
        pattern: `[output elements, leaf elements]`.
        output, leaf: shapes, whose coordinates the colourings are made from.
        forward: columns can be differentiated too.
        symmetric: the matrix is symmetric, so a pass gives a row and a column.
    """
    return _located(pattern, _groups(pattern, output, leaf, forward, symmetric))


def _groups(pattern: Csr, output: Sequence[int], leaf: Sequence[int], forward: bool, symmetric: bool) -> _Groups:
    m, n = pattern.shape
    across, down = lengths(pattern), np.bincount(pattern.indices, minlength=n)
    if symmetric:
        long = _longest(down)
        rows = _colored_rows(_without(pattern, long, long), output)
        return _Groups(_apart(rows, long), np.full(n, -1), by_rows=True, mirrored=long)
    long_columns = _longest(down, _FORWARD_COST) if forward else _NO_LINES
    long_rows = _longest(across, 1 / _FORWARD_COST)
    reverse_least = _longest_of_rest(down, long_columns) + _FORWARD_COST * len(long_columns)
    forward_least = _FORWARD_COST * _longest_of_rest(across, long_rows) + len(long_rows)
    best: _Groups | None = None
    for least, by_rows in sorted(((reverse_least, True), (forward_least, False)), key=lambda pair: pair[0]):
        if not (by_rows or forward) or (best is not None and best.cost <= least):
            continue
        if by_rows:
            rows = _colored_rows(_without(pattern, _NO_LINES, long_columns), output)
            columns = _apart(np.full(n, -1), long_columns)
        else:
            columns = color_columns(_without(pattern, long_rows, _NO_LINES), leaf)
            rows = _apart(np.full(m, -1), long_rows)
        candidate = _Groups(rows, columns, by_rows, _NO_LINES)
        best = candidate if best is None or candidate.cost < best.cost else best
    assert best is not None  # noqa: S101  # reverse mode is always a candidate
    return best


def _colored_rows(pattern: Csr, shape: Sequence[int]) -> Numbers:
    return color_columns(transposed(pattern), shape, pattern)


def _longest(entries: Numbers, each: float = 1.0) -> Numbers:
    """The lines to take apart, at a cost of `each` a line, so that their cost and the longest of the rest are least together."""
    longest = int(entries.max(initial=0))
    if each * np.count_nonzero(entries == longest) + 2 >= longest:  # these alone, the first to go, cost what they save
        return _NO_LINES
    # By length, the longest first: lines as long as the limit are left, the longer ones taken apart.
    counts = np.bincount(entries)[::-1]
    limits = np.arange(len(counts))[::-1]
    totals = each * (np.cumsum(counts) - counts) + limits
    best = int(np.argmin(totals))
    # Taken apart where it saves something: a line more or less is not worth two kinds of passes.
    return np.flatnonzero(entries > limits[best]) if totals[best] + 2 < totals[0] else _NO_LINES


def _longest_of_rest(entries: Numbers, lines: Numbers) -> int:
    return int((np.delete(entries, lines) if len(lines) else entries).max(initial=0))


def _without(pattern: Csr, rows: Numbers, columns: Numbers) -> Csr:
    """The pattern with these rows and columns emptied."""
    if not len(rows) and not len(columns):
        return pattern
    coordinates = pattern.tocoo()
    gone_rows, gone_columns = np.zeros(pattern.shape[0], dtype=bool), np.zeros(pattern.shape[1], dtype=bool)
    gone_rows[rows], gone_columns[columns] = True, True
    remaining = ~(gone_rows[coordinates.row] | gone_columns[coordinates.col])
    rest = coordinates.copy()
    rest.row, rest.col, rest.data = coordinates.row[remaining], coordinates.col[remaining], coordinates.data[remaining]
    matrix = rest.tocsr()
    matrix.sort_indices()
    return matrix


def _apart(groups: Numbers, lines: Numbers) -> Numbers:
    """`groups`, where each of `lines` has a group of its own."""
    result = groups.copy()
    result[lines] = -1
    result[lines] = _count(result) + np.arange(len(lines))
    return result


def _located(pattern: Csr, groups: _Groups) -> Compression:
    """Where each entry is read. Raises ClashError unless every place is read once: that is the proof of the colouring.

    A row that spoils another's entry has an entry of the same column itself, and both would be read from the same place.
    """
    m, n = pattern.shape
    rows = row_numbers(pattern)
    columns = pattern.indices.astype(np.int64)
    row_passes, column_passes = _count(groups.rows), _count(groups.columns)
    positions = groups.rows[rows] * n + columns
    if len(groups.mirrored):
        is_mirrored = np.zeros(n, dtype=bool)
        is_mirrored[groups.mirrored] = True
        swap = is_mirrored[columns] & ~is_mirrored[rows]
        positions[swap] = groups.rows[columns[swap]] * n + rows[swap]
        own = positions[~swap]
    else:
        own = positions
        if column_passes:
            by_column = groups.columns[columns] >= 0 if groups.by_rows else groups.rows[rows] < 0
            positions[by_column] = row_passes * n + groups.columns[columns[by_column]] * m + rows[by_column]
    if _has_duplicates(own):
        raise ClashError("a colouring put two entries into one place")
    return Compression(
        torch.from_numpy(groups.rows), torch.from_numpy(groups.columns), row_passes, column_passes, torch.from_numpy(positions)
    )


def _has_duplicates(positions: Numbers) -> bool:
    if int(positions.max(initial=0)) > 64 * len(positions) + 1024:  # too far apart to count each
        return len(np.unique(positions)) < len(positions)
    return int(np.bincount(positions, minlength=1).max(initial=0)) > 1


def diagonal_compression(count: int) -> Compression:
    """One pass for a diagonal; its entries are all of the pass."""
    return Compression(torch.zeros(count, dtype=torch.int64), torch.full((count,), -1), 1, 0, torch.arange(count))


def block_compression(output: Sequence[int], leaf: Sequence[int]) -> Compression:
    """One pass for each row of a block: entries in the order of `[n, output[1:]…, leaf[1:]…]`."""
    count, within, inside = output[0], math.prod(output[1:]), math.prod(leaf[1:])
    groups = torch.arange(within).repeat(count)
    b, o, i = torch.arange(count)[:, None, None], torch.arange(within)[None, :, None], torch.arange(inside)[None, None, :]
    positions = o * (count * inside) + b * inside + i
    return Compression(groups, torch.full((count * inside,), -1), within, 0, positions.reshape(-1))
