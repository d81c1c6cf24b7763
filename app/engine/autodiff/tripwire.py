"""One product of the whole matrix with a random vector, beside that of its entries: a tripwire for bugs in rules, no proof."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from app.engine.autodiff.freivalds import close, weights
from app.engine.autodiff.passes import Pair, Passes
from app.engine.sparsity.layout import Layout

# What a bug in a rule leaves out is an entry of a column; what rounding leaves is far below this share of the column's sum, or below
# √eps of the largest entry where terms cancel. In half precision rounding alone comes to that (group_norm in bfloat16), so there is none.
_TRIPWIRE: Final = 1e-2
_HALF_PRECISION: Final = 1e-4  # eps of bfloat16 is 8e-3, of float16 1e-3, of float32 1e-7
# Of a quotient of a typical result by a typical input: a second derivative of layer_norm in float32 has seven where it is zero (measured).
_ROUNDINGS: Final = 64.0
# Columns in which the two differ that are followed to a row; a bug in a rule shows in each of them, dust in none.
_FOLLOWED: Final = 3


@dataclass(frozen=True, eq=False)
class _Entries:
    """The entries of a matrix as reverse mode multiplies them, of the derivative of `output` by `leaf`.

    Attributes:
        eps: of the coarser of their dtypes.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    output: Tensor
    leaf: Tensor
    eps: float

    @cached_property
    def largest(self) -> float:
        """Of their magnitudes."""
        return float(self.values.abs().max()) if len(self.values) else 0.0

    @cached_property
    def dust(self) -> float:
        """What rounding may leave of terms that cancel, in an entry or a sum of a few."""
        # Where the whole is zero but for rounding (a function that does not change along an input), its dust has the size of what cancelled.
        scale = float(self.output.detach().abs().max()) / max(
            float(self.leaf.detach().abs().max()), torch.finfo(torch.float32).tiny
        )
        return math.sqrt(self.eps) * self.largest + (_ROUNDINGS * self.eps * scale if math.isfinite(scale) else 0.0)

    def product(self, cotangent: Tensor, like: Tensor) -> Tensor:
        """As flat as `like`, in the widest dtype of its kind."""
        wide = torch.complex128 if like.dtype.is_complex else torch.float64
        terms = self.values * cotangent.to(self.values.dtype).index_select(0, self.rows)
        return torch.zeros_like(like, dtype=wide).index_add_(0, self.columns, terms.to(wide))


def agrees(layout: Layout, passes: Passes, pair: Pair, *, forward: bool = False) -> bool:
    """Whether the whole and its entries have the same product, but for what rounding leaves.

    `forward`: some are forward mode's, whose rules may be wrong by a single entry of many: finite ones have to agree as those of `freivalds` do.
    """
    output = passes.output
    eps = max(torch.finfo(output.dtype).eps, torch.finfo(passes.leaf.dtype).eps)
    if layout.rows is None or layout.columns is None or not output.numel() or eps > _HALF_PRECISION:
        return True
    entries = _entries(layout.rows, layout.columns, pair, passes, eps)
    vector = weights(output.numel(), output.dtype, str(output.device))
    error, expected = _error(passes, entries, vector)
    if forward and not expected.dtype.is_complex and math.isfinite(float(error.sum())):
        return close(entries.product(vector, expected).to(expected.dtype), expected)
    if bool((error <= _TRIPWIRE * expected.abs()).all()):
        return True  # as nearly always, whatever dust there may be
    if not math.isfinite(entries.largest):
        return True  # 0·∞ in the product says nothing of the entries
    excess = _excess(entries, error, expected)
    if not bool((excess > 0).any()):
        return True
    suspects = torch.argsort(excess, descending=True)[:_FOLLOWED]
    return not any(_differs_in_a_row(passes, entries, vector, int(c)) for c in suspects if float(excess[c]) > 0)


def _entries(rows: Tensor, columns: Tensor, pair: Pair, passes: Passes, eps: float) -> _Entries:
    first, second = pair
    values = first if second is None else first.conj() + second
    if second is None and passes.leaf.dtype.is_complex:
        values = values.conj()
    elif values.dtype.is_complex and not passes.leaf.dtype.is_complex:
        values = values.real
    return _Entries(rows.to(values.device), columns.to(values.device), values, passes.output, passes.leaf, eps)


def _excess(entries: _Entries, error: Tensor, expected: Tensor) -> Tensor:
    """By how much the two products differ more than rounding may make them, for each element of the input; no more than 0: not at all."""
    excess: Tensor = error - _TRIPWIRE * expected.abs() - entries.dust
    return excess.nan_to_num_(0.0, 0.0, 0.0)  # ∞ and NaN in the product say nothing of the entries


def _error(passes: Passes, entries: _Entries, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """The difference of the two products, and that of the whole, for each element of the input."""
    expected = passes.row(cotangent.reshape(passes.output.shape)).detach().reshape(-1)
    return (entries.product(cotangent, expected) - expected).abs(), expected


def _differs_in_a_row(passes: Passes, entries: _Entries, cotangent: Tensor, column: int) -> bool:
    """Whether the difference in `column` is there in a single row, found by halving.

    An entry that is left out is; where large terms cancel in the product (a saturated softmax), or leave dust in the place of a zero, each row
    for itself is right.
    """
    start, stop = 0, len(cotangent)
    while stop - start > 1:
        middle = (start + stop) // 2
        halves = ((start, middle), (middle, stop))
        # By the error alone: beside a large sum of the half's own an entry would not show, though it did in the whole.
        errors = [_error(passes, entries, _part(cotangent, *half))[0][column].nan_to_num(math.inf) for half in halves]
        start, stop = halves[int(errors[1] > errors[0])]
    # The row as it was computed itself: dust does not grow with the cotangent.
    alone = _error(passes, entries, _part(torch.ones_like(cotangent), start, stop))
    return float(_excess(entries, *alone)[column]) > 0


def _part(cotangent: Tensor, start: int, stop: int) -> Tensor:
    part = torch.zeros_like(cotangent)
    part[start:stop] = cotangent[start:stop]
    return part
