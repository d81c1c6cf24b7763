"""Colours of columns such that no row has two columns of one colour: columns of a colour are then differentiated in one pass.

First by arithmetic (Σ aᵢ·coordinateᵢ mod p, which fits bands, stencils and blocks), counted on all entries, else greedily.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from app.engine.sparsity.pattern import Csr, Numbers

# Rows on which a candidate is tried before it is tried on all.
_TRIED_ROWS: Final = 256
# Candidates of the arithmetic kind for one p: enough for all pairs of coefficients up to p = 16.
_CANDIDATES: Final = 256
# Rounds over all entries that a greedy colouring may take: 11 colours of a random pattern take some 15.
_GREEDY_ROUNDS: Final = 48
_GREEDY_ENTRIES: Final = 30_000_000  # some seconds
# Beyond the lower bound: a five-point stencil needs 5 of 5, a ring 4 of 3; further off greedy does as well.
_MORE_COLORS: Final = 4


def color_columns(pattern: Csr, shape: Sequence[int]) -> Numbers:
    """The colour of each column of `pattern`, from 0 up, none skipped. Columns without entries have colour 0.

    Arguments:
        shape: of the input that the columns are the elements of, row-major.
    """
    columns = pattern.shape[1]
    lengths = np.diff(pattern.indptr)
    least = int(lengths.max(initial=0))
    if least <= 1:
        return np.zeros(columns, np.int64)
    if least == columns:
        return np.arange(columns)
    coordinates = np.unravel_index(np.arange(columns), tuple(shape)) if len(shape) > 1 else (np.arange(columns),)
    sample = _sample(pattern, lengths)
    for p in range(least, min(least + _MORE_COLORS, columns)):
        for coefficients in _coefficients(len(coordinates), p):
            colors = _arithmetic(coordinates, coefficients, p)
            if not _clashes(sample, colors, p) and (colors_found := _settled(pattern, colors, p)) is not None:
                return colors_found
    return _greedy(pattern, np.full(columns, -1))


def _settled(pattern: Csr, colors: Numbers, p: int) -> Numbers | None:
    """`colors`, with the few columns that clash coloured anew; None where they are not few."""
    clashing = _clashing_columns(pattern, colors, p)
    if not len(clashing):
        return colors
    if len(clashing) > 0.02 * pattern.shape[1]:
        return None
    started = colors.copy()
    started[clashing] = -1
    return _greedy(pattern, started)


def _coefficients(rank: int, p: int) -> Iterator[tuple[int, ...]]:
    """Coefficients mod p; the last coordinate's, which changes fastest, is 1 or 0 first."""
    if rank == 1:
        yield (1,)
        return
    # With the coefficient of one coordinate scaled to 1 the others need not run through all.
    for count, coefficients in enumerate(itertools.product(range(p), repeat=rank)):
        if count > _CANDIDATES:
            return
        if any(coefficients):
            yield coefficients[::-1] if rank <= 2 else coefficients


def _arithmetic(coordinates: Sequence[Numbers], coefficients: Sequence[int], p: int) -> Numbers:
    total = np.zeros(len(coordinates[0]), np.int64)
    for coordinate, coefficient in zip(coordinates, coefficients, strict=True):
        if coefficient:
            total += coefficient * coordinate
    return total % p


