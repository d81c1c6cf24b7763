"""How many tensors or bins a call would make, refused before it makes them where they are too many."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from app.catalogue.kernels.unsafe_values import UnsafeValuesError
from app.query import RANK_LIMIT

if TYPE_CHECKING:
    from torch import Tensor

    from app.catalogue.kernels.checks import Arguments

# Bins of a histogram: an answer of 256 MiB of float64, the default of PULLBACK_RESULT_LIMIT_BYTES, has as many.
CELLS_LIMIT: Final = 1 << 25
PIECES_LIMIT: Final = 10_000  # as many as a program's list may have members; a hundred thousand take seconds to make


def _at_most(limit: int, count: int, argument: str, sentence: str, unit: str = "", value: int | None = None) -> None:
    """Raises UnsafeValuesError where there are more; `value`: of the argument, where that is not their number."""
    if count > limit:
        amount = f"{count if value is None else value:,}"
        raise UnsafeValuesError(
            argument, f"{sentence}; the limit is {limit:,}.", f"at most {limit:,}{unit}", amount, code="too_costly"
        )


def _cells(count: int, argument: str) -> None:
    """Before they are made: a plan on fakes makes those of kernels that have no other way to say their shapes."""
    _at_most(CELLS_LIMIT, count, argument, f"It would make {count:,} bins", " bins in all")


def histogram(arguments: Arguments) -> None:
    _cells(arguments["bins"], "bins")


def histogram_of_many(arguments: Arguments) -> None:
    _cells(math.prod(arguments["bins"]), "bins")


def bincount(arguments: Arguments) -> None:
    values = arguments["self"]
    largest = int(values.max()) + 1 if values.numel() else 0
    _cells(max(largest, arguments["minlength"]), "minlength" if arguments["minlength"] > largest else "input")


def _pieces(count: int, argument: str) -> None:
    _at_most(PIECES_LIMIT, count, argument, f"It would make {count:,} tensors", " pieces")


def _extent(tensor: Tensor, axis: int) -> int:
    """0 where there is no such axis: PyTorch has its own words for that."""
    return tensor.shape[axis] if -tensor.dim() <= axis < tensor.dim() else 0


def unbind(arguments: Arguments) -> None:
    _pieces(_extent(arguments["self"], arguments["dim"]), "dim")


def split(arguments: Arguments) -> None:
    size = arguments["split_size"]
    if size > 0:
        _pieces(-(-_extent(arguments["self"], arguments["dim"]) // size), "split_size_or_sections")


def split_with_sizes(arguments: Arguments) -> None:
    _pieces(len(arguments["split_sizes"]), "split_sizes")


def chunk(arguments: Arguments) -> None:
    _pieces(min(arguments["chunks"], _extent(arguments["self"], arguments["dim"])), "chunks")


def sections(arguments: Arguments) -> None:
    _pieces(arguments["sections"], "sections")


def indices(arguments: Arguments) -> None:
    _pieces(len(arguments["indices"]) + 1, "indices")


def read_indices(arguments: Arguments) -> None:
    """PyTorch reads them out of their memory, of which no dispatch mode hears; of this read it does."""
    splits = arguments["tensor_indices_or_sections"]
    if splits.numel():
        splits.flatten()[0].item()


def terms(arguments: Arguments) -> None:
    """PyTorch makes a tensor of as many for each element. Few terms of many elements are left to the plan, as any large result."""
    each = arguments["p"]
    if each > PIECES_LIMIT:
        count = each * arguments["self"].numel()
        _at_most(CELLS_LIMIT, count, "p", f"It would add {count:,} terms", " in all elements", each)


def combinations(arguments: Arguments) -> None:
    """PyTorch makes a grid with one axis for each member of a combination."""
    _at_most(RANK_LIMIT, arguments["r"], "r", f"Combinations of {arguments['r']:,} would need a grid of as many axes")
