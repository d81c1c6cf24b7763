"""Boolean CSR matrices, sorted and without duplicates, made and combined without the checks that scipy makes at every step.

A pattern of a small function takes some twenty such steps; with the checks each takes three times as long (measured, 2000 rows).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import _sparsetools, csr_matrix

Csr: TypeAlias = Any  # scipy.sparse.csr_matrix of booleans, rows sorted, without duplicates; scipy has no types
Numbers: TypeAlias = NDArray[np.int64]

_INT32_LIMIT: Final = np.iinfo(np.int32).max


def width(*sizes: int) -> Any:
    """The integers that scipy would take for arrays of these sizes."""
    return np.int32 if max(sizes) < _INT32_LIMIT else np.int64


def _template() -> dict[str, Any]:
    matrix = csr_matrix((0, 0), dtype=bool)
    matrix.has_canonical_format = True
    return dict(matrix.__dict__)


_TEMPLATE: Final = _template()


def assembled(columns: Numbers, pointers: Numbers, shape: tuple[int, int]) -> Csr:
    """Of arrays that are what they must be: sorted within each row, both of the width that scipy would take."""
    matrix = csr_matrix.__new__(csr_matrix)
    matrix.__dict__.update(_TEMPLATE)
    matrix._shape, matrix.indices, matrix.indptr = shape, columns, pointers
    matrix.data = np.ones(len(columns), dtype=bool)
    return matrix


def from_csr(columns: Numbers, pointers: Numbers, shape: tuple[int, int]) -> Csr:
    """The boolean CSR matrix of sorted column numbers and row pointers."""
    kind = width(len(columns), *shape)
    return assembled(columns.astype(kind, copy=False), pointers.astype(kind, copy=False), shape)


def slices(shape: Sequence[int], dims: Sequence[int]) -> Csr:
    """For each slice of a tensor along `dims`, which ascend, its elements; slices are counted row-major over the other dimensions."""
    dims = [dim for dim in dims if dim < len(shape)]  # of a single number
    rest = [dim for dim in range(len(shape)) if dim not in dims]
    size, elements = math.prod([shape[dim] for dim in dims]), math.prod(shape)
    count = math.prod([shape[dim] for dim in rest])
    members = np.arange(elements, dtype=width(elements))
    if rest and dims and rest[-1] > dims[0]:
        members = members.reshape(shape).transpose((*rest, *dims)).reshape(-1)
    return assembled(members, np.arange(count + 1, dtype=width(elements, count)) * size, (count, elements))


def picked(chosen: Csr, line: Numbers, columns: int) -> Csr | None:
    """Row i has the entries `line[k]` of all k in row i of `chosen`; None where they are not in order, or some are none (-1)."""
    kind = width(len(chosen.indices), chosen.shape[0], columns)
    indices = line[chosen.indices].astype(kind, copy=False)
    if not len(indices):
        return assembled(indices, chosen.indptr.astype(kind, copy=False), (chosen.shape[0], columns))
    ascends = np.empty(len(indices), bool)
    np.greater(indices[1:], indices[:-1], out=ascends[1:])
    starts = chosen.indptr[:-1]
    ascends[starts[starts < len(indices)]] = True
    if not ascends.all() or int(indices.min()) < 0:
        return None
    return assembled(indices, chosen.indptr.astype(kind, copy=False), (chosen.shape[0], columns))


def lengths(matrix: Csr) -> Numbers:
    """Entries of each row; NumPy's `diff` takes five times as long over a few thousand."""
    difference: Numbers = matrix.indptr[1:] - matrix.indptr[:-1]
    return difference


def row_numbers(matrix: Csr) -> Numbers:
    """The row of each entry, int64; kept with the matrix, as a layout asks for it some five times."""
    numbers: Numbers | None = matrix.__dict__.get("row_numbers")
    if numbers is None:
        numbers = matrix.row_numbers = np.repeat(np.arange(matrix.shape[0]), lengths(matrix))
    return numbers


def selection(row: Numbers, column: Numbers, shape: tuple[int, int]) -> Csr:
    """The boolean CSR matrix with an entry at each (row, column); duplicates are one."""
    matrix = csr_matrix((np.ones(len(row), dtype=bool), (row, column)), shape=shape)
    matrix.sum_duplicates()
    matrix.data.fill(True)
    return matrix


def canonical(matrix: Csr) -> Csr:
    """Sorted; sums and products of scipy make no duplicates, only the order may be lost."""
    if not matrix.has_canonical_format:
        matrix.sort_indices()
        matrix.has_canonical_format = True
    return matrix


def union(one: Csr, other: Csr) -> Csr:
    """The entries of either, of two of one shape."""
    one, other = canonical(one), canonical(other)
    rows, columns = one.shape
    most = len(one.indices) + len(other.indices)
    kind = width(most, rows, columns)
    pointers, indices, data = np.empty(rows + 1, kind), np.empty(most, kind), np.empty(most, bool)
    operands = [array.astype(kind, copy=False) for m in (one, other) for array in (m.indptr, m.indices)]
    _sparsetools.csr_plus_csr(
        rows, columns, operands[0], operands[1], one.data, operands[2], operands[3], other.data, pointers, indices, data
    )
    count = int(pointers[-1])
    return assembled(indices if count == most else indices[:count].copy(), pointers, one.shape)


def rows_of(matrix: Csr, numbers: Numbers) -> Csr:
    """The rows `numbers` in this order, repeats allowed."""
    counts = lengths(matrix)[numbers]
    total = int(counts.sum(dtype=np.int64))
    kind = width(total, len(numbers), matrix.shape[1])
    pointers = np.zeros(len(numbers) + 1, kind)
    np.cumsum(counts, out=pointers[1:])
    operands = [array.astype(kind, copy=False) for array in (numbers, matrix.indptr, matrix.indices)]
    indices, data = np.empty(total, kind), np.empty(total, bool)
    _sparsetools.csr_row_index(len(numbers), *operands, matrix.data, indices, data)
    return assembled(indices, pointers, (len(numbers), matrix.shape[1]))


def rows_between(matrix: Csr, start: int, stop: int) -> Csr:
    first, last = int(matrix.indptr[start]), int(matrix.indptr[stop])
    return assembled(
        matrix.indices[first:last], matrix.indptr[start : stop + 1] - matrix.indptr[start], (stop - start, matrix.shape[1])
    )


def transposed(matrix: Csr) -> Csr:
    rows, columns = matrix.shape
    pointers = np.empty(columns + 1, matrix.indptr.dtype)
    indices, data = np.empty(len(matrix.indices), matrix.indices.dtype), np.empty(len(matrix.indices), bool)
    _sparsetools.csr_tocsc(rows, columns, matrix.indptr, matrix.indices, matrix.data, pointers, indices, data)
    return assembled(indices, pointers, (columns, rows))


def stacked(matrices: Sequence[Csr]) -> Csr:
    """The rows of one after those of the other."""
    counts = np.cumsum([0, *(len(matrix.indices) for matrix in matrices)])
    pointers = np.concatenate(
        [[0], *(m.indptr[1:].astype(np.int64) + start for m, start in zip(matrices, counts, strict=False))]
    )
    columns = np.concatenate([matrix.indices for matrix in matrices])
    return from_csr(columns, pointers, (len(pointers) - 1, matrices[0].shape[1]))
