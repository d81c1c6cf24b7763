"""Ties whose elements can change places: their derivatives are the permutations of one, and majorisation tells what is a mixture of these.

R. Rado, An inequality, J. London Math. Soc. 27 (1952): the hull of the permutations of g holds exactly the vectors that g majorises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from app.engine.check.objective import Differentiated
from app.engine.stepwise.one_sided import scale_of
from app.engine.stepwise.point import REFUSALS

_FEWEST: Final = 9  # tied elements; of fewer each corner of the hull is looked at
_ORDERS: Final = 6  # random orders of the tie, each tried in another order too: chance makes no step symmetric six times
# Relative to an element, between the first and the last of the tie: a thousand tied elements stay apart by their own part of it.
_STEP: Final = 2.0**-30
_ALIKE: Final = 1e-6  # of the largest: what a smooth derivative changes by within that step, a thousand times over
_SLACK: Final = 1e-5  # of the sum of the magnitudes, as points of other hulls are found


@dataclass(frozen=True)
class Exchange:
    """One tie of an input.

    Attributes:
        tied: flat indices of its elements.
        derivatives: one for each order that was tried, shape [orders, rows, elements], that by the tied ones in falling order.
    """

    tied: Tensor
    derivatives: Tensor

    @classmethod
    def of(cls, objective: Differentiated, name: str) -> Exchange | None:
        """The largest tie; None where it is small, or its elements cannot change places."""
        leaf = objective.point.leaves[name]
        values, counts = torch.unique(leaf, return_counts=True)
        if not counts.numel() or int(counts.max()) < _FEWEST:
            return None
        tied = (leaf.reshape(-1) == values[counts.argmax()]).nonzero().reshape(-1)
        generator = torch.Generator().manual_seed(len(tied))
        derivatives = []
        for _ in range(_ORDERS):
            one, other = (torch.randperm(len(tied), generator=generator, device="cpu").to(leaf.device) for _ in range(2))
            seen = [_derivative(objective, name, tied, order) for order in (one, one[other])]
            first, second = seen
            if first is None or second is None:
                return None
            exchanged = first.clone()
            exchanged[:, tied] = first[:, tied][:, other]
            if bool(((exchanged - second).abs() > _ALIKE * first.abs().amax()).any()):
                return None
            first[:, tied] = first[:, tied].sort(1, descending=True).values
            derivatives.append(first)
        return cls(tied, torch.stack(derivatives))

    def contains(self, row: int, expected: Tensor, doubt: Tensor) -> bool | None:
        """Whether `expected` [elements] is a mixture of the permutations, in one row; None where several kinds of them leave that open.

        Arguments:
            doubt: what each element of `expected` may be off by, of its shape.
        """
        own = self.derivatives[:, row]
        beside = torch.ones(own.shape[1], dtype=torch.bool, device=own.device)
        beside[self.tied] = False
        size = own.abs().amax(0)
        is_one = bool(((own - own[0]).abs() <= _ALIKE * size.max()).all())
        wanted, slack = (
            expected[self.tied].sort(descending=True).values.cumsum(0),
            _SLACK * own.abs().sum(1) + doubt[self.tied].sum(),
        )
        for derivative, allowed in zip(own, slack, strict=True):
            sums = derivative[self.tied].cumsum(0)
            is_majorised = bool((wanted <= sums + allowed).all()) and bool((wanted[-1] - sums[-1]).abs() <= allowed)
            is_beside = bool(
                ((expected - derivative).abs()[beside] <= (_SLACK * size + _ALIKE * allowed + doubt)[beside]).all()
            )
            if is_majorised and is_beside:
                return True
        return False if is_one else None

    def range_of(self, ours: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest derivative of each tied element, shape of `ours`; ∞ and -∞ of others."""
        low, high = (torch.full_like(ours, side).reshape(len(ours), -1) for side in (torch.inf, -torch.inf))
        own = self.derivatives[:, :, self.tied]
        low[:, self.tied], high[:, self.tied] = (
            side[:, None].expand(-1, len(self.tied)) for side in (own.amin((0, 2)), own.amax((0, 2)))
        )
        return low.reshape(ours.shape), high.reshape(ours.shape)


def _derivative(objective: Differentiated, name: str, tied: Tensor, order: Tensor) -> Tensor | None:
    """The derivative where the tied elements are moved apart in this order, shape [rows, elements]; None where it is not to be had."""
    leaf = objective.point.leaves[name]
    sides = torch.zeros_like(leaf).reshape(-1)
    sides[tied] = torch.linspace(-1, 1, len(tied), dtype=leaf.dtype, device=leaf.device)[order]
    try:
        derivative = objective.derivative({name: leaf + _STEP * scale_of(leaf) * sides.reshape(leaf.shape)})[name]
    except REFUSALS:
        return None
    flat = derivative.reshape(len(derivative), -1)
    return flat if bool(torch.isfinite(flat).all()) else None
