"""What check differentiates: rows of real numbers made of a Function's outputs, and their derivative by autodiff in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.engine.stepwise.one_sided import random_like
from app.engine.stepwise.point import Point, widened
from app.engine.tensors import is_differentiable

_ROWS = 256  # a Jacobian of more rows, or of more elements, is checked by random combinations of its rows
_ELEMENTS = 1_000_000
_RANDOM_ROWS = 4


@dataclass(frozen=True, slots=True)
class Objective:
    """Rows over `point`.

    Attributes:
        wrt: inputs to differentiate by.
        rows: for each row a cotangent for each output that has one, by name.
        lead: shape that the rows stand for: () for one, [k] for k cotangents, an output's shape for its Jacobian.
        conjugate: rows are those of a Jacobian ∂f/∂z, the conjugate of what reverse mode gives.
        combined: the rows are random combinations of a larger Jacobian's.
    """

    point: Point
    wrt: tuple[str, ...]
    rows: tuple[Mapping[str, Tensor], ...]
    lead: tuple[int, ...]
    conjugate: bool = False
    combined: bool = False

    def values(self, leaves: Mapping[str, Tensor]) -> Tensor:
        """Re⟨cotangent, outputs⟩ at other leaves, shape [rows]. Raises what PyTorch raises."""
        with torch.no_grad():
            outputs = self._outputs(leaves)
            return torch.stack(
                [sum((_paired(c, outputs[name]) for name, c in row.items()), torch.zeros(())) for row in self.rows]
            )

    def size(self) -> Tensor:
        """Σ |cotangent · outputs|, shape [rows]: what the rounding of a row is to be measured by, for the row itself may cancel."""
        with torch.no_grad():
            outputs = self._outputs({})
            return torch.stack(
                [sum(((c * outputs[n]).abs().sum() for n, c in row.items()), torch.zeros(())) for row in self.rows]
            )

    def derivative(self) -> dict[str, Tensor]:
        """Input → derivative of every row, shape [rows, *input]; zero where no path leads there."""
        leaves = {name: self.point.leaves[name].detach().requires_grad_() for name in self.wrt}
        with torch.enable_grad():
            outputs = self._outputs(leaves)
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

    def _turned(self, stacked: Tensor) -> Tensor:
        return stacked.conj().resolve_conj() if self.conjugate and stacked.is_complex() else stacked

    def _outputs(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.point.function.outputs, self.point.run(leaves), strict=True))


def _paired(cotangent: Tensor, output: Tensor) -> Tensor:
    product = cotangent.conj() * output if output.is_complex() else cotangent * output
    return (product.real if product.is_complex() else product).sum()


def weighted(point: Point, wrt: Sequence[str], cotangents: Mapping[str, Tensor] | None, of: str | None) -> Objective:
    """The rows of a gradient or VJP; cotangents left out are ones, those with one more leading axis are several."""
    outputs = _smooth(point)
    if of is not None and not cotangents:
        outputs = {name: value for name, value in outputs.items() if name == of}
    row = {name: widened(c) if point.wide else c for name, c in (cotangents or {}).items() if name in outputs} or {
        name: torch.ones_like(value) for name, value in outputs.items()
    }
    row = {name: c.to(outputs[name].dtype) if outputs[name].is_complex() else c for name, c in row.items()}
    several = next((c.shape[0] for name, c in row.items() if c.ndim == outputs[name].ndim + 1), None)
    if several is None:
        return Objective(point, tuple(wrt), (row,), ())
    rows = tuple({name: c[k] for name, c in row.items()} for k in range(several))
    return Objective(point, tuple(wrt), rows, (several,))


def jacobian(point: Point, wrt: Sequence[str], of: str | None) -> Objective:
    """The rows of the Jacobian of one output (`of`, or the first that carries a derivative)."""
    outputs = _smooth(point)
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


def _smooth(point: Point) -> dict[str, Tensor]:
    with torch.no_grad():
        outputs = dict(zip(point.function.outputs, point.run({}), strict=True))
    return {name: value for name, value in outputs.items() if is_differentiable(value.dtype)}
