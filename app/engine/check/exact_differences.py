"""Difference quotients in numbers of 60 digits: the witness where those of float64 cannot decide, as for cos(x) at 1e8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from app.engine.check.finite_differences import Coordinate
from app.engine.check.objective import Differentiated
from app.engine.precision.exact_arithmetic.numbers import DIGITS, MP, Carrier, Numbers, as_numbers, numbers_of
from app.engine.precision.exact_arithmetic.tensor import ExactTensor, Ledger, TooLongError
from app.engine.stepwise.point import REFUSALS

# Numbers of 60 digits that one input may cost: about 5 µs each, so about 0.4 s.
_BUDGET: Final = 80_000
# A step of 1e-25 of the element leaves 35 of 60 digits to a quotient, and 25 to a function that bends as much as it rises. At that step a
# branch is taken as at the point itself; at the last bits of a float64 it is taken as there, so that jumps and bends are seen.
_STEP: Final = MP.mpf(10) ** -25
_NEARER: Final = MP.mpf(10) ** -35  # and this one follows sin(1e20 x) to ten digits
_COARSE, _FINE = MP.mpf(2) ** -44, MP.mpf(2) ** -50
_RATIO: Final = 64  # of these two steps
# Where the two sides differ by more there is a kink; a quarter and four times as much give the same verdicts (43 derivations measured).
_SIDES: Final = 1e-7
# A quotient of so many right digits is enough; where a huge value beside it takes them, as 1e200 does, it is taken in more.
_RIGHT, _MOST_DIGITS = 16, 720  # the square of the least float64 needs 650 beside 1
_KINK: Final = 1e-6  # a side whose quotient is another than at the smallest step, and stays so: its branch is another
# Of its distance to the smallest step's: two steps agree far better with each other than with that; at an eighth verdicts are the same.
_STAYS: Final = 0.1
# Of a quotient, where the step shrinks by 1e10: what falls like the square root of the step or faster, as x² at 0, tends to zero.
_VANISHES: Final = 1e-4
_GROWS: Final = 2  # so does that of an infinite slope, by less: sqrt(|x|) at 0
_JUMPS: Final = 8  # a quotient that grows by so much where the step shrinks by 64 is that of a jump


class ExactDifferences:
    """Quotients of one input, while the budget lasts."""

    def __init__(self, objective: Differentiated, name: str) -> None:
        self._objective, self._name = objective, name
        self._ledger = Ledger(_BUDGET)
        self._leaves: dict[str, Numbers] = {}
        leaf = objective.point.leaves[name]
        self.possible = (
            objective.exact and objective.point.wide and not objective.point.function.random and leaf.dtype == torch.float64
        )

    def _numbers(self, name: str) -> Numbers:
        """A leaf's, of which one is moved at a time; whatever digits they are computed with, they are those of its float64."""
        if name not in self._leaves:
            self._leaves[name] = numbers_of(self._objective.point.leaves[name])
        return self._leaves[name].copy()

    def at(self, coordinate: Coordinate) -> tuple[Tensor, Tensor, Tensor] | None:
        """The left and right quotient of every row, and what rounding leaves of them in doubt, shape [rows] each.

        None where some call has no exact meaning, the budget is spent, or the function jumps there.
        """
        if not self.possible or coordinate[1]:
            return None
        leaf = self._objective.point.leaves[self._name]
        own = float(leaf.reshape(-1)[coordinate[0]].abs())
        scale = own or float(leaf.abs().nan_to_num(0, 0, 0).mean()) or 1.0
        left, right, rounding = None, None, list[Any]()
        try:
            for digits in (DIGITS, _MOST_DIGITS):
                with MP.workdps(digits), np.errstate(all="ignore"), torch.no_grad():
                    base = self._rows(coordinate[0], MP.mpf(0))
                    left, right = (self._side(base, coordinate[0], sign * MP.mpf(scale)) for sign in (-1, 1))
                    rounding = [abs(value) * MP.mpf(10) ** -digits / (_STEP * scale) for value in base]
                    noise = max(rounding, default=0) * MP.mpf(10) ** _RIGHT
                if left is None or right is None or all(abs(value) > noise for value in (*left, *right)):
                    break
        except (*REFUSALS, TooLongError, NotImplementedError, AttributeError):
            self.possible = False  # some call cannot be made on tensors that carry more than PyTorch knows of
            return None
        if self._ledger.unproved:
            self.possible = False
            return None
        return None if left is None or right is None else (_floats(left), _floats(right), _floats(rounding))

    def _side(self, base: list[Any], index: int, scale: Any) -> list[Any] | None:
        """The quotients of one side; None at a jump, also to infinity."""
        columns = [
            [(a - b) / (step * scale) for a, b in zip(self._rows(index, step * scale, moves), base, strict=True)]
            for step, moves in ((_STEP, False), (_COARSE, True), (_FINE, True))
        ]
        if not all(MP.isfinite(quotient) for column in columns for quotient in column):
            return None  # of xlogy(x, 0), 0 at x = 0 alone: infinity is less than any share of itself too
        is_zero = [
            abs(finest) <= _VANISHES * abs(fine) and _JUMPS * abs(fine) <= abs(coarse)
            for finest, coarse, fine in zip(*columns, strict=True)
        ]
        if any(_is_apart(finest, fine) for finest, _, fine in zip(*columns, strict=True)):
            # Another branch a last bit away, or a function that goes round within it: its own branch, at the same step, tells.
            own, nearer = (
                [(a - b) / (step * scale) for a, b in zip(self._rows(index, step * scale), base, strict=True)]
                for step in (_FINE, _NEARER)
            )
            same = [  # and a quotient that grows with each step is that of a jump; within the last bit it stands still beside a pole
                not _is_apart(a, b) and (abs(n) <= _JUMPS * abs(b) or abs(n) <= _JUMPS * abs(c))
                for a, b, c, n in zip(own, columns[2], columns[0], nearer, strict=True)
            ]
            columns = [[n if alike else c for c, n, alike in zip(column, nearer, same, strict=True)] for column in columns]
        rows = [MP.mpf(0) if zero else _limit(*quotients) for zero, *quotients in zip(is_zero, *columns, strict=True)]
        return None if None in rows else rows

    def _rows(self, index: int, step: Any, moves: bool = False) -> list[Any]:
        """The rows where one element has moved by `step`; `moves`: the float64 run, which decides branches, moves too."""
        leaves: dict[str, Tensor] = {}
        for name, leaf in self._objective.point.leaves.items():
            if leaf.dtype != torch.float64:
                leaves[name] = leaf
                continue
            if leaf.numel() > self._ledger.left:
                raise TooLongError  # before a million numbers are made in vain
            numbers = self._numbers(name)
            tensor = ExactTensor(leaf, numbers, self._ledger)
            if name == self._name:
                numbers.reshape(-1)[index] += step
                value = leaf.clone()
                if moves:
                    value.reshape(-1)[index] = float(numbers.reshape(-1)[index])
                tensor = ExactTensor(value, numbers, self._ledger)
            leaves[name] = tensor
        outputs = self._objective.outputs(leaves)
        return [_row(row, outputs) for row in self._objective.rows]


