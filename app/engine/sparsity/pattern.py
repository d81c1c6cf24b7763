"""Patterns of dependence: which elements of the inputs each element of a tensor can depend on, and how they are combined.

A pattern is a proven superset: what it leaves out cannot be. Where it would grow too long it becomes `full`, which leaves nothing out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final
from weakref import ref

import numpy as np

from app.engine.sparsity import csr, ellpack
from app.engine.sparsity.csr import Csr, Numbers, from_csr
from app.engine.sparsity.ellpack import Lines

# Of a union whose entries are counted as they are joined: an eighth of them is what it holds beyond those that are let through.
_PIECES: Final = 8
# Of all patterns that are held at once, in those that one may have: as much memory as one that is brought to its passes (plan.py: 110 bytes an
# entry there, 8 here), and a pair on the way to the next.
_TOGETHER: Final = 4
_COUNTED: Final = 1 << 14  # entries: what has fewer takes no memory worth counting, and counting takes a microsecond


class Pattern:
    """One row for each element of a tensor, one column for each element of the inputs: as lines or as a matrix, or full.

    Attributes:
        rows: the tensor's elements.
        lines: where there are few entries in a row, else None.
    """

    __slots__ = ("__weakref__", "_columns", "_matrix", "lines", "rows")

    def __init__(self, rows: int, matrix: Csr | None = None, lines: Lines | None = None, columns: int = 0) -> None:
        self.rows = rows
        self.lines = lines
        self._matrix = matrix
        self._columns = columns if matrix is None else matrix.shape[1]

    @property
    def is_full(self) -> bool:
        """Every element may depend on every column."""
        return self.lines is None and self._matrix is None

    @property
    def entries_at_most(self) -> int:
        """Entries, where no line repeats another's; of what is not full."""
        return len(self.lines) * self.rows if self.lines is not None else int(self.matrix.nnz)

    @property
    def matrix(self) -> Csr:
        """Boolean CSR `[rows, columns]`; None where it is full."""
        if self._matrix is None and self.lines is not None:
            self._matrix = ellpack.matrix_of(self.lines, self.rows, self._columns)
        return self._matrix

    def between(self, start: int, stop: int) -> Pattern:
        """These columns alone, numbered from 0."""
        if self.lines is not None:
            cut = [np.where((line >= start) & (line < stop), line - start, -1) for line in self.lines]
            return Pattern(self.rows, None, tuple([line for line in cut if (line >= 0).any()]), stop - start)
        return Pattern(self.rows, None if self._matrix is None else self._matrix[:, start:stop])


