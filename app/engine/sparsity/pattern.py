"""Patterns of dependence: which elements of the inputs each element of a tensor can depend on, and how they are combined.

A pattern is a proven superset: what it leaves out cannot be. Where it would grow too long it becomes `full`, which leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from app.engine.sparsity import csr
from app.engine.sparsity.csr import Csr, Numbers, from_csr


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """One row for each element of a tensor, one column for each element of the inputs.

    Attributes:
        rows: the tensor's elements.
        matrix: boolean CSR `[rows, columns]`; None where every element may depend on every column.
    """

    rows: int
    matrix: Csr | None


class PatternSpace:
    """Patterns over the same columns.

    Attributes:
        columns: elements of the inputs.
        entries_at_most: a pattern that could have more entries is `full` instead, before it is made.
    """

    def __init__(self, columns: int, entries_at_most: int) -> None:
        self.columns = columns
        self.entries_at_most = entries_at_most

    def none(self, rows: int) -> Pattern:
        """Elements that depend on nothing."""
        return self._of(from_csr(np.empty(0, np.int32), np.zeros(rows + 1, np.int32), (rows, self.columns)))

    def full(self, rows: int) -> Pattern:
        return Pattern(rows, None)

    def identity(self, start: int, count: int) -> Pattern:
        """Element k depends on column `start + k`."""
        return self._of(from_csr(np.arange(start, start + count), np.arange(count + 1), (count, self.columns)))

    def _of(self, matrix: Csr) -> Pattern:
        return Pattern(matrix.shape[0], matrix)

    def union(self, patterns: Iterable[Pattern]) -> Pattern:
        """Each row depends on what it depends on in one of `patterns`, which have the same number of rows."""
        distinct = list({id(pattern): pattern for pattern in patterns}.values())
        total = distinct[0]
        for pattern in distinct[1:]:
            if total.matrix is None or pattern.matrix is None:
                return self.full(total.rows)
            if total.matrix.nnz + pattern.matrix.nnz > self.entries_at_most:
                return self.full(total.rows)
            total = self._of(csr.union(total.matrix, pattern.matrix))
        return total

    def take(self, pattern: Pattern, numbers: Numbers) -> Pattern:
        """The rows `numbers` in this order, repeats allowed."""
        if pattern.matrix is None:
            return self.full(len(numbers))
        counts = np.diff(pattern.matrix.indptr)
        if int(counts.max(initial=0)) * len(numbers) > self.entries_at_most and (
            int(counts[numbers].sum(dtype=np.int64)) > self.entries_at_most
        ):
            return self.full(len(numbers))
        return self._of(csr.rows_of(pattern.matrix, numbers))

    def slice(self, pattern: Pattern, start: int, stop: int) -> Pattern:
        if pattern.matrix is None:
            return self.full(stop - start)
        return self._of(csr.rows_between(pattern.matrix, start, stop))

    def product(self, chosen: Csr, pattern: Pattern) -> Pattern:
        """Row i depends on all that the rows named in row i of `chosen` depend on."""
        if pattern.matrix is None:
            return self.full(chosen.shape[0])
        counts = np.diff(pattern.matrix.indptr)
        bound = int(counts[chosen.indices].sum(dtype=np.int64)) if len(counts) else 0
        if bound > self.entries_at_most:
            return self.full(chosen.shape[0])
        return self._of(csr.canonical(chosen @ pattern.matrix))

    def stack(self, patterns: Sequence[Pattern]) -> Pattern:
        """The rows of one after those of the other."""
        rows = sum(pattern.rows for pattern in patterns)
        if any(pattern.matrix is None for pattern in patterns):
            return self.full(rows)
        if len(patterns) == 1:
            return patterns[0]
        return self._of(csr.stacked([pattern.matrix for pattern in patterns]))

    def all_of(self, patterns: Sequence[Pattern]) -> Pattern:
        """A single row that depends on what any row of any of `patterns` depends on."""
        if any(pattern.matrix is None for pattern in patterns):
            return self.full(1)
        columns = np.unique(np.concatenate([pattern.matrix.indices for pattern in patterns if pattern.matrix is not None]))
        return self._of(from_csr(columns, np.array([0, len(columns)]), (1, self.columns)))

    def repeated(self, row: Pattern, rows: int) -> Pattern:
        """The single row of `row` for each of `rows` elements."""
        if row.matrix is None or row.matrix.nnz * rows > self.entries_at_most:
            return self.full(rows)
        if rows > 1 and row.matrix.nnz == self.columns:
            return self.full(rows)
        return self.take(row, np.zeros(rows, np.int64))