def sides_differ(left: Tensor, right: Tensor) -> Tensor:
    return (left - right).abs() > _SIDES * (left.abs() + right.abs())


def _is_apart(finest: Any, fine: Any) -> bool:
    return bool(abs(fine - finest) > _KINK * max(abs(fine), abs(finest)))


def _limit(finest: Any, coarse: Any, fine: Any) -> Any:
    """The limit of a side's quotients; None where they run away."""
    apart = abs(fine - finest)
    if not _is_apart(finest, fine):
        return finest
    if abs(fine) > _JUMPS * abs(coarse) and (abs(fine) > _JUMPS * abs(finest) or abs(finest) > _JUMPS * abs(fine)):
        return None
    if all(abs(b) > _GROWS * abs(a) for a, b in ((coarse, fine), (fine, finest))):
        return None
    # Of another branch than the point's own, whose quotients do not settle, nothing is known.
    return fine + (fine - coarse) / (_RATIO - 1) if abs(fine - coarse) <= _STAYS * apart else None


def _row(row: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Any:
    total = MP.mpf(0)
    for name, cotangent in row.items():
        output = outputs[name]
        if output.dtype != torch.float64 or (not isinstance(output, Carrier) and output.requires_grad):
            raise NotImplementedError
        products = np.asarray(as_numbers(cotangent.to(torch.float64)) * as_numbers(output), dtype=object)
        total += products.sum() if products.size else 0
    return total


def _floats(row: list[Any]) -> Tensor:
    return torch.tensor([float(number) for number in row], dtype=torch.float64)