def _sample(pattern: Csr, lengths: Numbers) -> Csr:
    """Some rows: the longest, and others evenly spread."""
    longest = np.argsort(lengths)[-16:] if len(lengths) > 16 else np.arange(len(lengths))
    spread = np.linspace(0, pattern.shape[0] - 1, _TRIED_ROWS // 2, dtype=np.int64) if pattern.shape[0] else longest
    middle = spread[len(spread) // 4 : -len(spread) // 4 or None]  # borders may clash and be mended
    return pattern[np.unique(np.concatenate([longest[:8], middle]))]


def _row_color_keys(pattern: Csr, colors: Numbers, p: int) -> Numbers:
    rows = np.repeat(np.arange(pattern.shape[0], dtype=np.int64), np.diff(pattern.indptr))
    rows *= p
    rows += colors[pattern.indices]
    return rows


def _clashes(pattern: Csr, colors: Numbers, p: int) -> bool:
    keys = _row_color_keys(pattern, colors, p)
    return len(np.unique(keys)) < len(keys)


def _clashing_columns(pattern: Csr, colors: Numbers, p: int) -> Numbers:
    """Columns that share a row and a colour with another; counted over all entries."""
    keys = _row_color_keys(pattern, colors, p)
    counts = np.bincount(keys, minlength=1)
    if int(counts.max(initial=0)) <= 1:
        return np.empty(0, np.int64)
    return np.unique(pattern.indices[counts[keys] > 1])


def _greedy(pattern: Csr, colors: Numbers) -> Numbers:
    """Colours the columns that have none (-1), each with the least that its rows allow, many at a time.

    In each round every uncoloured column proposes a colour; of those that clash the first of each row keeps it (Jones and Plassmann,
    "A parallel graph coloring heuristic", SIAM J. Sci. Comput. 14(3), 1993, with positions for priorities).
    """
    by_column = pattern.T.tocsr()
    rows_of, starts = by_column.indices, by_column.indptr
    words = 1
    taken = np.zeros((pattern.shape[0], words), np.uint64)
    done = np.flatnonzero(colors >= 0)
    if len(done):
        words = int(colors.max()) // 64 + 1
        taken = np.zeros((pattern.shape[0], words), np.uint64)
        _take_colors(taken, rows_of, starts, done, colors[done])
    colors = colors.copy()
    colors[np.diff(starts) == 0] = np.maximum(colors[np.diff(starts) == 0], 0)
    left = np.flatnonzero(colors < 0)
    work = min(_GREEDY_ROUNDS * (pattern.nnz + pattern.shape[1]), _GREEDY_ENTRIES)
    while len(left):
        work -= int((starts[left + 1] - starts[left]).sum())
        if work < 0:  # so entangled that there is little to share: a colour for each of the rest
            colors[left] = int(colors.max(initial=-1)) + 1 + np.arange(len(left))
            break
        forbidden, entries, owner = _forbidden(taken, rows_of, starts, left)
        proposal = _least_free(forbidden)
        need = int(proposal.max()) // 64 + 1
        if need > taken.shape[1]:
            taken = np.pad(taken, ((0, 0), (0, need - taken.shape[1])))
        # One column wins each (row, colour); a column that wins in all its rows is coloured.
        keys = entries.astype(np.int64) * (64 * taken.shape[1]) + proposal[owner]
        order = np.argsort(keys, kind="stable")
        first = np.ones(len(order), dtype=bool)
        first[1:] = keys[order][1:] != keys[order][:-1]
        lost = np.zeros(len(left), dtype=bool)
        lost[owner[order[~first]]] = True
        won = left[~lost]
        colors[won] = proposal[~lost]
        _take_colors(taken, rows_of, starts, won, colors[won])
        left = left[lost]
    return colors


def _entries_of(rows_of: Numbers, starts: Numbers, columns: Numbers) -> tuple[Numbers, Numbers]:
    """The rows of these columns one after the other, and which of the columns each belongs to."""
    lengths = (starts[columns + 1] - starts[columns]).astype(np.int64)
    owner = np.repeat(np.arange(len(columns)), lengths)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows_of[starts[columns][owner] + within], owner


def _take_colors(taken: np.ndarray, rows_of: Numbers, starts: Numbers, columns: Numbers, colors: Numbers) -> None:
    rows, owner = _entries_of(rows_of, starts, columns)
    bits = np.uint64(1) << (colors[owner] % 64).astype(np.uint64)
    np.bitwise_or.at(taken, (rows, colors[owner] // 64), bits)


def _forbidden(taken: np.ndarray, rows_of: Numbers, starts: Numbers, columns: Numbers) -> tuple[np.ndarray, Numbers, Numbers]:
    rows, owner = _entries_of(rows_of, starts, columns)
    lengths = starts[columns + 1] - starts[columns]
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    return np.bitwise_or.reduceat(taken[rows], offsets, axis=0), rows, owner


def _least_free(forbidden: np.ndarray) -> Numbers:
    """The lowest bit that is not set in each row of words."""
    count, words = forbidden.shape
    free = np.full(count, words * 64, np.int64)
    for word in range(words - 1, -1, -1):
        free = ~forbidden[:, word]
        lowest = free & (np.uint64(0) - free)
        there = lowest != 0
        free[there] = word * 64 + np.log2(lowest[there].astype(np.float64)).astype(np.int64)
    return free
