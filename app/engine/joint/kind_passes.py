"""The passes by which a recipe computes each kind of results: what is differentiated, and where it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from app.engine.autodiff.evaluation import backward
from app.engine.autodiff.unit_rows import UnitRows, hessian, hessian_product, unit_rows
from app.engine.planning.plan import has_forward_mode
from app.engine.planning.prepare import Prepared
from app.query import Query


class Product(NamedTuple):
    """One backward: from these outputs, all that carry a derivative where there are none, with these tensors, ones where none."""

    outputs: tuple[int, ...]
    cotangents: tuple[int, ...]


class Rows(NamedTuple):
    """The backwards of a Jacobian: of each output, all at once."""

    starts: tuple[UnitRows | None, ...]


class Second(NamedTuple):
    """The backwards behind the gradient of this output: all rows of a Hessian, or, where there are none, one with these tensors.

    Attributes:
        tangents: of each input that is differentiated by; None: zeros, or ones where none is sent.
    """

    output: int
    starts: tuple[UnitRows | None, ...] = ()
    tangents: tuple[int | None, ...] = ()


class Forward(NamedTuple):
    """One pass of forward mode along these tangents, as of `Second`."""

    tangents: tuple[int | None, ...]


def has_plain_forward(query: Query, prepared: Prepared) -> bool:
    """Whether a `jvp`, where wanted, is one pass of forward mode, of which nothing is said beside another kind that it may contradict."""
    if "jvp" not in query.want:
        return True
    return has_forward_mode(prepared.function.operations()) and {"vjp", "gradient"}.isdisjoint(query.want)


def along_tangents(query: Query, prepared: Prepared, of: Sequence[int], first: int) -> dict[str, Second | Forward]:
    """Of second derivatives and derivatives along tangents those that are wanted; `first`: index of the buffer of the first cotangent."""
    products: dict[str, Second | Forward] = {}
    positions = {name: first + len(query.cotangent) + index for index, name in enumerate(query.tangent)}
    sent = tuple(positions.get(name) for name in prepared.wrt)
    if "hessian" in query.want:
        differentiated = {prepared.dtypes[name] for name in prepared.wrt}
        products["hessian"] = Second(of[0], starts=tuple(unit_rows(leaf, differentiated) for leaf in prepared.plan.wrt))
    if "hvp" in query.want:
        products["hvp"] = Second(of[0], tangents=sent)
    if "jvp" in query.want:
        products["jvp"] = Forward(sent)
    return products


def second_values(
    product: Second,
    output: Tensor,
    tensors: Sequence[Tensor],
    wrt: tuple[Tensor, ...],
    structure: list[bool],
    confirming: list[Tensor],
) -> Iterator[Tensor]:
    """Reverse over reverse, as the engine does it. Arguments as of `unit_rows.hessian`."""
    gradients = backward((output,), (torch.ones_like(output),), True, True, wrt, True, accumulate_grad=False)
    if product.starts:
        yield from hessian(gradients, wrt, product.starts, structure, confirming)
        return
    yield from hessian_product(gradients, wrt, _tangents(product.tangents, tensors, wrt), structure)


def forward_values(
    product: Forward,
    function: Callable[..., Sequence[Tensor]],
    leaves: Sequence[Tensor],
    tensors: Sequence[Tensor],
    wrt: Sequence[Tensor],
    carry: Sequence[bool],
) -> Sequence[Tensor]:
    """Forward mode, as the engine runs it; `carry`: which outputs of `function` at `leaves` carry a derivative."""
    positions = [next(index for index, leaf in enumerate(leaves) if leaf is variable) for variable in wrt]
    at = [leaf.detach() for leaf in leaves]

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        changed = list(at)
        for position, value in zip(positions, values, strict=True):
            changed[position] = value
        return tuple([output for output, carries in zip(function(*changed), carry, strict=True) if carries])

    derivatives: tuple[Tensor, ...] = torch.func.jvp(
        outputs, tuple([at[position] for position in positions]), tuple(_tangents(product.tangents, tensors, wrt))
    )[1]
    return derivatives


def _tangents(positions: Sequence[int | None], tensors: Sequence[Tensor], wrt: Sequence[Tensor]) -> list[Tensor]:
    """Those that were sent; for others zeros, or ones where none was."""
    blank = torch.zeros_like if any(position is not None for position in positions) else torch.ones_like
    return [(blank(v) if position is None else tensors[position]).detach() for v, position in zip(wrt, positions, strict=True)]
