"""A dense Jacobian, all rows of an output at once, in tensor operations alone: no number is read, so that a joint graph may hold it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from app.engine.autodiff.evaluation import backward, backward_rows_unconfirmed
from app.engine.autodiff.freivalds import UncertifiedError, weights
from app.engine.planning.demand import Result
from app.engine.tensors import is_differentiable


class UnitRows(NamedTuple):
    """Where the backwards of one output begin.

    Attributes:
        units: its unit vectors, `[elements, output…]`.
        combination: of all of them, `[output…]`, as `freivalds.combined` gives it.
        weights: of that combination, `[elements]`, by the dtype of what they are multiplied with.
    """

    units: Tensor
    combination: Tensor
    weights: Mapping[torch.dtype, Tensor]

    @property
    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        return [self.units, self.combination, *self.weights.values()]


def unit_rows(output: Result, dtypes: Collection[torch.dtype]) -> UnitRows | None:
    """Of an output of at least one element, None where it carries no derivative; `dtypes`: of the inputs that it is differentiated by."""
    if not is_differentiable(output.dtype):
        return None
    count = output.elements
    units = torch.eye(count, dtype=output.dtype).view(count, *output.shape)
    # A combination of unit vectors is its weights.
    device = str(units.device)
    combination = weights(count, output.dtype, device).reshape(output.shape).clone()
    return UnitRows(units, combination, {dtype: weights(count, dtype, device) for dtype in dtypes})


def jacobian(
    outputs: Sequence[Tensor],
    wrt: tuple[Tensor, ...],
    starts: Sequence[UnitRows | None],
    structure: list[bool],
    confirming: list[Tensor],
) -> Iterator[Tensor]:
    """Of each output that carries a derivative, by each of `wrt`: `[output…, input…]`.

    Arguments:
        structure: is told of each block whether no path leads there.
        confirming: is given pairs of tensors that must be close to each other (`freivalds.close`), or nothing is right.

    Raises UncertifiedError.
    """
    for output, start in zip(outputs, starts, strict=True):
        if start is None or not output.requires_grad:
            continue
        rows: Sequence[Tensor | None]
        if output.numel() == 1:
            rows = backward((output,), (start.units[0],), True, False, wrt, True, accumulate_grad=False)
        else:
            rows = backward_rows_unconfirmed((output,), wrt, (start.units,))
            alone = backward((output,), (start.combination,), True, False, wrt, True, accumulate_grad=False)
            confirming += _pairs(rows, alone, start.weights)
        structure += [block is None for block in rows]
        for variable, block in zip(wrt, rows, strict=True):
            yield (
                variable.new_zeros((*output.shape, *variable.shape))
                if block is None
                else block.reshape((*output.shape, *variable.shape))
            )


def hessian(
    first: Sequence[Tensor | None],
    wrt: tuple[Tensor, ...],
    starts: Sequence[UnitRows | None],
    structure: list[bool],
    confirming: list[Tensor],
) -> Iterator[Tensor]:
    """The rows of each first derivative in `first`, by each of `wrt`: `[input…, input…]`; zeros where it has none. Arguments as above."""
    for derivative, variable, start in zip(first, wrt, starts, strict=True):
        if derivative is None or not derivative.requires_grad:
            structure.append(False)
            yield from (variable.new_zeros((*variable.shape, *other.shape)) for other in wrt)
        else:
            structure.append(True)
            yield from jacobian((derivative,), wrt, (start,), structure, confirming)


def hessian_product(
    first: Sequence[Tensor | None], wrt: tuple[Tensor, ...], tangents: Sequence[Tensor], structure: list[bool]
) -> Iterator[Tensor]:
    """The Hessian by one tangent for each of `wrt`, from the first derivative; zeros where no path leads. Arguments as above."""
    curved = [g is not None and g.requires_grad for g in first]
    pairs = [(g, t) for g, t, has_rows in zip(first, tangents, curved, strict=True) if has_rows]
    products: Sequence[Tensor | None] = [None] * len(wrt)
    if pairs:
        products = backward(
            tuple([g for g, _ in pairs]), tuple([t for _, t in pairs]), True, False, wrt, True, accumulate_grad=False
        )
    structure += [*curved, *(product is None for product in products)]
    yield from (torch.zeros_like(v) if product is None else product for v, product in zip(wrt, products, strict=True))


def _pairs(
    rows: Sequence[Tensor | None], alone: Sequence[Tensor | None], weights: Mapping[torch.dtype, Tensor]
) -> Iterator[Tensor]:
    """The combination of the rows, and what one pass gives for the combined unit vectors."""
    for block, single in zip(rows, alone, strict=True):
        if (block is None) != (single is None):
            raise UncertifiedError
        if block is not None and single is not None:
            yield torch.tensordot(weights[block.dtype], block, 1)
            yield single
