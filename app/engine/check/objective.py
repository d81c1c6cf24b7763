"""What check differentiates: rows of real numbers made of a Function's outputs, and their derivative by autodiff in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeAlias

import torch
from torch import Tensor, fx

from app.engine.stepwise.one_sided import random_like
from app.engine.stepwise.point import Point, to_double
from app.engine.tensors import is_differentiable

_ROWS: Final = 256  # a Jacobian of more rows, or of more elements, is checked by random combinations of its rows
_ELEMENTS: Final = 1_000_000  # 8 MB in float64
_RANDOM_ROWS: Final = 4  # one shows a wrong row unless chance or rounding hides it: 2 to 16 give the same verdicts (measured)


@dataclass(frozen=True, slots=True)
class Objective:
    """Rows over `point`.

    Attributes:
        wrt: inputs to differentiate by.
        rows: for each row a cotangent for each output that has one, by name.
        lead: shape that the rows stand for: () for one, [k] for k cotangents, an output's shape for its Jacobian.
        conjugate: rows are those of a Jacobian ∂f/∂z, the conjugate of what reverse mode gives.
        combined: the rows are random combinations of a larger Jacobian's.
        held: steps that keep these results where the values are taken at other leaves.
    """

    point: Point
    wrt: tuple[str, ...]
    rows: tuple[Mapping[str, Tensor], ...]
    lead: tuple[int, ...]
    conjugate: bool = False
    combined: bool = False
    held: Mapping[fx.Node, Any] = field(default_factory=dict)
    exact: ClassVar[bool] = True  # rows are sums of outputs, so they can be had in any arithmetic

    def values(self, leaves: Mapping[str, Tensor]) -> Tensor:
        """Re⟨cotangent, outputs⟩ at other leaves, shape [rows]. Raises what PyTorch raises."""
        with torch.no_grad():
            outputs = self.outputs(leaves)
            return torch.stack(
                [sum((_paired(c, outputs[name]) for name, c in row.items()), torch.zeros(())) for row in self.rows]
            )

    def size(self) -> Tensor:
        """Σ |cotangent · outputs|, shape [rows]: what the rounding of a row is to be measured by, for the row itself may cancel."""
        with torch.no_grad():
            outputs = self.outputs({})
            return torch.stack(
                [sum(((c * outputs[n]).abs().sum() for n, c in row.items()), torch.zeros(())) for row in self.rows]
            )

    def derivative(self, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Input → derivative of every row, shape [rows, *input], zero where no path leads there; at other leaves where some are sent."""
        moved = at or {}
        leaves = {name: moved.get(name, self.point.leaves[name]).detach().requires_grad_() for name in self.wrt}
        with torch.enable_grad():
            # Not held: no derivative passes there, and what is held would not be rounded with the rest.
            outputs = dict(zip(self.point.function.outputs, self.point.run({**moved, **leaves}), strict=True))
        columns: dict[str, list[Tensor]] = {name: [] for name in self.wrt}
        for row in self.rows:
            pairs = [(outputs[name], c) for name, c in row.items() if outputs[name].requires_grad]
            gradients: Sequence[Tensor | None] = [None] * len(leaves)
            if pairs:
                gradients = torch.autograd.grad(
                    [o for o, _ in pairs], list(leaves.values()), [c for _, c in pairs], retain_graph=True, allow_unused=True
                )
            for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
                columns[name].append(torch.zeros_like(leaf) if gradient is None else gradient.detach())
        return {name: self._turned(torch.stack(column)) for name, column in columns.items()}

    def contracted(self, expected: Tensor, name: str) -> Tensor | None:
        """What the client believes of a whole Jacobian, in these random combinations of its rows; None where its shape is another."""
        (output,) = self.rows[0]
        leaf, row = self.point.leaves[name], self.rows[0][output]
        if tuple(expected.shape) != (*row.shape, *leaf.shape):
            return None
        matrix = expected.reshape(row.numel(), leaf.numel())
        kind = torch.promote_types(matrix.dtype, leaf.dtype)
        cotangents = torch.stack([own[output].reshape(-1) for own in self.rows]).to(torch.promote_types(kind, row.dtype))
        product = (cotangents.conj() @ matrix.to(cotangents.dtype)).conj().resolve_conj()
        if not leaf.is_complex() and product.is_complex():
            product = product.real
        return product.reshape(len(self.rows), *leaf.shape)

    def _turned(self, stacked: Tensor) -> Tensor:
        return stacked.conj().resolve_conj() if self.conjugate and stacked.is_complex() else stacked

    def outputs(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Output name → tensor, at other leaves."""
        return dict(zip(self.point.function.outputs, self.point.run(leaves, self.held), strict=True))


def _paired(cotangent: Tensor, output: Tensor) -> Tensor:
    product = cotangent.conj() * output if output.is_complex() else cotangent * output
    return (product.real if product.is_complex() else product).sum()


def weighted(point: Point, wrt: Sequence[str], cotangents: Mapping[str, Tensor] | None, of: str | None) -> Objective:
    """The rows of a gradient or VJP; cotangents left out are ones, those with one more leading axis are several."""
    outputs = _differentiable_outputs(point)
    if of is not None and not cotangents:
        outputs = {name: value for name, value in outputs.items() if name == of}
    row = {name: to_double(c) if point.wide else c for name, c in (cotangents or {}).items() if name in outputs} or {
        name: torch.ones_like(value) for name, value in outputs.items()
    }
    row = {name: c.to(outputs[name].dtype) if outputs[name].is_complex() else c for name, c in row.items()}
    num_vectors = next((c.shape[0] for name, c in row.items() if c.ndim == outputs[name].ndim + 1), None)
    if num_vectors is None:
        return Objective(point, tuple(wrt), (row,), ())
    rows = tuple({name: c[k] for name, c in row.items()} for k in range(num_vectors))
    return Objective(point, tuple(wrt), rows, (num_vectors,))


def jacobian(point: Point, wrt: Sequence[str], of: str | None) -> Objective:
    """The rows of the Jacobian of one output (`of`, or the first that carries a derivative)."""
    outputs = _differentiable_outputs(point)
    name = of if of in outputs else next(iter(outputs), None)
    if name is None:
        return weighted(point, wrt, None, None)
    value = outputs[name]
    inputs = sum(point.leaves[n].numel() for n in wrt)
    if value.numel() > _ROWS or value.numel() * inputs > _ELEMENTS:
        rows = tuple({name: random_like(value, 70 + k)} for k in range(_RANDOM_ROWS))
        return Objective(point, tuple(wrt), rows, (_RANDOM_ROWS,), combined=True)
    basis = torch.eye(value.numel(), dtype=value.dtype, device=value.device).reshape(-1, *value.shape)
    return Objective(point, tuple(wrt), tuple({name: row} for row in basis), tuple(value.shape), conjugate=True)


def _differentiable_outputs(point: Point) -> dict[str, Tensor]:
    with torch.no_grad():
        outputs = dict(zip(point.function.outputs, point.run({}), strict=True))
    return {name: value for name, value in outputs.items() if is_differentiable(value.dtype)}


@dataclass(frozen=True, slots=True)
class Curvature:
    """The gradient of one real number, element by element: what a Hessian is the derivative of. It has an Objective's interface.

    Attributes:
        gradient_of: whose gradient.
        name: of the input by which it is differentiated twice: a diagonal block of the whole Hessian.
    """

    gradient_of: Objective
    name: str
    conjugate: ClassVar[bool] = False
    combined: ClassVar[bool] = False
    exact: ClassVar[bool] = False

    @property
    def point(self) -> Point:
        return self.gradient_of.point

    @property
    def held(self) -> Mapping[fx.Node, Any]:
        return self.gradient_of.held

    @property
    def rows(self) -> Sequence[Mapping[str, Tensor]]:
        """As many as the gradient has elements; they are no combinations of outputs."""
        return ({},) * self.point.leaves[self.name].numel()

    @property
    def lead(self) -> tuple[int, ...]:
        return tuple(self.point.leaves[self.name].shape)

    def outputs(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.gradient_of.outputs(leaves)

    def values(self, leaves: Mapping[str, Tensor]) -> Tensor:
        """The gradient at other leaves, shape [rows]. Raises what PyTorch raises."""
        return self._gradient(leaves)[1].detach().reshape(-1)

    def size(self) -> Tensor:
        """What the rounding of the gradient is to be measured by, shape [rows]: its largest element, for each may be a sum that cancels."""
        gradient = self.values({}).abs()
        return gradient.max().expand_as(gradient) if gradient.numel() else gradient

    def derivative(self, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The Hessian's diagonal block, shape [rows, *input]; at other leaves where some are sent."""
        leaf, gradient = self._gradient(at or {})
        rows: list[Tensor] = []
        for part in gradient.reshape(-1) if gradient.requires_grad else ():
            row = torch.autograd.grad(part, leaf, retain_graph=True, allow_unused=True)[0]
            rows.append(torch.zeros_like(leaf) if row is None else row.detach())
        whole = torch.stack(rows) if rows else torch.zeros((leaf.numel(), *leaf.shape), dtype=leaf.dtype, device=leaf.device)
        return {self.name: whole.detach()}

    def _gradient(self, leaves: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The leaf, and the gradient by it, differentiable again."""
        leaf = leaves.get(self.name, self.point.leaves[self.name]).detach().requires_grad_()
        with torch.enable_grad():
            outputs = self.gradient_of.outputs({**leaves, self.name: leaf})
            total = sum((_paired(c, outputs[n]) for n, c in self.gradient_of.rows[0].items()), torch.zeros(()))
            if not total.requires_grad:
                return leaf, torch.zeros_like(leaf)
            gradient = torch.autograd.grad(total, leaf, create_graph=True, allow_unused=True)[0]
        return leaf, torch.zeros_like(leaf) if gradient is None else gradient


Differentiated: TypeAlias = Objective | Curvature
