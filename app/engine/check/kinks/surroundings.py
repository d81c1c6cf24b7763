"""The derivatives beside a point, seen on random sides of it: which elements bend, between which numbers, and which win ties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import product
from typing import Final

import torch
from torch import Tensor

from app.engine.check.kinks.exchanges import Exchange
from app.engine.check.objective import Differentiated
from app.engine.stepwise.one_sided import random_like, scale_of
from app.engine.stepwise.point import REFUSALS

# Steps off the point, relative to an element: a smooth derivative changes by 1/256 as much at the second as at the first, that at a kink by
# as much. They are this small for arguments as large as 1e12, where sin has gone round at 2^-30 of it.
STEPS: Final = (2.0**-40, 2.0**-48)
FIRST: Final = 200  # the number of the first pattern, apart from those of other random numbers
# Random sides on which all elements are put at once, and their opposites; of five tied maxima each wins once in 97 %.
PATTERNS: Final = 16
# And some on which all elements lie on one side, or on that on which the client's number differs: relu(-x.max()) at zeros bends where all
# twelve are negative, which chance shows once in four thousand. Of the further patterns each third is such a one.
STEERED: Final = 4
_EACH_STEERED: Final = 3
# Further patterns that show no new bend, before none is expected; where they do show some, so many for each: of fifty tied medians each
# is the median in one of fifty, and is missed in 2 % of cases.
_QUIET, _EACH = 48, 4
_MOST_PATTERNS: Final = 320  # gradients, some 0.1 ms each
# A derivative that changes by less than this of itself does not bend.
CHANGES: Final = 1e-3
# Winners in whose place an element is put, as many as groups of ties; and derivatives for that, fewer where there are many elements.
_WINNERS, _EXCHANGES, _EXCHANGED_ELEMENTS = 32, 512, 50_000_000
# Of the others' distance, for one that is to be nearest: the least that a step leaves beside numbers of size 1, and one for weights at zero.
_NEAR: Final = (0.125, 0.01)
# Elements of all derivatives that are kept, and again of those where an element wins a tie: 64 MiB. Those of `PATTERNS` sides
# always are.
_STORED_ELEMENTS: Final = 1 << 23
_AT_A_TIME: Final = 1 << 14  # elements whose medians over all patterns are found at a time: 2 MiB of each list


@dataclass
class Surroundings:
    """What has been seen so far, `low` and `high` of every element and its `largest` magnitude; `bent` where these are more than rounding.

    Attributes:
        toward: a direction on whose sides a bend is looked for too, shape [*input].
    """

    objective: Differentiated
    name: str
    low: Tensor
    high: Tensor
    bent: Tensor
    least: Tensor
    largest: Tensor
    toward: Tensor | None = None
    seen: list[Tensor] = field(default_factory=list)
    is_exhaustive: bool = True

    def keep(self, gradient: Tensor) -> None:
        """Among `seen`, as long as these are not too many."""
        self.largest = torch.maximum(self.largest, gradient.abs().nan_to_num(0, 0, 0))
        if len(self.seen) < max(PATTERNS, _STORED_ELEMENTS // max(1, gradient.numel())):
            self.seen.append(gradient)
        else:
            self.is_exhaustive = False

    def widen_at_tie(self, ours: Tensor) -> Exchange | None:
        """The largest tie, where its elements can change places; each of them bends then."""
        exchange = Exchange.of(self.objective, self.name)
        if exchange is not None:
            low, high = exchange.range_of(ours)
            self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
            self.bent = self.bent | (torch.isfinite(low) & has_kinks(self.low, self.high, self.least))
        return exchange

    def look_at_each(self) -> None:
        """Puts each element by itself nearest to the point, and farthest from it, where all lie on one side of it or on that of `toward`."""
        leaf = self.objective.point.leaves[self.name]
        ones = torch.ones_like(leaf)
        ways = [ones] if self.toward is None else [ones, torch.where(self.toward == 0, ones, self.toward.sign())]
        for column in range(min(leaf.numel(), _WINNERS)):
            for way, side, near, is_near in product(ways, (1.0, -1.0), _NEAR, (True, False)):
                sides = (1.0 if is_near else near) * side * way.reshape(-1)
                sides[column] *= near if is_near else 1 / near
                if self.look(sides.reshape(leaf.shape)) is None:
                    return
        self.bent = self.bent | has_kinks(self.low, self.high, self.least)

    def look_on(self, bent_at_first: Tensor) -> bool:
        """Tries further patterns while they show new bends; whether no more are expected."""
        leaf, number, quiet, enough = self.objective.point.leaves[self.name], PATTERNS, 0, _QUIET
        while quiet < enough and number < _MOST_PATTERNS and not bool(self.bent.all()) and bool(self.bent.any()):
            of_pattern = sides_of if number % _EACH_STEERED else partial(steered_sides, toward=self.toward)
            if self.look(of_pattern(leaf, FIRST + number)) is None:
                break
            number, quiet = number + 1, quiet + 1
            more = has_kinks(self.low, self.high, self.least) & ~bent_at_first & ~self.bent
            if bool(more.any()):
                quiet, self.bent = 0, self.bent | more
                enough = max(_QUIET, _EACH * int(self.bent.sum()))
        return quiet >= enough or bool(self.bent.all())

    def look(self, sides: Tensor, coarse: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """The derivative on these sides, and where it is the same at either step; None where it cannot be had.

        Arguments:
            coarse: that at the first step, where it is known.
        """
        if coarse is None:
            coarse = gradient_near(self.objective, self.name, sides, STEPS[0])
        fine = None if coarse is None else gradient_near(self.objective, self.name, sides, STEPS[1])
        if coarse is None or fine is None:
            return None
        alike = torch.isfinite(fine) & ((fine - coarse).abs() <= CHANGES * fine.abs())
        self.low = torch.where(alike, torch.minimum(self.low, fine), self.low)
        self.high = torch.where(alike, torch.maximum(self.high, fine), self.high)
        self.keep(fine)
        return fine, alike

    def exchange(self, patterns: Sequence[Tensor], suspects: Tensor) -> Tensor:
        """Looks at each of `suspects` [rows, *input] in the place of an element that wins a tie; those left over, of that shape.

        Of many tied medians each is the median only where half of the others lie below it, which chance shows of few. But two tied
        elements that change places change derivatives.

        Arguments:
            patterns: derivatives at the first sides, at the coarser step, shape [rows, *input] each.
        """
        flat = self.objective.point.leaves[self.name].reshape(-1)
        columns = suspects.reshape(len(suspects), -1).any(0).nonzero().reshape(-1)
        bases = self._bases(patterns) if len(columns) else []
        # Those that look least like a tie first: one that is none has to be known as such.
        alike = torch.isin(flat[columns], flat[[winner for winner, *_ in bases]])
        left = max(_WINNERS, min(_EXCHANGES, _EXCHANGED_ELEMENTS // flat.numel()))
        unsure = torch.zeros(len(suspects), flat.numel(), dtype=torch.bool, device=flat.device)
        for column in columns[alike.long().argsort(stable=True)].tolist() if bases else ():
            unsure[:, column] = left <= 0
            for base in sorted(bases, key=lambda base: bool(flat[base[0]] != flat[column])) if left > 0 else ():
                left -= 1
                if self._has_kink_exchanged(column, *base):
                    break
        return unsure.reshape(suspects.shape) & suspects

    def _bases(self, patterns: Sequence[Tensor]) -> list[tuple[int, Tensor, Tensor]]:
        """Winners of ties, the rarest first, each with where [elements] it wins, and the derivative where it alone lies between all others."""
        leaf = self.objective.point.leaves[self.name]
        usual = median_of(lambda gradients: gradients, patterns)
        rounding = torch.maximum(self.least, CHANGES * reduce(torch.maximum, (gradient.abs() for gradient in patterns)))
        away = ((gradient - usual).abs().nan_to_num(0, 0, 0) for gradient in patterns)
        wins = torch.stack([(each > rounding).any(0).reshape(-1) for each in away])
        at = int(wins.any(1).int().argmax())
        winners, often = wins[at].nonzero().reshape(-1), wins.sum(0)
        moved = (sides_of(leaf, FIRST + at) * scale_of(leaf)).reshape(-1)
        at_most = max(1, min(_WINNERS, _STORED_ELEMENTS // max(1, moved.numel())))
        bases = []
        for winner in winners[often[winners].argsort(stable=True)][:at_most].tolist():
            known = self.look(_alone_between(moved, winner).reshape(leaf.shape))
            if known is not None and self._note_kink(winner, self._apart(known[0], usual), known[1]):
                bases.append((winner, moved, known[0]))
        return bases

    def _has_kink_exchanged(self, column: int, winner: int, moved: Tensor, base: Tensor) -> bool:
        """Whether the derivative by element `column` is another than `base` where it stands in the place of `winner`."""
        exchanged = _alone_between(moved, winner)
        exchanged[[winner, column]] = exchanged[[column, winner]]
        exchanged = exchanged.reshape(base.shape[1:])
        near = gradient_near(self.objective, self.name, exchanged, STEPS[0])
        if near is None or not bool(self._apart(near, base)[:, column].any()):
            return False
        known = self.look(exchanged, near)
        if known is None:
            return False
        return self._note_kink(column, self._apart(known[0], base), known[1])

    def _note_kink(self, column: int, apart: Tensor, alike: Tensor) -> bool:
        """Notes in which rows element `column` bends, `apart` shape [rows, elements]; whether in any."""
        kinks = (apart & alike.reshape(apart.shape))[:, column]
        self.bent.view(len(kinks), -1)[:, column] |= kinks
        return bool(kinks.any())

    def _apart(self, one: Tensor, other: Tensor) -> Tensor:
        """Where two derivatives differ by more than rounding, shape [rows, elements]."""
        return has_kinks(torch.minimum(one, other), torch.maximum(one, other), self.least).reshape(len(one), -1)


def median_of(combined: Callable[..., Tensor], *patterns: Sequence[Tensor]) -> Tensor:
    """The median over the patterns of each element of what `combined` makes of them; a part of the elements at a time.

    Arguments:
        combined: of stacks of parts of each of `patterns`, shape [patterns, elements], the same of that shape.
    """
    flat = [[gradient.reshape(-1) for gradient in each] for each in patterns]
    medians = torch.empty_like(flat[0][0])
    for start in range(0, medians.numel(), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        medians[part] = combined(*(torch.stack([gradient[part] for gradient in each]) for each in flat)).median(0).values
    return medians.reshape(patterns[0][0].shape)


def _alone_between(moved: Tensor, winner: int) -> Tensor:
    """Sides in the order of `moved`, but so far apart that rounding leaves no two together; none at the point, where PyTorch may be wrong."""
    sides = (moved - moved[winner]).sign()
    sides[winner] = 0.5
    return sides


def sides_of(leaf: Tensor, number: int) -> Tensor:
    """Random signs, with magnitudes over two decades, so that one kink is often much nearer than another."""
    sides = random_like(leaf, number // 2)
    sign = -1.0 if number % 2 else 1.0  # each and its opposite, so that every element is on both sides
    return sign * sides.sign() * torch.pow(10.0, 2 * (sides.abs() - 1))


def steered_sides(leaf: Tensor, number: int, *, toward: Tensor | None) -> Tensor:
    """Those magnitudes, all on one side, or on the sides of `toward` where it has some; by turns, and each with its opposite."""
    sides = sides_of(leaf, number).abs() * (-1.0 if number % 2 else 1.0)
    if toward is None or (number // 2) % 2:
        return sides
    return torch.where(toward == 0, sides_of(leaf, number), sides * toward.sign())


def gradient_near(objective: Differentiated, name: str, sides: Tensor, step: float) -> Tensor | None:
    leaf = objective.point.leaves[name]
    try:
        return objective.derivative({name: leaf + step * scale_of(leaf) * sides})[name]
    except REFUSALS:
        return None


def has_kinks(low: Tensor, high: Tensor, least: Tensor) -> Tensor:
    """Where a range is more than rounding: `least` is nothing of the function itself over its input."""
    spread, size = high - low, torch.maximum(low.abs(), high.abs()).nan_to_num(0, 0, 0)
    return torch.isfinite(spread) & (spread > CHANGES * size) & (spread > torch.clamp(least, min=1e-9 * float(size.max())))
