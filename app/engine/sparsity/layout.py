"""The layout of one Jacobian or Hessian: diagonal, block, sparse or dense, whichever its pattern proves and the query asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from app.engine.sparsity.compression import Compression, block_compression, compress, diagonal_compression
from app.engine.sparsity.csr import Csr, Numbers, lengths, row_numbers
from app.engine.sparsity.pattern import Pattern
from app.engine.sparsity.storage import Values

Form = Literal["diagonal", "block", "sparse", "dense"]
_FORMS: Final[dict[str, Form]] = {"diagonal": "diagonal", "block": "block", "sparse": "sparse", "dense": "dense"}
_INDEX_BYTES: Final = 8  # int64 in the answer


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """What is known of one Jacobian before it is computed: its shapes, and its pattern `[output elements, leaf elements]`."""

    output: tuple[int, ...]
    leaf: tuple[int, ...]
    pattern: Pattern
    values: Values
    itemsize: int
    symmetric: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return math.prod(self.output), math.prod(self.leaf)

    def dense_bytes(self) -> int:
        return math.prod(self.shape) * self.itemsize

    def sparse_bytes(self) -> int:
        """Values, and an index for each dimension of output and leaf."""
        entries = math.prod(self.shape) if self.pattern.is_full else int(self.pattern.matrix.nnz)
        return entries * (self.itemsize + _INDEX_BYTES * (len(self.output) + len(self.leaf)))

    def block_bytes(self) -> int:
        return math.prod(self.output) * math.prod(self.leaf[1:]) * self.itemsize

    def is_diagonal(self) -> bool:
        """Nothing is off the diagonal, whatever the values at this point are."""
        matrix = self.pattern.matrix
        if self.output != self.leaf or matrix is None or matrix.nnz > matrix.shape[0]:
            return False
        return bool((row_numbers(matrix) == matrix.indices).all())

    def is_block(self) -> bool:
        """Row i of the output depends on row i of the leaf alone."""
        matrix = self.pattern.matrix
        if matrix is None or not self.output or not self.leaf or self.output[0] != self.leaf[0] or self.output[0] < 2:
            return False
        within, inside = math.prod(self.output[1:]), math.prod(self.leaf[1:])
        if not within or not inside or int(lengths(matrix).max(initial=0)) > inside:
            return False
        return bool((row_numbers(matrix) // within == matrix.indices // inside).all())


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How a matrix is computed and sent.

    Attributes:
        form: what the answer says of it.
        compression: the passes and the place of each entry; None where it is computed densely.
        indices: `[rank, entries]`, row-major, of a sparse result.
        rows, columns: of each entry that the passes give.
        picked: the entries on the diagonal, where the passes give others too; the answer has zeros elsewhere.
        everywhere: the pattern holds whatever the values are.
        reusable: it may be used again at other values.
        partial: entries off the diagonal are left out, or are not proved to be none.
        held: entries of patterns that were held at once while the steps were followed.
    """

    form: Form
    bytes: int
    everywhere: bool
    reusable: bool
    compression: Compression | None = None
    indices: Tensor | None = None
    rows: Tensor | None = None
    columns: Tensor | None = None
    picked: Tensor | None = None
    partial: bool = False
    held: int = 0

    @property
    def held_bytes(self) -> int:
        """What it takes to keep it for the next query."""
        tensors = (self.indices, self.picked, self.columns, self.rows)
        own = sum(t.numel() * t.element_size() for t in tensors if t is not None)
        return own + (0 if self.compression is None else self.compression.bytes)


def choose(matrix: Matrix, wanted: str, limit: Callable[[int], None], *, forward: bool) -> Layout:
    """The layout in the form that is wanted, or of `auto` the smallest that is proved.

    Arguments:
        limit: called with the bytes of the result before anything of its size is made; raises where they are too many.
        forward: forward mode can be had.
    """
    form = _FORMS.get(wanted) or _form(matrix)
    size = {
        "diagonal": math.prod(matrix.leaf) * matrix.itemsize,
        "block": matrix.block_bytes(),
        "sparse": matrix.sparse_bytes(),
        "dense": matrix.dense_bytes(),
    }[form]
    limit(size)
    values = matrix.values
    in_form = partial(Layout, form, size, everywhere=not (values.chosen or values.switched), reusable=not values.chosen)
    pattern = matrix.pattern.matrix
    if form == "dense":
        return in_form()
    if form == "diagonal" and matrix.is_diagonal():
        entries = torch.arange(math.prod(matrix.leaf))
        return in_form(compression=diagonal_compression(len(entries)), rows=entries, columns=entries)
    if pattern is None:
        return in_form(partial=form == "diagonal")
    if form == "block":
        rows, columns = _block_entries(matrix)
        return in_form(compression=block_compression(matrix.output, matrix.leaf), rows=rows, columns=columns)
    compression = compress(pattern, matrix.output, matrix.leaf, forward=forward, symmetric=matrix.symmetric)
    rows, columns = torch.from_numpy(row_numbers(pattern).astype(np.int32)), torch.from_numpy(pattern.indices.astype(np.int32))
    compressed = partial(in_form, compression=compression, rows=rows, columns=columns)
    if form == "diagonal":
        return compressed(partial=True, picked=torch.from_numpy(np.flatnonzero(row_numbers(pattern) == pattern.indices)))
    return compressed(indices=indices_of(pattern, matrix.output, matrix.leaf))


def _form(matrix: Matrix) -> Form:
    """The smallest that is proved."""
    fixed = not matrix.values.chosen  # what holds at this point alone is no proof for a form that does not say so
    if fixed and matrix.is_diagonal():
        return "diagonal"
    sizes: list[tuple[int, Form]] = [(matrix.dense_bytes(), "dense")]
    if fixed and matrix.is_block():
        sizes.insert(0, (matrix.block_bytes(), "block"))
    if not matrix.pattern.is_full:
        sizes.append((matrix.sparse_bytes(), "sparse"))
    return min(sizes, key=lambda pair: pair[0])[1]


def _block_entries(matrix: Matrix) -> tuple[Tensor, Tensor]:
    """Row and column of each entry of `[n, output[1:]…, leaf[1:]…]`."""
    count, within, inside = matrix.output[0], math.prod(matrix.output[1:]), math.prod(matrix.leaf[1:])
    shape = (count, within, inside)
    rows = torch.arange(count * within).reshape(count, within, 1).expand(shape)
    columns = torch.arange(count * inside).reshape(count, 1, inside).expand(shape)
    return rows.reshape(-1), columns.reshape(-1)


def indices_of(pattern: Csr, output: Sequence[int], leaf: Sequence[int]) -> Tensor:
    """`[rank of output + rank of leaf, entries]`, int64, row-major."""
    axes = [*_coordinates(row_numbers(pattern), output), *_coordinates(pattern.indices, leaf)]
    if not axes:
        return torch.zeros((0, int(pattern.nnz)), dtype=torch.int64)
    return torch.from_numpy(np.stack(axes).astype(np.int64, copy=False))


def _coordinates(numbers: Numbers, shape: Sequence[int]) -> Sequence[Numbers]:
    return np.unravel_index(numbers, tuple(shape)) if len(shape) > 1 else (numbers,) * len(shape)


def indices_of_full(output: Sequence[int], leaf: Sequence[int]) -> Tensor:
    """`indices_of` a pattern that leaves nothing out."""
    shape = (*output, *leaf)
    return torch.from_numpy(np.indices(shape).reshape(len(shape), math.prod(shape)))
