"""What a kind of result asks of the plan: bytes, passes, a mode of differentiation, and which output it is of."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import torch
from torch import fx

from app.engine.tensors import is_differentiable
from app.program.function import Function, GraphFact
from app.query import Format

Method = Literal["none", "reverse", "forward"]
# `cheapest`: whichever of the two takes fewer passes for the whole Jacobian.
Mode = Literal["none", "reverse", "forward", "cheapest"]
# `scalar`: of one real number; `likelihoods`: of one real number for each sample, shape [n].
Needs = Literal["nothing", "scalar", "likelihoods"]
MultipliedBy = Literal["nothing", "cotangent", "tangent"]

_WIDTH: Final = 8  # bytes of an element, where there is none
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


class _Ends(NamedTuple):
    """Tensors at one end of a derivative, all together."""

    elements: int
    bytes: int
    width: int
    is_complex: bool

    @staticmethod
    def of(results: tuple[Result, ...]) -> _Ends:
        elements = size = width = 0
        is_complex = False
        for _, shape, dtype in results:
            each, own = math.prod(shape), dtype.itemsize
            elements, size, width = elements + each, size + each * own, max(width, own)
            is_complex = is_complex or dtype.is_complex
        return _Ends(elements, size, width, is_complex)


# Inputs of fewer bytes: what their adjoints leave behind is small beside what a worker has.
_REUSED_FROM_BYTES: Final = 1 << 20
# Of an input, for each step more that reads it, where a derivative is differentiated: what malloc leaves behind of adjoints that come and go
# between small ones, measured as the growth of a fresh process: 0.2 to 2 where a step shows a part (`x[t]`), 3 to 4 where it makes less of it
# (20 products with a matrix of 16 MB). Steps that make as much are counted by what they make.
_COPIES_OF_A_PART: Final = 2
_COPIES: Final = 4


def _copies(step: fx.Node, shape: tuple[int, ...]) -> int:
    if step.target is operator.getitem:
        return _COPIES_OF_A_PART
    value = step.meta.get("val")
    return 0 if getattr(value, "shape", None) == shape else _COPIES


@GraphFact
def _copies_of_inputs(graph: fx.Graph) -> list[int]:
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    of_steps = [[_copies(step, node.meta["val"].shape) for step in node.users if step.op == "call_function"] for node in inputs]
    return [sum(copies) - max(copies, default=0) for copies in of_steps]


def reused_bytes(function: Function, leaves: Sequence[tuple[str, tuple[int, ...], torch.dtype]], wrt: Container[str]) -> int:
    """What the adjoints of large inputs that several steps read take beside one for each, where a derivative is differentiated."""
    sizes = [math.prod(shape) * dtype.itemsize if name in wrt else 0 for name, shape, dtype in leaves]
    if max(sizes, default=0) < _REUSED_FROM_BYTES:
        return 0
    copies = _copies_of_inputs(function.pattern if function.has_steps_of_pattern else function.graph)
    return sum(size * count for size, count in zip(sizes, copies, strict=True) if size >= _REUSED_FROM_BYTES)


class Sizes:
    """What the demands of one sample are computed from: reckoned at once, for each new shape asks for nearly all of it.

    Attributes:
        wrt: the leaves to differentiate with respect to; outputs: all of the Function's.
        of: the output that scalar and likelihood kinds are of, where one is wanted.
        num_vectors: cotangents or tangents in one query.
        format: of Jacobians and Hessians; where it is not `dense` they are sized here as if each line had one entry, and again
            when their patterns are known.
        method: of the whole Jacobian.
        differentiable_everywhere: every step is known to have a derivative at all points, so that none has to be looked at.
        without_derivative: no step is known to have one.
        reused_bytes: `reused_bytes` of the Function.
        differentiable: the outputs that can carry a derivative.
        is_differentiated: there may be a derivative of some output by some input.
        columns: elements of the inputs, columns of the Jacobian; rows: of the differentiable outputs.
        width: bytes of the widest element.
    """

    def __init__(
        self,
        wrt: tuple[Result, ...],
        outputs: tuple[Result, ...],
        of: Result | None,
        num_vectors: int,
        format: Format,  # noqa: A002  # the query's word
        method: Method,
        *,
        differentiable_everywhere: bool = False,
        without_derivative: bool = False,
        reused_bytes: int = 0,
    ) -> None:
        self.wrt, self.outputs, self.of, self.num_vectors, self.format, self.method = (
            wrt,
            outputs,
            of,
            num_vectors,
            format,
            method,
        )
        self.differentiable_everywhere, self.without_derivative = differentiable_everywhere, without_derivative
        self.reused_bytes = reused_bytes
        self.differentiable = tuple([output for output in outputs if is_differentiable(output.dtype)])
        self.is_differentiated = bool(self.differentiable) and bool(wrt) and not without_derivative
        self.columns, self.wrt_bytes, narrow, is_complex = _Ends.of(wrt)
        self.rows, self.differentiable_bytes, wide, are_complex = _Ends.of(self.differentiable)
        self.width: int = max(narrow, wide) or _WIDTH
        self.is_complex = is_complex or are_complex

    @property
    def elements(self) -> int:
        """Of all tensors together, at least: of the inputs, and of an output that no other can be the same as."""
        return self.columns + (self.outputs[0].elements if len(self.outputs) == 1 else 0)

    @property
    def dense(self) -> bool:
        """Jacobians and Hessians are wanted in full."""
        return self.format == "dense"

    @property
    def lines(self) -> int:
        """Rows or columns of the Jacobian, whichever are more."""
        return max(self.rows, self.columns)

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
    looks: Callable[[Sizes], tuple[int, int]] | None = None
    order: int = 1
    working: Callable[[Sizes], int] | None = None
    vectors: MultipliedBy = "nothing"
    patterns: Callable[[Sizes], int] | None = None
    by_outputs: bool = False
    by_extents: bool = False
    past_writes: bool = False


class Wanted(dict[str, Demand]):
    """The demands of the kinds that are wanted, in their order, and what of them no size has a say in.

    Attributes:
        order: the highest.
        modes: of those that differentiate, that of one by rows first, else in their order.
        copies: the most that one holds.
        working, patterns, looks: of those that have such.
    """

    def __init__(self, demands: Mapping[str, Demand]) -> None:
        super().__init__(demands)
        all_of = self.values()
        self.derives = any(demand.derives for demand in all_of)
        self.by_rows = any(demand.by_rows for demand in all_of)
        self.by_extents = any(demand.by_extents for demand in all_of)
        self.by_outputs = any(demand.by_outputs for demand in all_of)
        self.order = max((demand.order for demand in all_of), default=1)
        self.modes = tuple(
            demand.mode for demand in sorted(all_of, key=lambda demand: not demand.by_rows) if demand.mode != "none"
        )
        self.copies = max((demand.copies for demand in all_of), default=0)
        self.working = tuple(demand.working for demand in all_of if demand.working is not None)
        self.patterns = tuple((demand.patterns, demand.by_outputs) for demand in all_of if demand.patterns is not None)
        self.looks = tuple(demand.looks for demand in all_of if demand.looks is not None)

    def patterns_of(self, sizes: Sizes) -> int:
        """Entries of the most patterns that one holds."""
        return max([patterns(sizes) for patterns, _ in self.patterns], default=0)
