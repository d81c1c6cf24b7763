"""Patterns of few entries in a row in ELLPACK form: arrays with a column for each row, so that a union joins tuples and rows are picked.

Most steps of a sparse function add an entry or two, move them, or leave them where they are. A boolean CSR matrix is made of lines once,
where it is asked for, in the place of one for each step: 25 µs each at 2,000 rows (measured), where a union of lines takes two.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from app.engine.sparsity.csr import Csr, Numbers, assembled, width

# Each a column of its row's entries, or -1 for none; a column may be in several lines of a row.
Lines: TypeAlias = tuple[Numbers, ...]
# Beyond, a union of CSR matrices takes less than what is done to each line.
LINES_AT_MOST: Final = 8
# Up to so many lines are sorted against one another as whole arrays, more of them row by row (measured at 2,000 and 100,000 rows).
_COMPARED: Final = 5


def united(one: Lines, other: Lines) -> Lines | None:
    """The entries of either, of patterns with as many rows; None where they are too many lines."""
    new = [line for line in other if not any(line is known for known in one)]
    if not new:
        return one
    if len(one) + len(new) > 2:  # few are not worth a look at what they hold
        new = [line for line in new if not any(_is_same(line, known) for known in one)]
    return (*one, *new) if len(one) + len(new) <= LINES_AT_MOST else None


def _is_same(one: Numbers, other: Numbers) -> bool:
    return not len(one) or bool(one[0] == other[0] and one[-1] == other[-1] and np.array_equal(one, other))


def taken(lines: Lines, numbers: Numbers) -> Lines:
    """The rows `numbers` in this order, repeats allowed."""
    return tuple([line[numbers] for line in lines])


def stacked(parts: Sequence[tuple[int, Lines]]) -> Lines:
    """The rows of one after those of the other; each: how many rows, and their lines."""
    most = max(len(lines) for _, lines in parts)
    missing = [np.full(rows, -1, np.int32) if len(lines) < most else None for rows, lines in parts]
    return tuple(
        [
            np.concatenate([lines[k] if k < len(lines) else empty for (_, lines), empty in zip(parts, missing, strict=True)])
            for k in range(most)
        ]
    )


def matrix_of(lines: Lines, rows: int, columns: int) -> Csr:
    """The boolean CSR matrix `[rows, columns]` of these lines."""
    kind = width(rows * len(lines), rows, columns)
    if not lines:
        return assembled(np.empty(0, kind), np.zeros(rows + 1, kind), (rows, columns))
    ordered = _ordered([line.astype(kind, copy=False) for line in lines])
    keeping = [ordered[0] >= 0] + [(one >= 0) & (one != before) for before, one in itertools.pairwise(ordered)]
    count = len(lines)
    indices = ordered[0] if count == 1 else np.stack(ordered, axis=1).reshape(-1)
    if all(bool(keeps.all()) for keeps in keeping):
        return assembled(indices, np.arange(0, rows * count + 1, count, dtype=kind), (rows, columns))
    keeps = keeping[0] if count == 1 else np.stack(keeping, axis=1)
    pointers = np.zeros(rows + 1, kind)
    np.cumsum(keeps if count == 1 else keeps.sum(axis=1), out=pointers[1:])
    return assembled(indices[keeps.reshape(-1)], pointers, (rows, columns))


def _ordered(lines: list[Numbers]) -> list[Numbers]:
    """The same entries in each row, ascending from line to line."""
    if len(lines) > _COMPARED:
        return list(np.sort(np.stack(lines, axis=1), axis=1).T)
    for last in range(len(lines) - 1, 0, -1):
        for k in range(last):
            low, high = lines[k], lines[k + 1]
            lines[k], lines[k + 1] = np.minimum(low, high), np.maximum(low, high)
    return lines
