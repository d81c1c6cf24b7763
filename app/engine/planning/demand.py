"""What a kind of result asks of the plan: bytes, passes, a mode of differentiation, and which output it is of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

import torch

from app.engine.tensors import is_differentiable
from app.query import Format

Method = Literal["none", "reverse", "forward"]
# `cheapest`: whichever of the two takes fewer passes for the whole Jacobian.
Mode = Literal["none", "reverse", "forward", "cheapest"]
# `scalar`: of one real number; `likelihoods`: of one real number for each sample, shape [n].
Needs = Literal["nothing", "scalar", "likelihoods"]
MultipliedBy = Literal["nothing", "cotangent", "tangent"]

SMALLER: Final = "Send smaller inputs, or reduce the result in a program before it is returned."


class Result(NamedTuple):
    """A tensor of the Function or of the answer, before it exists."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize


@dataclass(frozen=True)
class Sizes:
    """What the demands of one sample are computed from.

    Attributes:
        wrt: the leaves to differentiate with respect to; outputs: all of the Function's.
        of: the output that scalar and likelihood kinds are of, where one is wanted.
        num_vectors: cotangents or tangents in one query.
        format: of Jacobians and Hessians; where it is not `dense` they are sized here as if each line had one entry, and again
            when their patterns are known.
        method: of the whole Jacobian.
        differentiable_everywhere: every step is known to have a derivative at all points, so that none has to be looked at.
        without_derivative: no step is known to have one.
    """

    wrt: tuple[Result, ...]
    outputs: tuple[Result, ...]
    of: Result | None
    num_vectors: int
    format: Format
    method: Method
    differentiable_everywhere: bool = False
    without_derivative: bool = False

    @cached_property
    def is_differentiated(self) -> bool:
        """There may be a derivative of some output by some input."""
        return bool(self.differentiable) and bool(self.wrt) and not self.without_derivative

    @cached_property
    def elements(self) -> int:
        """Of all tensors together, at least: of the inputs, and of an output that no other can be the same as."""
        return self.columns + (self.outputs[0].elements if len(self.outputs) == 1 else 0)

    @property
    def dense(self) -> bool:
        """Jacobians and Hessians are wanted in full."""
        return self.format == "dense"

    @cached_property
    def lines(self) -> int:
        """Rows or columns of the Jacobian, whichever are more."""
        return max(self.rows, self.columns)

    @cached_property
    def differentiable(self) -> tuple[Result, ...]:
        """The outputs that can carry a derivative."""
        return tuple(output for output in self.outputs if is_differentiable(output.dtype))

    @cached_property
    def columns(self) -> int:
        """Elements of the inputs: columns of the Jacobian."""
        return sum(leaf.elements for leaf in self.wrt)

    @cached_property
    def rows(self) -> int:
        """Elements of the differentiable outputs: rows of the Jacobian."""
        return sum(output.elements for output in self.differentiable)

    @cached_property
    def width(self) -> int:
        """Bytes of the widest element."""
        return max((result.dtype.itemsize for result in (*self.wrt, *self.differentiable)), default=8)

    @cached_property
    def wrt_bytes(self) -> int:
        return sum(leaf.bytes for leaf in self.wrt)

    @cached_property
    def differentiable_bytes(self) -> int:
        return sum(output.bytes for output in self.differentiable)

    @cached_property
    def is_complex(self) -> bool:
        return any(result.dtype.is_complex for result in (*self.wrt, *self.differentiable))

    @property
    def samples(self) -> int:
        """Log-likelihoods that `of` holds."""
        return self.of.elements if self.of else 1


@dataclass(frozen=True, slots=True)
class Demand:
    """What a kind asks of the plan.

    Attributes:
        bytes: of its result; passes: forwards and backwards besides the one forward.
        mode: how it is differentiated.
        needs: what the output that it is of must be.
        by_rows: it is computed row by row, many rows at a time.
        derives: it differentiates, so autograd keeps every intermediate, and its tensors are looked through for NaN.
        instead: what to ask for where the result is too large.
        order: 2 where it differentiates a derivative.
        working: bytes that it makes of its result on the way there, besides what `bytes` says.
        copies: of all intermediates, in float64, that it holds at a time beside its result.
        looks: of the inputs, and of the largest tensor among steps and outputs, in float64, that it holds at a time.
        vectors: what its derivative is multiplied by.
        patterns: entries of patterns that it holds at least, of one sample at a time.
        by_outputs: its patterns are those of the outputs, which can be followed while the Function is built.
        by_extents: what it tells may hang on extents, so a Function that was built for others of the same ranks does not serve.
        past_writes: it tells of derivatives that a write in place has spoiled, where the others are refused.
    """

    bytes: Callable[[Sizes], int]
    passes: Callable[[Sizes], int]
    mode: Mode = "reverse"
    needs: Needs = "nothing"
    by_rows: bool = False
    derives: bool = True
    instead: str = SMALLER
    copies: int = 0
    looks: Callable[[Sizes], tuple[int, int]] = lambda sizes: (0, 0)
    order: int = 1
    working: Callable[[Sizes], int] = lambda sizes: 0
    vectors: MultipliedBy = "nothing"
    patterns: Callable[[Sizes], int] = lambda sizes: 0
    by_outputs: bool = False
    by_extents: bool = False
    past_writes: bool = False
