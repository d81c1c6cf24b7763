"""Colours of columns such that no row has two columns of one colour: columns of a colour are then differentiated in one pass.

First by arithmetic (Σ aᵢ·coordinateᵢ mod p, which fits bands, stencils and blocks), counted on all entries, else greedily.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from app.engine.sparsity.csr import Csr, Numbers, lengths, row_numbers, rows_of, transposed

# Rows on which a candidate is tried before it is tried on all, where there are more entries than can be counted as quickly (measured).
_TRIED_ROWS: Final = 256
_COUNTED_AT_ONCE: Final = 8192
# Candidates of the arithmetic kind for one p: enough for all pairs of coefficients up to p = 16.
_CANDIDATES: Final = 256
# Rounds over all entries that a greedy colouring may take: 11 colours of a random pattern take some 15.
_GREEDY_ROUNDS: Final = 48
_GREEDY_ENTRIES: Final = 30_000_000  # some seconds
# Clashing columns that are coloured anew one by one, below what the greedy colouring takes for itself (measured).
_MENDED: Final = 32
# Of p colours in turns those of a ring clash where it closes: fewer than p columns on each side.
_AT_ITS_ENDS: Final = 2
# Beyond the lower bound: a five-point stencil needs 5 of 5, a ring 4 of 3, a band of offsets 0, 5 and -7 needs 8 of 3. In more
# dimensions a number of colours has hundreds of candidates.
_MORE_COLORS: Final = 4
# A share of the columns that is coloured in a round of the greedy colouring; below it, they stand in each other's way.
_FEW: Final = 0.25


def color_columns(pattern: Csr, shape: Sequence[int], by_column: Csr | None = None) -> Numbers:
    """The colour of each column of `pattern`, from 0 up, none skipped. Columns without entries have colour 0.

    Arguments:
        shape: of the input that the columns are the elements of, row-major.
        by_column: the transposed pattern, where it is there.
    """
    columns = pattern.shape[1]
    entries = lengths(pattern)
    least = int(entries.max(initial=0))
    if least <= 1:
        return np.zeros(columns, np.int64)
    if least == columns:
        return np.arange(columns)
    coordinates = np.unravel_index(np.arange(columns), tuple(shape)) if len(shape) > 1 else (np.arange(columns),)
    sample = _sample(pattern, entries) if pattern.nnz > _COUNTED_AT_ONCE else None
    most = 2 * least + _MORE_COLORS if len(coordinates) == 1 else least + _MORE_COLORS
    for p in range(least, min(most, columns)):
        for coefficients in _coefficients(len(coordinates), p):
            colors = _arithmetic(coordinates, coefficients, p)
            if sample is not None and _clashes(sample, colors, p):
                continue
            settled = _settled(pattern, colors, p, by_column)
            if settled is not None:
                return settled
    return _greedy(_transposed(pattern, by_column), np.full(columns, -1))


def _transposed(pattern: Csr, by_column: Csr | None) -> Csr:
    return transposed(pattern) if by_column is None else by_column


def _settled(pattern: Csr, colors: Numbers, p: int, by_column: Csr | None) -> Numbers | None:
    """`colors`, with the few columns that clash coloured anew; None where they are not few."""
    clashing = _clashing_columns(pattern, colors, p)
    if not len(clashing):
        return colors
    closed = _closed(colors, p) if len(clashing) <= _AT_ITS_ENDS * p else None
    if closed is not None and not len(_clashing_columns(pattern, closed, p + 1)):
        return closed
    if len(clashing) > 0.02 * pattern.shape[1]:
        return None
    started = colors.copy()
    started[clashing] = -1
    by_column = _transposed(pattern, by_column)
    return _mended(pattern, by_column, started, clashing) if len(clashing) <= _MENDED else _greedy(by_column, started)


def _closed(colors: Numbers, p: int) -> Numbers | None:
    """Colours 0 to p - 1 in turns, the last turns one longer, so that a ring closes; None where `colors` are no turns, or too few."""
    count = len(colors)
    longer = count % p
    short = count - longer * (p + 1)
    if short < 0 or not (colors[:p] == np.arange(p)).all():
        return None
    closed = colors.copy()
    closed[short:] = np.arange(count - short) % (p + 1)
    return closed


def _mended(pattern: Csr, by_column: Csr, colors: Numbers, clashing: Numbers) -> Numbers:
    """`colors` with other colours for `clashing` and their neighbours, one after the other: the least that its rows allow."""
    near = np.unique(np.concatenate([_neighbours(pattern, by_column, column) for column in clashing]))
    # A ring clashes where it closes: from the widest gap on, its columns come in their order round.
    gaps = np.diff(near, prepend=near[-1] - pattern.shape[1])
    colors[near] = -1
    first = int(np.argmax(gaps))
    for column in np.concatenate([near[first:], near[:first]]):
        taken = set(colors[_neighbours(pattern, by_column, column)].tolist())
        colors[column] = next(color for color in itertools.count() if color not in taken)
    return colors


def _neighbours(pattern: Csr, by_column: Csr, column: int) -> Numbers:
    """The columns that share a row with it, and itself; some more than once."""
    rows, starts, columns = (
        by_column.indices[by_column.indptr[column] : by_column.indptr[column + 1]],
        pattern.indptr,
        pattern.indices,
    )
    return np.concatenate([columns[starts[row] : starts[row + 1]] for row in rows])


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


def _sample(pattern: Csr, entries: Numbers) -> Csr:
    """Some of the longest rows, and others evenly spread; none at a border, which may clash and be mended."""
    longest = np.flatnonzero(entries == entries.max(initial=0))
    tried = np.zeros(len(entries), dtype=bool)
    tried[_spread(longest, 16)] = True
    tried[_spread(np.arange(len(entries)), _TRIED_ROWS // 2)] = True
    return rows_of(pattern, np.flatnonzero(tried))


def _spread(numbers: Numbers, count: int) -> Numbers:
    """The middle ones of `count` that are evenly spread over `numbers`."""
    if len(numbers) <= count // 2:
        return numbers
    return numbers[np.arange(count // 4, count - count // 4) * (len(numbers) - 1) // (count - 1)]


def _row_color_keys(pattern: Csr, colors: Numbers, p: int) -> Numbers:
    keys = row_numbers(pattern) * p
    keys += colors[pattern.indices]
    return keys


def _clashes(pattern: Csr, colors: Numbers, p: int) -> bool:
    keys = np.sort(_row_color_keys(pattern, colors, p))
    return bool((keys[1:] == keys[:-1]).any())


def _clashing_columns(pattern: Csr, colors: Numbers, p: int) -> Numbers:
    """Columns that share a row and a colour with another; counted over all entries."""
    keys = _row_color_keys(pattern, colors, p)
    counts = np.bincount(keys, minlength=1)
    if int(counts.max(initial=0)) <= 1:
        return np.empty(0, np.int64)
    return np.unique(pattern.indices[counts[keys] > 1])


def _greedy(by_column: Csr, colors: Numbers) -> Numbers:
    """Colours the columns that have none (-1), each with the least that its rows allow, many at a time.

    In each round every uncoloured column proposes a colour; of those that clash one of each row keeps it, by random priorities: in
    order of position a band would be coloured from one end to the other, a column or two in a round (Jones and Plassmann, "A parallel
    graph coloring heuristic", SIAM J. Sci. Comput. 14(3), 1993).
    """
    rows_of, starts = by_column.indices, by_column.indptr
    words = 1
    taken = np.zeros((by_column.shape[1], words), np.uint64)
    done = np.flatnonzero(colors >= 0)
    if len(done):
        words = int(colors.max()) // 64 + 1
        taken = np.zeros((by_column.shape[1], words), np.uint64)
        _take_colors(taken, rows_of, starts, done, colors[done])
    colors = colors.copy()
    colors[np.diff(starts) == 0] = np.maximum(colors[np.diff(starts) == 0], 0)
    generator = np.random.default_rng(0)
    left = generator.permutation(np.flatnonzero(colors < 0))
    longest = int(np.bincount(rows_of).max(initial=1))
    crowded = False
    work = min(_GREEDY_ROUNDS * (by_column.nnz + by_column.shape[0]), _GREEDY_ENTRIES)
    while len(left):
        work -= int((starts[left + 1] - starts[left]).sum())
        if work < 0:  # so entangled that there is little to share: a colour for each of the rest
            colors[left] = int(colors.max(initial=-1)) + 1 + np.arange(len(left))
            break
        forbidden, entries, owner = _forbidden(taken, rows_of, starts, left)
        # Where a row has many that are left, the least colour would be given to one of them in a round.
        above = (
            generator.integers(0, max(longest, int(colors.max()) + 1), len(left)) if crowded else np.zeros(len(left), np.int64)
        )
        proposal = _least_free(forbidden, above)
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
        crowded |= len(won) < _FEW * len(left)
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


def _least_free(forbidden: np.ndarray, above: Numbers) -> Numbers:
    """The lowest bit that is not set in each row of words, from bit `above` of the row on."""
    count, words = forbidden.shape
    least = np.full(count, words * 64, np.int64)
    for word in range(words - 1, -1, -1):
        below = np.clip(above - 64 * word, 0, 64).astype(np.uint64)
        # A shift by all 64 bits is no shift on the processor, so it is made in two.
        free = ~forbidden[:, word] & (~np.uint64(0) << (below // np.uint64(2)) << (below - below // np.uint64(2)))
        lowest = free & (np.uint64(0) - free)
        there = lowest != 0
        least[there] = word * 64 + np.log2(lowest[there].astype(np.float64)).astype(np.int64)
    return least
