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

_FEWEST: Final = 4  # tied elements; of three, sorted and weighted, the six corners of the hull are looked at one by one
_ORDERS: Final = 6  # random orders of the tie, each tried in another order too: chance makes no step symmetric six times
# In steps, from the middle of the tie: all of it on one side of a kink of its own order statistic, as that of relu(-x.max()).
_SHIFTS: Final = (0.0, 2.0, -2.0)
# Tied elements whose kinds of permutations are mixed; a linear program of that size takes a second at most.
_MOST_MIXED: Final = 4096
# Relative to an element, between the first and the last of the tie: a thousand tied elements stay apart by their own part of it.
_STEP: Final = 2.0**-30
_ALIKE: Final = 1e-6  # of the largest: what a smooth derivative changes by within that step, a thousand times over
_SLACK: Final = 1e-5  # of the sum of the magnitudes, as points of other hulls are found


@dataclass(frozen=True)
class Exchange:
    """One tie of an input.

    Attributes:
        tied: flat indices of its elements.
        derivatives: one for each order and shift that was tried, shape [orders, rows, elements], that by the tied ones in falling order.
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
        shifts = _SHIFTS * _ORDERS
        derivatives: Tensor | None = None
        for number, shift in enumerate(shifts):
            one, other = (torch.randperm(len(tied), generator=generator, device="cpu").to(leaf.device) for _ in range(2))
            first, second = (_derivative(objective, name, tied, order, shift) for order in (one, one[other]))
            if first is None or second is None:
                return None
            exchanged = first.clone()
            exchanged[:, tied] = first[:, tied][:, other]
            if bool(((exchanged - second).abs() > _ALIKE * first.abs().amax()).any()):
                return None
            first[:, tied] = first[:, tied].sort(1, descending=True).values
            if derivatives is None:  # filled, not stacked: each may be large
                derivatives = first.new_empty(len(shifts), *first.shape)
            derivatives[number] = first
        return None if derivatives is None else cls(tied, derivatives)

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
        wanted = expected[self.tied].sort(descending=True).values.cumsum(0)
        slack = _SLACK * own.abs().sum(1) + doubt[self.tied].sum()
        is_majorised = False
        for derivative, allowed in zip(own, slack, strict=True):
            sums = derivative[self.tied].cumsum(0)
            is_below = bool((wanted <= sums + allowed).all()) and bool((wanted[-1] - sums[-1]).abs() <= allowed)
            is_majorised |= is_below
            if is_below and not bool(
                ((expected - derivative).abs()[beside] > (_SLACK * size + _ALIKE * allowed + doubt)[beside]).any()
            ):
                return True
        if is_one:  # what stands beside the tie may lie at kinks of its own
            return None if is_majorised else False
        kinds = torch.unique(own, dim=0)
        allowed_beside = (_SLACK * size + doubt)[beside]
        sums = kinds[:, self.tied].cumsum(1)
        is_mixed = _is_mixed(sums, kinds[:, beside], wanted, expected[beside], float(slack.min()), allowed_beside)
        return True if is_mixed else None

    def range_of(self, ours: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest derivative of each tied element, shape of `ours`; ∞ and -∞ of others."""
        low, high = (torch.full_like(ours, side).reshape(len(ours), -1) for side in (torch.inf, -torch.inf))
        own = self.derivatives[:, :, self.tied]
        low[:, self.tied], high[:, self.tied] = (
            side[:, None].expand(-1, len(self.tied)) for side in (own.amin((0, 2)), own.amax((0, 2)))
        )
        return low.reshape(ours.shape), high.reshape(ours.shape)


def _is_mixed(sums: Tensor, others: Tensor, wanted: Tensor, expected: Tensor, slack: float, slack_beside: Tensor) -> bool:
    """Whether some mixture of the kinds majorises: the permutations of a mixture of falling vectors are the mixtures of theirs.

    Arguments:
        sums: of each kind's largest derivatives, shape [kinds, tied]; `wanted` those of the expected ones, [tied].
        others: of each kind beside the tie, shape [kinds, others]; `expected` and `slack_beside` of each, [others].
    """
    from scipy.optimize import linprog  # half a second, which only few checks need

    if sums.shape[1] + others.shape[1] > _MOST_MIXED:
        return False
    below = torch.cat([-sums, sums[:, -1:], others, -others], 1).T
    limits = torch.cat([slack - wanted, slack + wanted[-1:], expected + slack_beside, slack_beside - expected])
    largest = float(sums.abs().max().clamp(min=1e-300))  # the solver's own tolerance, 1e-7, is absolute
    below, limits = below / largest, limits / largest
    weights = torch.ones(1, len(sums), dtype=torch.float64)
    solved = linprog(torch.zeros(len(sums)).numpy(), below.cpu().numpy(), limits.cpu().numpy(), weights.numpy(), [1.0])
    return bool(solved.status == 0)


def _derivative(objective: Differentiated, name: str, tied: Tensor, order: Tensor, shift: float) -> Tensor | None:
    """The derivative where the tied elements are moved apart in this order, and all by `shift` steps; None where it is not to be had.

    Shape [rows, elements].
    """
    leaf = objective.point.leaves[name]
    sides = torch.zeros_like(leaf).reshape(-1)
    sides[tied] = shift + torch.linspace(-1, 1, len(tied), dtype=leaf.dtype, device=leaf.device)[order]
    try:
        derivative = objective.derivative({name: leaf + _STEP * scale_of(leaf) * sides.reshape(leaf.shape)})[name]
    except REFUSALS:
        return None
    flat = derivative.reshape(len(derivative), -1)
    return flat if bool(torch.isfinite(flat).all()) else None