class PatternSpace:
    """Patterns over the same columns.

    Attributes:
        columns: elements of the inputs.
        entries_at_most: a pattern that could have more entries is `full` instead, before it is made; and one that would have, with all
            that are held, `_TOGETHER` times as many.
        held: entries of all patterns at once, at their most.
    """

    def __init__(self, columns: int, entries_at_most: int) -> None:
        self.columns = columns
        self.entries_at_most = entries_at_most
        self.held = 0
        self._large: list[ref[Pattern]] = []

    def none(self, rows: int) -> Pattern:
        """Elements that depend on nothing."""
        return Pattern(rows, None, (), self.columns)

    def full(self, rows: int) -> Pattern:
        return Pattern(rows)

    def identity(self, start: int, count: int) -> Pattern:
        """Element k depends on column `start + k`."""
        line = np.arange(start, start + count, dtype=csr.width(count, self.columns))
        return Pattern(count, None, (line,), self.columns)

    def _of(self, matrix: Csr) -> Pattern:
        return self._counted(Pattern(matrix.shape[0], matrix), int(matrix.nnz))

    def _lined(self, lines: Lines, rows: int) -> Pattern:
        return self._counted(Pattern(rows, None, lines, self.columns), len(lines) * rows)

    def _counted(self, pattern: Pattern, entries: int) -> Pattern:
        """The pattern, or a full one where it is too much beside the others that are held."""
        if entries < _COUNTED:
            return pattern
        alive = [(one, held) for one in self._large if (held := one()) is not None]
        total = entries + sum([held.entries_at_most for _, held in alive])
        self._large = [one for one, _ in alive]
        if total > _TOGETHER * self.entries_at_most:
            return self.full(pattern.rows)
        self.held = max(self.held, total)
        self._large.append(ref(pattern))
        return pattern

    def _fits(self, lines: Lines | None, rows: int) -> bool:
        """Whether these lines are there, and not too many entries even if no two are one."""
        return lines is not None and len(lines) * rows <= self.entries_at_most

    def union(self, patterns: Iterable[Pattern]) -> Pattern:
        """Each row depends on what it depends on in one of `patterns`, which have the same number of rows."""
        distinct = list({id(pattern): pattern for pattern in patterns}.values())
        total = distinct[0]
        for pattern in distinct[1:]:
            total = self._both(total, pattern)
        return total

    def _both(self, one: Pattern, other: Pattern) -> Pattern:
        if one.lines is not None and other.lines is not None:
            joined = ellpack.united(one.lines, other.lines)
            if joined is not None and self._fits(joined, one.rows):
                return self._lined(joined, one.rows)
        first, second = one.matrix, other.matrix
        if first is None or second is None:
            return self.full(one.rows)
        if first.nnz + second.nnz <= self.entries_at_most:
            return self._of(csr.union(first, second))
        pieces, count = [], 0  # what both have is counted once, and that shows a piece at a time
        step = -(-one.rows // _PIECES)
        for start in range(0, one.rows, step):
            rows = start, min(start + step, one.rows)
            pieces.append(csr.union(csr.rows_between(first, *rows), csr.rows_between(second, *rows)))
            count += pieces[-1].nnz
            if count > self.entries_at_most:
                return self.full(one.rows)
        return self._of(csr.stacked(pieces))

    def take(self, pattern: Pattern, numbers: Numbers) -> Pattern:
        """The rows `numbers` in this order, repeats allowed."""
        if pattern.lines is not None and self._fits(pattern.lines, len(numbers)):
            return self._lined(ellpack.taken(pattern.lines, numbers), len(numbers))
        matrix = pattern.matrix
        if matrix is None:
            return self.full(len(numbers))
        counts = csr.lengths(matrix)
        if int(counts.max(initial=0)) * len(numbers) > self.entries_at_most and (
            int(counts[numbers].sum(dtype=np.int64)) > self.entries_at_most
        ):
            return self.full(len(numbers))
        return self._of(csr.rows_of(matrix, numbers))

    def placed(self, pattern: Pattern, part: tuple[int, ...], shape: tuple[int, ...], at: tuple[Any, ...]) -> Pattern:
        """The rows of a tensor of `shape` that has this pattern, of the shape `part`, at the index `at`, and nothing elsewhere.

        Raises ValueError where the two do not fit.
        """
        rows = math.prod(shape)
        if pattern.lines is not None and self._fits(pattern.lines, rows):
            lines = [np.full(shape, -1, line.dtype) for line in pattern.lines]
            for whole, line in zip(lines, pattern.lines, strict=True):
                if whole[at].shape != part:
                    raise ValueError(part)
                whole[at] = line.reshape(part)
            return self._lined(tuple([line.reshape(-1) for line in lines]), rows)
        numbers = np.zeros(shape, np.int64)
        if numbers[at].shape != part:
            raise ValueError(part)
        numbers[at] = np.arange(1, pattern.rows + 1).reshape(part)
        return self.take(self.stack([self.none(1), pattern]), numbers.reshape(-1))

    def slice(self, pattern: Pattern, start: int, stop: int) -> Pattern:
        if pattern.lines is not None:
            return Pattern(stop - start, None, tuple([line[start:stop] for line in pattern.lines]), self.columns)
        if pattern.matrix is None:
            return self.full(stop - start)
        return self._of(csr.rows_between(pattern.matrix, start, stop))

    def product(self, chosen: Csr, pattern: Pattern) -> Pattern:
        """Row i depends on all that the rows named in row i of `chosen` depend on."""
        if pattern.is_full:
            return self.full(chosen.shape[0])
        if chosen.shape[0] == 1 and len(chosen.indices) == pattern.rows:
            return self.all_of([pattern])
        if pattern.lines is not None and len(pattern.lines) == 1 and len(chosen.indices) <= self.entries_at_most:
            picked = csr.picked(chosen, pattern.lines[0], self.columns)
            if picked is not None:
                return self._of(picked)
        matrix = pattern.matrix
        counts = csr.lengths(matrix)
        bound = int(counts[chosen.indices].sum(dtype=np.int64)) if len(counts) else 0
        if bound > self.entries_at_most:
            return self.full(chosen.shape[0])
        return self._of(csr.canonical(chosen @ matrix))

    def stack(self, patterns: Sequence[Pattern]) -> Pattern:
        """The rows of one after those of the other."""
        if len(patterns) == 1:
            return patterns[0]
        rows = sum([pattern.rows for pattern in patterns])
        if any(pattern.is_full for pattern in patterns):
            return self.full(rows)
        parts = [(pattern.rows, pattern.lines) for pattern in patterns if pattern.lines is not None]
        if len(parts) == len(patterns):
            lines = ellpack.stacked(parts)
            if self._fits(lines, rows):
                return self._lined(lines, rows)
        return self._of(csr.stacked([pattern.matrix for pattern in patterns]))

    def all_of(self, patterns: Sequence[Pattern]) -> Pattern:
        """A single row that depends on what any row of any of `patterns` depends on."""
        if any(pattern.is_full for pattern in patterns):
            return self.full(1)
        there = np.zeros(self.columns + 1, dtype=bool)  # the last is where -1 points to
        for pattern in patterns:
            for line in (pattern.matrix.indices,) if pattern.lines is None else pattern.lines:
                there[line] = True
        columns = np.flatnonzero(there[:-1])
        return self._of(from_csr(columns, np.array([0, len(columns)]), (1, self.columns)))

    def repeated(self, row: Pattern, rows: int) -> Pattern:
        """The single row of `row` for each of `rows` elements."""
        if row.matrix is None or row.matrix.nnz * rows > self.entries_at_most:
            return self.full(rows)
        if rows > 1 and row.matrix.nnz == self.columns:
            return self.full(rows)
        return self.take(row, np.zeros(rows, np.int64))
