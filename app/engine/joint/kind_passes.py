"""The passes by which a recipe computes each kind of results: what is differentiated, and where it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from app.engine.autodiff.evaluation import backward
from app.engine.autodiff.unit_rows import UnitRows, hessian, hessian_product, unit_rows
from app.engine.planning.demand import Result
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


Passes: TypeAlias = Product | Rows | Second | Forward


@dataclass(frozen=True, slots=True)
class Recurring:
    """A query that comes again with other numbers: what each kind differentiates, by where the tensors that were sent stand.

    Attributes:
        cotangents: of each output that one was sent for, its place among outputs → the index of its buffer.
        tangents: of each input that is differentiated by, the index of the buffer of its tangent; None where none is sent.
    """

    prepared: Prepared
    cotangents: Mapping[int, int]
    tangents: tuple[int | None, ...]

    @staticmethod
    def of(query: Query, prepared: Prepared, first: int) -> Recurring:
        """`first`: index of the buffer of the first cotangent; tangents stand behind these."""
        outputs = prepared.function.outputs
        ends = {outputs.index(name): first + list(query.cotangent).index(name) for name in outputs if name in query.cotangent}
        starts = {name: first + len(query.cotangent) + index for index, name in enumerate(query.tangent)}
        return Recurring(prepared, ends, tuple(starts.get(name) for name in prepared.wrt))

    def outputs(self) -> None:
        return None

    def gradient(self) -> Product:
        return Product(self._of, ())

    def vjp(self) -> Product:
        return Product(tuple(self.cotangents), tuple(self.cotangents.values()))

    def jvp(self) -> Forward:
        return Forward(self.tangents)

    def jacobian(self) -> Rows:
        return Rows(self._unit_rows(self.prepared.plan.outputs))

    def hessian(self) -> Second:
        return Second(self._of[0], starts=self._unit_rows(self.prepared.plan.wrt))

    def hvp(self) -> Second:
        return Second(self._of[0], tangents=self.tangents)

    @property
    def _of(self) -> tuple[int, ...]:
        of = self.prepared.of
        return () if of is None else (self.prepared.function.outputs.index(of),)

    def _unit_rows(self, results: Sequence[Result]) -> tuple[UnitRows | None, ...]:
        dtypes = {self.prepared.dtypes[name] for name in self.prepared.wrt}
        return tuple(unit_rows(result, dtypes) for result in results)


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
